"""The conformance kits: what is ours passes them, and what is broken does not.

A kit that cannot fail proves nothing, so devices and finders are spoilt here in one way each, and
the test that is named must be the one to notice.
"""

import re
import subprocess
import sys

import pytest
from test_demo import packages_missing

pytestmark = pytest.mark.slow


DEVICES = """
from minift import Device, hookimpl


class Sound(Device):
    def __init__(self, spec=""):
        super().__init__(spec)
        self.counts = {"transfers_to_host": 0, "compilations": 0}

    def fetch(self, scalars):
        self.counts["transfers_to_host"] += 1
        return super().fetch(scalars)

    def batches(self, loader, batch_size=0):
        shapes = set()
        for batch in super().batches(loader, batch_size):
            shapes.add(batch["input_ids"].shape)
            self.counts["compilations"] = max(self.counts["compilations"], len(shapes))
            yield batch

    def counters(self):
        return dict(self.counts)


class Reversed(Sound):
    def batches(self, loader, batch_size=0):
        return reversed(list(super().batches(loader, batch_size)))


class Halved(Sound):
    def batches(self, loader, batch_size=0):
        for batch in super().batches(loader, batch_size):
            yield {n: v.half() if hasattr(v, "half") else v for n, v in batch.items()}


class Weightless(Sound):
    def batches(self, loader, batch_size=0):
        import torch

        for batch in super().batches(loader, batch_size):
            zeros = torch.zeros(len(batch["labels"]))
            yield {**batch, "example_mask": zeros} if batch_size else batch


class Seedless(Sound):
    def seed(self, seed):
        pass


class Forgetful(Sound):
    def set_rng_state(self, state):
        pass


class Uncounted(Sound):
    def clip_grad_norm(self, optimizer, max_norm, num_items=1):
        return super().clip_grad_norm(optimizer, max_norm)


class Coarse(Sound):
    def autocast(self, precision):
        return super().autocast("bf16")


class Unstoppable(Sound):
    def step(self, optimizer, skip=None):
        return super().step(optimizer)


class Leaking(Sound):
    def clip_grad_norm(self, optimizer, max_norm, num_items=1):
        norm = super().clip_grad_norm(optimizer, max_norm, num_items)
        self.counts["transfers_to_host"] += norm.item() > 0
        return norm


class Recompiling(Sound):
    def step(self, optimizer, skip=None):
        self.counts["compilations"] += 1
        return super().step(optimizer, skip)


class Rounding(Sound):
    def to_host(self, state):
        return {name: value.bfloat16().float() for name, value in super().to_host(state).items()}


@hookimpl
def minift_register_devices():
    return {kind.__name__.lower(): kind for kind in (Sound, *Sound.__subclasses__())}
"""

# {how the device is broken: the test of the kit that notices}
CAUGHT = {
    "reversed": "test_rows_come_in_the_order_that_they_have_everywhere",
    "halved": "test_batches_keep_their_order_and_content",
    "weightless": "test_batches_keep_their_order_and_content",
    "seedless": "test_the_generator_is_seeded_saved_and_restored",
    "forgetful": "test_the_generator_is_seeded_saved_and_restored",
    "uncounted": "test_gradient_and_update_are_the_references",
    "coarse": "test_logits_and_losses_are_the_references",
    "unstoppable": "test_a_loss_that_is_not_finite_ends_the_run_and_spares_the_weights",
    "leaking": "test_nothing_leaves_the_device_but_what_is_fetched",
    "recompiling": "test_compilations_end_with_the_first_epoch",
    "rounding": "test_a_resumed_run_is_equal_to_the_bit",
}

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
    (folder / "spoilt_devices.py").write_text(DEVICES)
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


@pytest.mark.parametrize("how", CAUGHT)
def test_a_spoilt_device_is_caught(files, how):
    words = ["--minift-plugin", str(files / "spoilt_devices.py"), "-k", CAUGHT[how]]
    results, output = kit("--device", how, *words, cwd=files)
    assert "failed" in results.values() and "error" not in results.values(), output
    assert {name.partition("[")[0] for name in results} == {CAUGHT[how]}


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
