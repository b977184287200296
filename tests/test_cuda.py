"""minift_cuda: its logic without a GPU, and, where there is one, whether it computes the same."""

import dataclasses
import functools

import minift_generic
import pytest
import torch
from emulated import Fake, run_kit
from minift_cuda import CudaDevice, print_how_to_use_all, products

from minift import Accelerator, AdamW
from minift.device import choose_precision
from minift.errors import ConfigError, DeviceError, TrainingError
from minift.models.unpadding import Unpadding
from minift.testing import tiny
from minift.training.arguments import TrainingArguments

GPU = CudaDevice.unavailable() is None and torch.cuda.is_available()


@pytest.fixture
def gpu(monkeypatch):
    """A fake of torch.cuda; tensors stay in host memory, pinned ones are counted."""
    made = Fake()
    print_how_to_use_all.cache_clear()
    monkeypatch.setattr(torch, "get_device_module", lambda name: made)
    monkeypatch.setattr(CudaDevice, "torch_device", torch.device("cpu"))
    made.pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda x: made.pinned.append(x) or x)
    return made


@pytest.mark.slow
def test_an_emulated_gpu_passes_the_kit():
    done = run_kit("emu-cuda")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    assert "does not count transfers_to_host" not in done.stdout


def test_each_reason_why_there_is_none(monkeypatch, tmp_path):
    monkeypatch.setattr(minift_generic, "torch_folder", lambda: tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert "was built without cuda" in CudaDevice.missing_requirement()
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libtorch_cuda.so").touch()
    monkeypatch.setattr(CudaDevice, "files", (str(tmp_path / "nvidia*"),))
    assert "this machine shows none" in CudaDevice.missing_requirement()
    (tmp_path / "nvidia0").touch()
    assert CudaDevice.missing_requirement() is None
    for hidden in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert CudaDevice.missing_requirement() == "CUDA_VISIBLE_DEVICES hides all GPUs"


def test_a_gpu_that_is_not_there(gpu):
    with pytest.raises(DeviceError, match="there is no cuda:1"):
        CudaDevice("cuda:1")


# ------------------------------------------------------------------------------------- precision


def test_auto_is_bf16_from_compute_capability_8_on(gpu):
    assert choose_precision("auto", CudaDevice())[0] == "bf16"
    assert choose_precision("tf32", CudaDevice()) == ("tf32", "asked for")
    gpu.capability = (7, 5)
    precision, reason = choose_precision("auto", CudaDevice())
    assert precision == "fp32" and "7.5 is below 8.0" in reason
    assert choose_precision("fp16", CudaDevice())[0] == "fp16"
    with pytest.raises(ConfigError, match="does not compute in tf32"):
        choose_precision("tf32", CudaDevice())


def test_tf32_as_an_argument():
    assert TrainingArguments("x", tf32=True).requested_precision() == "tf32"
    assert TrainingArguments("x", precision="tf32").requested_precision() == "tf32"
    assert TrainingArguments("x").requested_precision() == "auto"
    for other in ({"bf16": True}, {"fp16": True}, {"precision": "fp32"}):
        with pytest.raises(ConfigError, match="tf32"):
            TrainingArguments("x", tf32=True, **other)


@pytest.mark.parametrize("precision", ["tf32", "fp32"])
def test_products_are_in_tf32_while_it_computes_and_then_as_before(gpu, precision):
    matmul = torch.backends.cuda.matmul
    seen, before = set(), matmul.fp32_precision
    run = tiny.trainer("cuda", precision=precision, max_steps=2)
    layer = run.run.model.classifier
    layer.register_forward_hook(lambda *_: seen.add(("forward", matmul.fp32_precision)))
    layer.register_full_backward_hook(lambda *_: seen.add(("backward", matmul.fp32_precision)))
    with products("fp32" if precision == "tf32" else "tf32"):  # what somebody else has set
        outside = matmul.fp32_precision
        run.train()
        assert matmul.fp32_precision == outside
    want = "tf32" if precision == "tf32" else "ieee"
    assert seen == {("forward", want), ("backward", want)}
    assert matmul.fp32_precision == before
    assert run.args.tf32 is (precision == "tf32")


# --------------------------------------------------------------------------------------- batches


@pytest.mark.parametrize(("length", "padded"), [(13, 16), (16, 16), (125, 128), (129, 129)])
def test_batches_are_padded_to_a_multiple_of_8(gpu, length, padded):
    """Unless the model drops padding itself, or has no position for it."""
    device = CudaDevice()
    device.prepare(tiny.model())
    ids = torch.ones(2, length, dtype=torch.int64)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "note": "x"}
    (got,) = device.batches([dict(batch)])
    assert got["input_ids"].shape == got["attention_mask"].shape == (2, padded)
    assert int(got["attention_mask"].sum()) == 2 * length
    assert torch.equal(got["input_ids"][:, :length], ids) and got["note"] == "x"
    (got,) = device.batches([{**batch, "unpadding": Unpadding.from_mask(batch["attention_mask"])}])
    assert got["input_ids"].shape == (2, length)
    (got,) = device.batches([{"attention_mask": batch["attention_mask"]}])  # of a model without ids
    assert got["attention_mask"].shape == (2, length)


