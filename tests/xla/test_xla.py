"""The plugin minift_xla on XLA's emulation of a TPU (PJRT_DEVICE=CPU): `make test-xla`.

The kit of `minift.testing` runs on it too; here is what only this backend has.
"""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import orders
import pytest
import torch
from tiny import make_model, make_rows, write_csv
from torch.utils.data import DataLoader

from minift import (
    Accelerator,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    get_scheduler,
    pipeline,
)
from minift.device import choose_device
from minift.errors import DeviceError
from minift.models.unpadding import Unpadding
from minift.plugins import default_manager
from minift.testing import tiny

CHILD = Path(__file__).with_name("xla_child.py")


def run(devices: int = 1, **settings) -> dict:
    """What xla_child.py prints."""
    environment = {**os.environ, "PJRT_DEVICE": "CPU", "CPU_NUM_DEVICES": str(devices)}
    command = [sys.executable, str(CHILD), json.dumps(settings)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def compiled(result: dict) -> list[int]:
    return [step["compilations"] for step in result["steps"]]


def transferred(result: dict) -> list[int]:
    return [step["transfers_to_host"] for step in result["steps"]]


@pytest.fixture
def device():
    return choose_device("xla", default_manager())


# ---------------------------------------------------------------------------- a run on this device


@pytest.fixture(scope="module")
def real():
    """all-MiniLM-L6-v2, six updates, without dropout, on both."""
    settings = {"real": True, "rows": 48, "longest": 64, "max_steps": 6, "learning_rate": 5e-5}
    settings |= {"per_device_train_batch_size": 8, "per_device_eval_batch_size": 8}
    return {device: run(device=device, **settings) for device in ("cpu", "xla")}


def test_a_real_model_learns_what_it_learns_on_the_cpu(real):
    host, xla = real["cpu"], real["xla"]
    assert len(xla["losses"]) == 6
    assert xla["losses"] == pytest.approx(host["losses"], abs=1e-5)
    assert xla["norms"] == pytest.approx(host["norms"], rel=1e-4)
    assert xla["evaluated"] == pytest.approx(host["evaluated"], abs=1e-4)
    assert xla["kind"] == "xla (CPU emulation)"


def test_a_real_model_is_compiled_twice(real):
    """The first step has no moments yet, and the others are alike."""
    assert real["xla"]["shapes"] == [[8, 64]]
    assert compiled(real["xla"]) == [1, 2, 2, 2, 2, 2]
    assert real["xla"]["fallbacks"] == []


@pytest.fixture(scope="module")
def lengths():
    """Rows of 4 to 100 tokens, three epochs of seven steps, the last of each with fewer rows."""
    settings = {"rows": 52, "longest": 100, "num_train_epochs": 3, "logging_steps": 5}
    return run(device="xla", per_device_train_batch_size=8, **settings)


def test_there_are_as_many_graphs_as_lengths_and_one(lengths):
    """Pain (transformers#11832, trl#2001): a graph for each length that a batch happens to have."""
    training = compiled(lengths)
    assert len(training) == 21
    assert training[-1] <= len(lengths["shapes"]) + 1 <= 4
    assert training[7:] == [training[6]] * 14  # none after the first epoch


def test_numbers_leave_the_device_at_log_points_alone(lengths):
    logged = [sum(step % 5 == 0 for step in range(1, done)) for done in range(1, 22)]
    assert transferred(lengths) == logged
    assert lengths["fallbacks"] == []


def test_several_devices_share_each_batch():
    """One program, its batches divided into rows: the losses are those of one device."""
    found = {n: run(n, device="xla", max_steps=8, per_device_train_batch_size=8) for n in (1, 2, 4)}
    for n in (2, 4):
        assert found[n]["losses"] == pytest.approx(found[1]["losses"], abs=1e-6)
        assert found[n]["evaluated"] == pytest.approx(found[1]["evaluated"], abs=1e-6)
        assert found[n]["kind"] == f"xla (CPU emulation, {n} devices)"
        assert f"devices=[{n},1]" in found[n]["sharding"]
    assert "devices=" not in found[1]["sharding"]


# ---------------------------------------------------------------------------------- from the shell


def command(*words) -> subprocess.CompletedProcess:
    line = [sys.executable, "-m", "minift", *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True)


def test_the_demos_model_is_tuned_from_the_command_line(tmp_path):
    """And what is saved opens on the cpu."""
    words = ["--model", "all-MiniLM-L6-v2", "--dataset", "headlines", "--max-length", "64"]
    words += ["--output-dir", tmp_path / "run", "--max-steps", "3", "--device", "xla"]
    words += ["--per-device-eval-batch-size", "64", "--logging-steps", "1"]
    done = command("train", *words)
    assert done.returncode == 0, done.stderr
    said = json.loads((tmp_path / "run" / "run.json").read_text())
    assert said["device"] == "xla (CPU emulation)" and said["state"]["global_step"] == 3
    assert "training on xla (CPU emulation) in fp32" in done.stderr
    answers = pipeline("text-classification", tmp_path / "run", device="cpu")("a headline")
    assert 0 < answers[0]["score"] < 1


def test_a_run_goes_on_to_the_bit(tmp_path):
    """With dropout, from the shell: 9 steps, and 5 that go on."""
    model = make_model(tmp_path / "model", hidden_dropout_prob=0.1)
    data = write_csv(tmp_path / "train.csv", make_rows(30))
    words = ["train", "--model", model, "--train-file", data, "--device", "xla"]
    words += ["--per-device-train-batch-size", "4", "--max-steps", "9", "--save-steps", "5"]
    words += ["--learning-rate", "1e-3", "--logging-steps", "1"]
    for name in ("whole", "cut"):
        done = command(*words, "--output-dir", tmp_path / name)
        assert done.returncode == 0, done.stderr
    (tmp_path / "cut" / "checkpoint-9" / "manifest.json").unlink()
    (tmp_path / "cut" / "model.safetensors").unlink()
    done = command(*words, "--output-dir", tmp_path / "cut", "--resume-from-checkpoint", "true")
    assert done.returncode == 0 and "checkpoint-5" in done.stderr, done.stderr
    whole, cut = ((tmp_path / n / "model.safetensors").read_bytes() for n in ("whole", "cut"))
    assert whole == cut


# ----------------------------------------------------------------------------- what batches become


def batch(B: int, T: int) -> dict:
    mask = torch.ones(B, T, dtype=torch.int64)
    return {"input_ids": mask * 7, "attention_mask": mask, "labels": torch.ones(B).long()}


def test_batches_have_few_lengths_and_one_number_of_rows(device):
    given = [batch(4, T) for T in (3, 32, 33, 100)] + [batch(1, 5)]
    given[0]["unpadding"] = Unpadding.from_mask(given[0]["attention_mask"])
    made = list(device.batches(given, batch_size=4))
    assert [tuple(one["input_ids"].shape) for one in made] == [
        (4, 32), (4, 32), (4, 64), (4, 128), (4, 32)
    ]  # fmt: skip
    assert [one["example_mask"].tolist() for one in made[3:]] == [[1.0] * 4, [1.0, 0.0, 0.0, 0.0]]
    assert "unpadding" not in made[0]
    assert made[0]["attention_mask"].sum().item() == 12


def test_without_leave_no_rows_are_added(device):
    (made,) = device.batches([batch(3, 5)])
    assert tuple(made["input_ids"].shape) == (3, 32) and "example_mask" not in made


def test_a_batch_is_no_longer_than_the_models_positions(device, tmp_path):
    from tiny import load

    device.prepare(load(make_model(tmp_path, max_position_embeddings=40)))
    (made,) = device.batches([batch(2, 35)])
    assert made["input_ids"].shape[1] == 40


def test_a_collator_with_max_length_gives_one_shape(device, tmp_path):
    """As the course advises for TPUs."""
    from minift import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(make_model(tmp_path))
    collate = DataCollatorWithPadding(tokenizer, padding="max_length", max_length=128)
    rows = [[{"input_ids": [2] * n, "labels": 1}] * 4 for n in (5, 9, 30)]
    shapes = {tuple(one["input_ids"].shape) for one in device.batches(map(collate, rows), 4)}
    assert shapes == {(4, 128)}


def test_too_many_shapes_end_the_run_and_the_new_one_is_named(device):
    """Pain (pytorch/xla#1509): a run that crawls, because each step is compiled."""
    free = ({**batch(2, 5), "extra": torch.zeros(2, n)} for n in range(1, 30))
    with pytest.raises(DeviceError, match=r"more than 16 shapes(?s:.)*extra \(2, 17\)") as error:
        list(device.batches(free))
    assert "max_length" in str(error.value)


# ---------------------------------------------------------------------------------- the rest of it


def test_halves_are_computed_where_they_are_asked_for(device):
    x = torch.ones(4, 4, device=device.torch_device)
    with device.autocast("bf16"):
        assert (x @ x).dtype == torch.bfloat16
    with device.autocast("fp32"):
        assert (x @ x).dtype == torch.float32


def test_a_loop_in_the_courses_order_trains_the_model():
    """The optimizer is made before the model moves, which XLA gives other memory."""
    accelerator = Accelerator(device="xla", gradient_accumulation_steps=2)
    model = orders.Model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    batches = DataLoader(orders.data(20), 4)
    batches, optimizer, model = accelerator.prepare(batches, optimizer, model)
    for batch in [*batches, *batches]:
        for part in (slice(0, 2), slice(2, 4)):  # of a batch that lies on the device
            with accelerator.accumulate(model):
                loss = model(batch["x"][part], batch["labels"][part])["loss"]
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
    right = orders.expected(orders.Program(20, 4, 2, "slices"))["weights"]
    for p, want in zip(model.parameters(), right, strict=True):
        assert p.detach().cpu().flatten().tolist() == pytest.approx(want, abs=1e-5)


def test_a_trainer_trains_by_an_optimizer_that_was_made_before():
    module = tiny.model()
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    settings = {"device": "xla", "max_steps": 2, "save_strategy": "no", "disable_tqdm": True}
    arguments = TrainingArguments(None, **settings)
    optimizers = (optimizer, get_scheduler("constant", optimizer))
    options = {"data_collator": tiny.collate, "optimizers": optimizers}
    Trainer(module, arguments, train_dataset=tiny.rows(22), **options).train()
    after = {name: p.detach().cpu() for name, p in module.named_parameters()}
    assert not torch.equal(after["classifier.weight"], before["classifier.weight"])


LATE = """
import torch
torch.nn.Linear(2, 1)(torch.ones(1, 2)).sum().backward()
import minift
minift.Accelerator(device="xla")
"""


def test_a_backward_pass_before_xla_is_there_is_an_error_at_once():
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True)
    assert done.returncode == 1
    assert "torch computes no gradients on xla in this process" in done.stderr
    assert "import torch_xla" in done.stderr


