"""The kits' options: a plugin of pytest's own, named in the entry-point group `pytest11`.

The options of tests that --pyargs names must be known before their conftest.py is, so they cannot
be declared there. pytest imports this file in every run of everybody who has minift installed:
nothing heavy may be imported, and an option that another plugin has already stays that plugin's.
"""

import contextlib
from typing import Any

HELP = {
    "--device": "run minift's kit for devices on this one: a name as `minift plugins` lists it",
    "--dataset-name": "run minift's kit for loaders on this dataset, which a plugin finds by name",
    "--checkpoint-name": "run minift's kit for loaders on this model, which a plugin finds by name",
}


def pytest_addoption(parser: Any) -> None:
    group = parser.getgroup("minift", "conformance kits (pytest --pyargs minift.testing)")
    for name, text in HELP.items():
        with contextlib.suppress(ValueError):  # another plugin has it, and the kit reads that one's
            group.addoption(name, default=None, metavar="NAME", help=text)
    group.addoption(
        "--minift-plugin",
        action="append",
        default=[],
        metavar="FILE",
        help="load this plugin of minift's from a file; can be given several times",
    )
