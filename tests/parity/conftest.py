"""Set up for the live parity tests: offline peers, and skips that nobody overlooks.

`test_live_*.py` need minift and its peers in one environment, which only `make test-parity` has.
Where one is absent, each of these files is one skip, decided here before it is imported; so the
files themselves import what they compare at the top, like any other test. A minift that is there
but broken is a failure, not a skip. pytest shows the reason of a skip only when asked, so a line
at the end says what was not tested.
"""

import os

import pytest
from live import missing, reason

# Before any test imports a peer: they read these when they are imported.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

LIVE = "test_live_"


class AbsentPeers(pytest.Module):
    """A test file that is skipped without being imported."""

    def collect(self):
        pytest.skip(reason(), allow_module_level=True)


def pytest_pycollect_makemodule(module_path, parent):
    """Take the live files out of pytest's hands where they cannot run."""
    if module_path.name.startswith(LIVE) and missing():
        return AbsentPeers.from_parent(parent, path=module_path)
    return None


def pytest_terminal_summary(terminalreporter):
    """Say in one line that parity was not tested, where that is so."""
    skips = terminalreporter.stats.get("skipped", [])
    files = {report.nodeid.split("::")[0] for report in skips if LIVE in report.nodeid}
    if files and missing():
        terminalreporter.write_line(f"PARITY NOT TESTED: {len(files)} files skipped, {reason()}")


@pytest.fixture(scope="package", autouse=True)
def peers_at_work():
    """One thread, since tiny models only lose by more, and no progress bars between the dots."""
    if missing():
        yield
        return
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