def test_its_generator_is_its_own(device):
    device.seed(5)
    state = device.rng_state()
    first = torch.rand(8, device=device.torch_device).cpu()
    device.set_rng_state(state)
    assert torch.equal(torch.rand(8, device=device.torch_device).cpu(), first)
    assert not torch.equal(torch.rand(8, device=device.torch_device).cpu(), first)


def test_it_takes_all_of_its_devices_from_one_process(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(DeviceError, match="without torchrun"):
        choose_device("xla", default_manager())


def test_auto_does_not_take_an_emulation():
    assert choose_device("auto", default_manager()).name == "cpu"


def test_tpu_is_another_backends_name():
    """It fails rather than fall back to this one, or to the processor."""
    with pytest.raises(DeviceError, match="torch_tpu is not installed"):
        choose_device("tpu", default_manager())


def test_fetch_is_one_transfer(device):
    scalars = {name: torch.tensor(float(i)).to(device.torch_device) for i, name in enumerate("abc")}
    before = device.counters()["transfers_to_host"]
    assert device.fetch(scalars) == {"a": 0.0, "b": 1.0, "c": 2.0}
    assert device.counters()["transfers_to_host"] == before + 1
    assert math.isnan(device.fetch({"x": scalars["a"] / scalars["a"]})["x"])
