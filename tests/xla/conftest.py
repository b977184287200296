"""Set up for the XLA tests: the emulation on the CPU, and skips that nobody overlooks.

They need torch_xla, which only the environment of `make test-xla` has. Where it is absent, each
file here is one skip, decided before it is imported; so the files themselves import torch_xla at
the top, like anything else. A torch_xla that is there but broken is a failure, not a skip. pytest
shows the reason of a skip only when asked, so a line at the end says what was not tested.
"""

import importlib.util
import os
from pathlib import Path

import pytest

# Read when a test first asks for the device; by itself torch_xla would look for a TPU.
os.environ.setdefault("PJRT_DEVICE", "CPU")

HERE = Path(__file__).parent
ABSENT = importlib.util.find_spec("torch_xla") is None
REASON = "torch_xla is not installed here, and it needs an older torch: run `make test-xla`"


class AbsentXLA(pytest.Module):
    """A test file that is skipped without being imported."""

    def collect(self):
        pytest.skip(REASON, allow_module_level=True)


def pytest_pycollect_makemodule(module_path, parent):
    """Take this folder's files out of pytest's hands where they cannot run."""
    return AbsentXLA.from_parent(parent, path=module_path) if ABSENT else None


def pytest_terminal_summary(terminalreporter):
    """Say in one line that XLA was not tested, where that is so."""
    skips = terminalreporter.stats.get("skipped", [])
    root = terminalreporter.config.rootpath
    files = {report.nodeid.split("::")[0] for report in skips}
    files = {file for file in files if HERE in (root / file).parents}
    if files and ABSENT:
        terminalreporter.write_line(f"XLA NOT TESTED: {len(files)} files skipped, {REASON}")