def test_all_tensors_of_a_batch_are_pinned(gpu):
    ids = torch.ones(2, 8, dtype=torch.int64)
    unpadding = Unpadding.from_mask(ids)
    list(CudaDevice().batches([{"input_ids": ids, "unpadding": unpadding, "parts": [ids, "x"]}]))
    inside = leaves([unpadding])
    assert inside
    got = [id(tensor) for tensor in gpu.pinned]
    assert sorted(got) == sorted(map(id, [ids, ids, *inside]))


def leaves(value):
    """The tensors in lists and dataclasses."""
    if isinstance(value, torch.Tensor):
        return [value]
    parts = value if isinstance(value, list) else list(vars(value).values())
    nested = (
        part
        for part in parts
        if isinstance(part, torch.Tensor | list) or dataclasses.is_dataclass(part)
    )
    return [tensor for part in nested for tensor in leaves(part)]


def test_more_gpus_than_are_used_are_mentioned_once(gpu, capsys, monkeypatch):
    CudaDevice().prepare(tiny.model())
    assert capsys.readouterr().err == ""
    gpu.count = 4
    for _ in range(2):
        CudaDevice().prepare(tiny.model())
    assert capsys.readouterr().err.count("torchrun --nproc-per-node 4 -m minift train") == 1


# ------------------------------------------------------------------------------------ a run of it


def test_only_fetch_is_asked_for_values_and_only_at_log_points(gpu, monkeypatch):
    """That nothing else reads one is counted by the kit, above."""
    steps, fetch = [], CudaDevice.fetch

    def noted(self, scalars):
        steps.append(run.state.global_step)
        return fetch(self, scalars)

    run = tiny.trainer("cuda", max_steps=8, logging_steps=4)
    monkeypatch.setattr(CudaDevice, "fetch", noted)
    run.train()
    assert set(steps) == {4, 8} and "synchronize" not in gpu.calls


def test_the_gpus_generator_is_part_of_a_saved_state(gpu, tmp_path):
    accelerator = Accelerator(device="cuda")
    model = tiny.model()
    accelerator.prepare(model, AdamW(model.parameters()))
    gpu.state = torch.arange(1, 17, dtype=torch.uint8)
    accelerator.save_state(tmp_path / "state")
    gpu.state = torch.zeros(16, dtype=torch.uint8)
    accelerator.load_state(tmp_path / "state")
    assert gpu.state.tolist() == list(range(1, 17))


# -------------------------------------------------------------------------------- out of memory


def train_in(memory, seen):
    """Ten steps on a device with room for so many rows."""
    run = tiny.trainer("cpu", max_steps=10, adam_epsilon=1e-3)
    forward = run.run.model.forward

    @functools.wraps(forward)
    def limited(**batch):
        if len(batch["labels"]) > memory:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore")
        seen.extend(batch["input_ids"][:, 1].tolist())
        return forward(**batch)

    run.run.model.forward = limited
    run.train()
    return tiny.logged(run, "loss"), tiny.logged(run, "grad_norm")


@pytest.mark.parametrize("memory", [2, 1])
def test_out_of_memory_repeats_the_update_in_smaller_parts(memory, capsys):
    rows, same_rows = [], []
    losses, norms = train_in(4, rows)
    capsys.readouterr()
    same_losses, same_norms = train_in(memory, same_rows)
    said = capsys.readouterr().err
    assert [said.count(f"in {parts} parts") for parts in (2, 4)] == [1, 4 // memory // 4]
    assert same_rows == rows
    assert same_losses[0] == pytest.approx(losses[0], rel=1e-6)
    assert same_norms[0] == pytest.approx(norms[0], rel=1e-6)
    assert same_losses == pytest.approx(losses, rel=1e-5) and len(losses) == 10


def test_one_row_that_does_not_fit_ends_the_run():
    with pytest.raises(TrainingError, match=r"(?s)one row does not fit.*2 GiB") as error:
        train_in(0, [])
    assert "smaller max_length" in str(error.value) and "more" not in str(error.value)


# --------------------------------------------------------------------------------- on a real one


@pytest.mark.cuda
@pytest.mark.skipif(not GPU, reason=f"no GPU: {CudaDevice.unavailable()}")
class TestOnAGpu:
    def test_losses_are_those_of_the_cpu(self):
        def losses(device):
            run = tiny.trainer(device, adam_epsilon=1e-3)
            run.train()
            return tiny.logged(run, "loss")

        assert losses("cuda") == pytest.approx(losses("cpu"), rel=1e-5)

    @pytest.mark.parametrize("precision", ["fp16", "tf32", "bf16"])
    def test_it_learns_in_less_precision(self, precision):
        if precision not in CudaDevice().precisions():
            pytest.skip(f"this GPU does not compute in {precision}")
        run = tiny.trainer("cuda", precision=precision, max_steps=40, learning_rate=1e-2)
        run.train()
        losses = tiny.logged(run, "loss")
        assert sum(losses[-5:]) < 0.9 * sum(losses[:5])

    def test_it_passes_the_kit(self):
        done = run_kit("cuda")
        assert done.returncode == 0, done.stdout[-4000:]
