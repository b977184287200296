"""The conformance kits: what is ours passes them, and what is broken does not.

A kit that cannot fail proves nothing, so devices and finders are spoilt here in one way each, and
the test that is named must be the one to notice.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from spoilt_devices import CAUGHT
from test_demo import packages_missing

pytestmark = pytest.mark.slow


FINDERS = """
import pickle
from pathlib import Path
from minift import hookimpl
from minift.data.file_formats import DatasetFiles

FOLDER = Path(__file__).parent


@hookimpl(tryfirst=True)
def minift_find_dataset(path):  # whatever the name
    return DatasetFiles({"train": [FOLDER / "model" / "rows.pkl"]})


@hookimpl(tryfirst=True)
def minift_find_checkpoint(name):
    return FOLDER / "model" if name == "spoilt" else None


(FOLDER / "model").mkdir(exist_ok=True)
(FOLDER / "model" / "config.json").write_text("{}")
(FOLDER / "model" / "model.safetensors").write_bytes(b"")
(FOLDER / "model" / "rows.pkl").write_bytes(pickle.dumps([1]))
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The spoilt plugins, as files."""
    folder = tmp_path_factory.mktemp("plugins")
    devices = Path(__file__).with_name("spoilt_devices.py").read_text(encoding="utf-8")
    (folder / "spoilt_devices.py").write_text(devices, encoding="utf-8")
    (folder / "spoilt_finders.py").write_text(FINDERS)
    return folder


def kit(*words, cwd):
    """Run the kits as an author of a plugin does: {test: passed, failed, skipped or error}, output.

    In an empty folder, so that no configuration of this repository has a part in it.
    """
    command = [sys.executable, "-m", "pytest", "-v", "-rs", "-p", "no:cacheprovider"]
    command += ["--pyargs", "minift.testing", *words]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found = re.findall(r"::(test_\w+)(\[.*?\])? (PASSED|FAILED|SKIPPED|ERROR)", done.stdout)
    return {name + case: word.lower() for name, case, word in found}, done.stdout


def test_the_cpu_holds_what_a_device_must(tmp_path):
    results, output = kit("--device", "cpu", cwd=tmp_path)
    assert set(results.values()) == {"passed", "skipped"}, output
    assert list(results.values()).count("passed") >= 24, output
    for reason in ("cpu does not count compilations", "pass --dataset-name NAME"):
        assert reason in output


@pytest.mark.skipif(packages_missing() is not None, reason=f"NOT TESTED: {packages_missing()}")
def test_the_demos_finders_hold_what_finders_must(tmp_path):
    words = ["--dataset-name", "headlines", "--checkpoint-name", "all-MiniLM-L6-v2"]
    results, output = kit(*words, "-k", "test_loader", cwd=tmp_path)
    assert set(results.values()) == {"passed"} and len(results) >= 9, output


def test_without_a_name_all_is_skipped(tmp_path):
    results, output = kit(cwd=tmp_path)
    assert set(results.values()) == {"skipped"}, output
    assert "pass --device NAME" in output and "pass --checkpoint-name NAME" in output


def test_a_device_that_is_not_there_is_no_pass(tmp_path):
    results, output = kit("--device", "no-such-device", "-k", "what_it_says", cwd=tmp_path)
    assert set(results.values()) == {"error"}, output
    assert "no plugin provides 'no-such-device'" in output


def test_a_sound_device_from_a_file_passes_what_the_spoilt_ones_fail(files):
    """All of the kit, for it counts what the cpu does not."""
    file = str(files / "spoilt_devices.py")
    results, output = kit("--device", "sound", "--minift-plugin", file, cwd=files)
    assert set(CAUGHT.values()) <= {name.partition("[")[0] for name in results}
    skipped = [name for name, word in results.items() if word == "skipped"]
    assert set(results.values()) == {"passed", "skipped"}, output
    assert not [name for name in skipped if name in CAUGHT.values()], output


ALL = """
import json, sys, pytest

class Results:
    def __init__(self):
        self.found = {}

    def pytest_runtest_logreport(self, report):
        name = report.nodeid.split("::")[-1].partition("[")[0]
        if report.when == "call" or report.failed:
            self.found.setdefault(name, []).append(f"{report.when} {report.outcome}")

file, answers = sys.argv[1], {}
for how, test in json.loads(sys.argv[2]).items():
    results = Results()
    words = ["-q", "-p", "no:cacheprovider", "--pyargs", "minift.testing", "--minift-plugin", file]
    pytest.main([*words, "--device", how, "-k", test], plugins=[results])
    answers[how] = results.found
print("ANSWERS" + json.dumps(answers))
"""


@pytest.fixture(scope="module")
def caught(files):
    """{how a device is spoilt: {test of the kit: its outcomes}}, all from one process."""
    words = [sys.executable, "-c", ALL, str(files / "spoilt_devices.py"), json.dumps(CAUGHT)]
    done = subprocess.run(words, cwd=files, capture_output=True, text=True)
    assert "ANSWERS" in done.stdout, done.stdout + done.stderr
    return json.loads(done.stdout.rpartition("ANSWERS")[2])


@pytest.mark.parametrize("how", CAUGHT)
def test_a_spoilt_device_is_caught(caught, how):
    """By the test whose name says what is wrong with it, and not by an error on the way there."""
    assert "call failed" in caught[how][CAUGHT[how]], caught[how]


def test_there_are_at_least_thirty_spoilt_devices():
    assert len(CAUGHT) >= 30


def test_spoilt_finders_are_caught(files):
    words = ["--minift-plugin", str(files / "spoilt_finders.py"), "-k", "test_loader"]
    names = ["--dataset-name", "spoilt", "--checkpoint-name", "spoilt"]
    results, output = kit(*names, *words, cwd=files)
    caught = {name for name, word in results.items() if word == "failed"}
    assert caught >= {
        "test_a_dataset_that_nobody_knows_is_left_to_the_next",  # it answers to every name
        "test_the_files_of_a_dataset_are_there",  # pickled
        "test_a_dataset_has_rows_of_known_types",
        "test_the_files_of_a_model_are_there",
        "test_a_model_and_its_tokenizer_load",
    }, output
    assert results["test_a_model_that_nobody_knows_is_left_to_the_next"] == "passed"


def test_an_option_that_another_plugin_has_stays_its_own(tmp_path):
    """minift is installed beside much else; `pytest` must start."""
    (tmp_path / "theirs.py").write_text(
        "def pytest_addoption(parser):\n    parser.addoption('--device', default='cpu:0')\n"
    )
    results, output = kit("-p", "theirs", "-k", "what_it_says", cwd=tmp_path)
    assert results == {"test_what_it_says_of_itself": "passed"}, output
