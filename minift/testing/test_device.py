"""What a device must hold, each rule as one test; see `minift.Device` for the contract.

"The reference" is the base class: plain eager PyTorch in host memory. Tolerances, all for fp32:

    CLOSE    one forward pass, one gradient, one update: the order of a sum is free, nothing else
    DRIFT    the losses of several steps: AdamW turns the rounding of a gradient into a whole step
    equal    to the bit: everything that is saved, moved, or computed again on the same device
"""

import re
import subprocess
import sys

import pytest
import torch
from torch.optim import SGD

from minift import AdamW, AutoModelForSequenceClassification, Device, hookimpl
from minift.device import choose_device
from minift.errors import DeviceError, TrainingError
from minift.plugins import build_manager, registry
from minift.testing import tiny
from minift.testing.conftest import REFERENCE

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
DRIFT = {"rel": 1e-4, "abs": 1e-4}

# With this epsilon, gradients that are zero but for rounding do not become steps of full length.
UPDATES = {
    "AdamW": lambda parameters: AdamW(parameters, lr=0.01, eps=1e-3),
    "SGD": lambda parameters: SGD(parameters, lr=0.1),
}


def close(got, want):
    torch.testing.assert_close(got, want, **CLOSE)


def equal(got, want):
    """Dicts of tensors with the same names and, to the bit, the same numbers."""
    assert list(got) == list(want)
    assert [name for name in want if not torch.equal(got[name], want[name])] == []


def tensors(batch):
    return {name: value for name, value in batch.items() if isinstance(value, torch.Tensor)}


# -------------------------------------------------------------------------- is it there, what is it


def test_a_device_that_cannot_be_used_says_why(device, manager):
    """Never another one in its place."""

    class Absent(type(device)):
        @classmethod
        def unavailable(cls):
            return "it was unplugged"

    class Plugin:
        @hookimpl
        def minift_register_devices(self):
            return {"absent": Absent}

    with pytest.raises(DeviceError, match="it was unplugged"):
        choose_device("absent", build_manager(None, plugins=[Plugin()]))
    with pytest.raises(DeviceError, match="no plugin provides 'no-such-device'"):
        choose_device("no-such-device", manager)
    for name, found in registry(manager, "minift_register_devices").items():
        if reason := found.value.unavailable():
            with pytest.raises(DeviceError, match=re.escape(reason)):
                choose_device(name, manager)


LISTING = """
import sys
from minift.plugins import build_manager, registry, selection_from_environment
name, *files = sys.argv[1:]
manager = build_manager(selection_from_environment(), files)
assert registry(manager, "minift_register_devices")[name].value.unavailable() is None
assert "torch" not in sys.modules, "torch was imported"
"""


def test_asking_for_it_imports_nothing_heavy(name, request):
    """`minift plugins` and `minift --help` ask every device."""
    files = request.config.getoption("--minift-plugin")
    words = [sys.executable, "-c", LISTING, name.partition(":")[0], *files]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_it_says_of_itself(device):
    precisions = device.precisions()
    assert precisions["fp32"] is None
    assert all(reason is None or reason for reason in precisions.values())
    for precision in precisions:
        assert all(device.unpadded_size(n, precision) >= n for n in range(1, 1000))
    assert device.description and isinstance(device.description, str)
    for figures in (device.memory(), device.counters()):
        assert all(isinstance(key, str) and type(n) is int for key, n in figures.items()), figures


# ----------------------------------------------------------------------- what goes in and comes out


@pytest.mark.parametrize("batch_size", [0, 4])
def test_batches_keep_their_order_and_content(device, batch_size):
    """They may get longer, and with `batch_size` get rows that do not count; nothing else."""
    given = [{**batch, "note": f"batch {i}"} for i, batch in enumerate(tiny.batches(11, 4))]
    for batch in given:  # of a pair: the second half of each row
        batch["token_type_ids"] = batch["attention_mask"].cumsum(1) // 3
    moved = list(device.batches((dict(batch) for batch in given), batch_size))
    assert [batch.get("note") for batch in moved] == [batch["note"] for batch in given]
    for batch, want in zip(moved, given, strict=True):
        assert batch["input_ids"].device.type == device.torch_device.type
        got, (B, T) = device.to_host(tensors(batch)), want["input_ids"].shape
        size = len(got["input_ids"])
        assert batch_size or (size == B and "example_mask" not in got)
        weight = got.get("example_mask", torch.ones(size))
        assert weight.tolist() == [1.0] * B + [0.0] * (size - B)
        assert weight.dtype == torch.float32, f"example_mask is {weight.dtype}"
        assert not got["attention_mask"][:B, T:].any()
        for name, value in tensors(want).items():
            real = got[name][:B] if value.dim() == 1 else got[name][:B, :T]
            assert real.dtype == value.dtype and torch.equal(real, value), name
    assert len({"example_mask" in batch for batch in moved}) == 1
    assert list(device.batches(iter([]), batch_size)) == []


def test_fetch_gives_floats_and_to_host_plain_tensors(device):
    one = torch.tensor(1.5, requires_grad=True).to(device.torch_device)
    got = device.fetch({"loss": one * 2, "rows": torch.tensor(7, device=device.torch_device)})
    assert got == {"loss": 3.0, "rows": 7.0}
    assert all(type(value) is float for value in got.values())
    block = torch.arange(6.0, device=device.torch_device).view(2, 3).T
    host = device.to_host({"turned": block, "one": one})
    assert host["turned"].tolist() == [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]
    for value in host.values():
        assert value.is_cpu and value.is_contiguous() and not value.requires_grad


def test_an_optimizer_made_before_the_model_moved_holds_its_parameters(device):
    """Memory of another kind can cost a model its Parameters; torch can swap contents instead."""
    module = tiny.model()
    held, generator = list(module.parameters()), torch.get_rng_state()
    moved = list(device.prepare(module).parameters())
    assert all(one is other for one, other in zip(moved, held, strict=True))
    assert all(one.device.type == device.torch_device.type for one in moved)
    assert torch.equal(torch.get_rng_state(), generator)


def test_alone_it_reduces_and_gathers_nothing(device):
    """The loop calls these whatever the number of processes."""
    block = torch.tensor([[1.0, 2.0], [3.0, 4.0]], device=device.torch_device)
    assert device.all_reduce(torch.tensor(3.0)).item() == 3.0  # of host memory
    for value in (device.all_reduce(block), device.gather(block)):
        assert device.to_host({"": value})[""].tolist() == [[1.0, 2.0], [3.0, 4.0]]
    device.barrier()


# ----------------------------------------------------------------------------- does it compute that


def test_logits_and_losses_are_the_references(device):
    got, want = tiny.update(device, UPDATES["SGD"]), tiny.update(Device(), UPDATES["SGD"])
    close(got["logits"], want["logits"])
    assert got["losses"] == pytest.approx(want["losses"], rel=1e-5)


@pytest.mark.parametrize("max_norm", [0.0, 0.1], ids=["unclipped", "clipped"])
@pytest.mark.parametrize("kind", UPDATES)
def test_gradient_and_update_are_the_references(device, kind, max_norm):
    """The norm is that of the *mean* gradient over both batches, before it is clipped.

    SGD has no place for a divisor, so its gradients are divided; minift's AdamW has one.
    """
    got = tiny.update(device, UPDATES[kind], max_norm)
    want = tiny.update(Device(), UPDATES[kind], max_norm)
    assert want["norm"] > 0.1  # or nothing would be clipped
    assert got["norm"] == pytest.approx(want["norm"], rel=1e-5)
    assert list(got["weights"]) == list(want["weights"])
    for name, value in want["weights"].items():
        close(got["weights"][name], value)


@pytest.mark.parametrize("kind", UPDATES)
def test_a_skipped_step_changes_nothing(device, kind):
    """`skip` is 1 on the device once a loss was not finite."""
    module = device.prepare(tiny.model())
    device.setup_precision("fp32")
    optimizer, states = UPDATES[kind](module.parameters()), [tiny.copied(device, module)]
    for skip in (1.0, 0.0):
        optimizer.zero_grad()
        for batch in device.batches(tiny.batches(4, 4), batch_size=4):
            device.backward(module(**batch).loss_sum)
        device.clip_grad_norm(optimizer, 0.0, 4)
        device.step(optimizer, torch.tensor(skip, device=device.torch_device))
        states.append(tiny.copied(device, module))
    equal(states[1], states[0])
    assert any(not torch.equal(states[2][name], value) for name, value in states[0].items())


def test_bf16_learns_where_it_is_native(device, name):
    if device.precisions().get("bf16", "not offered") is not None:
        pytest.skip(f"{name} has no native bf16")
    run = tiny.trainer(name, precision="bf16", max_steps=40, learning_rate=1e-2)
    run.train()
    losses = tiny.logged(run, "loss")
    assert all(map(torch.isfinite, torch.tensor(losses)))
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


# ------------------------------------------------------------------------------- is it reproducible


def test_the_generator_is_seeded_saved_and_restored(device):
    """Dropout masks are drawn on the device; a seed or a state brings the same ones back."""
    module = device.prepare(tiny.model(dropout=0.5)).train()
    (batch,) = device.batches(tiny.batches(4, 4), batch_size=4)

    def draw():
        with torch.no_grad(), device.autocast("fp32"):
            return device.to_host({"logits": module(**batch).logits})["logits"]

    device.seed(1)
    state = device.rng_state()
    assert state.dtype == torch.uint8 and state.is_cpu
    first, second = draw(), draw()
    assert not torch.equal(first, second), "two passes drew the same masks"
    device.set_rng_state(state)
    assert torch.equal(draw(), first), "the restored state draws other masks"
    assert torch.equal(draw(), second)
    device.seed(1)
    assert torch.equal(draw(), first), "the same seed draws other masks"
    device.seed(2)
    assert not torch.equal(draw(), first), "another seed draws the same masks"


def test_two_runs_are_equal_to_the_bit(name):
    def train():
        run = tiny.trainer(name, dropout=0.1)
        run.train()
        return tiny.logged(run, "loss"), tiny.weights(run)

    (losses, weights), (again, weights_again) = train(), train()
    assert losses == again
    equal(weights, weights_again)


def test_a_resumed_run_is_equal_to_the_bit(name, tmp_path):
    settings = {"save_strategy": "steps", "save_steps": 3, "dropout": 0.1}
    whole = tiny.trainer(name, tmp_path, **settings)
    whole.train()
    resumed = tiny.trainer(name, tmp_path, **settings)
    resumed.train(resume_from_checkpoint=tmp_path / "checkpoint-3")
    assert tiny.logged(resumed, "loss") == tiny.logged(whole, "loss")
    equal(tiny.weights(resumed), tiny.weights(whole))


def test_how_rows_are_cut_into_micro_batches_does_not_matter(name):
    """The first update's loss and gradient norm; eight rows, whatever the cut."""

    def first(where, size, group):
        cut = {"per_device_train_batch_size": size, "gradient_accumulation_steps": group}
        run = tiny.trainer(where, max_steps=1, **cut)
        run.train()
        return tiny.logged(run, "loss") + tiny.logged(run, "grad_norm")

    want = first(REFERENCE, 8, 1)
    for size, group in [(8, 1), (4, 2), (2, 4)]:
        assert first(name, size, group) == pytest.approx(want, rel=1e-5), f"{group} x {size} rows"


def test_rows_come_in_the_order_that_they_have_everywhere(name):
    """It is a function of the seed and the epoch, and no device's; so each step's loss is too."""

    def train(where):
        seen = []

        def collate(rows):
            seen.append([row["input_ids"][1] for row in rows])
            return tiny.collate(rows)

        run = tiny.trainer(where, max_steps=8, collator=collate)  # more than an epoch
        run.train()
        return seen[:8], tiny.logged(run, "loss")  # a device may fetch batches ahead

    (order, losses), (same_order, same_losses) = train(name), train(REFERENCE)
    assert order == same_order
    assert losses == pytest.approx(same_losses, **DRIFT)


# --------------------------------------------------------------------- do others open what it saves


@pytest.mark.parametrize("way", ["to the reference", "from the reference"])
def test_a_checkpoint_goes_on_elsewhere(name, tmp_path, way):
    """With the weights that were saved, to the bit, and then with the same losses."""
    saver, opener = (name, REFERENCE) if way == "to the reference" else (REFERENCE, name)

    class AtStart:
        @hookimpl
        def minift_on_train_begin(self, run):
            self.weights = tiny.copied(run.device, run.model)

    settings = {"save_strategy": "steps", "save_steps": 3}
    whole = tiny.trainer(saver, tmp_path, **settings)
    whole.train()
    start = AtStart()
    resumed = tiny.trainer(opener, tmp_path, callbacks=[start], **settings)
    resumed.train(resume_from_checkpoint=tmp_path / "checkpoint-3")
    saved = AutoModelForSequenceClassification.from_pretrained(tmp_path / "checkpoint-3")
    equal(start.weights, dict(saved.state_dict()))
    assert tiny.logged(resumed, "loss") == pytest.approx(tiny.logged(whole, "loss"), **DRIFT)


def test_a_saved_model_is_the_trained_one(name, tmp_path):
    run = tiny.trainer(name)
    run.train()
    run.save_model(tmp_path / "model")
    opened = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    equal(dict(opened.state_dict()), tiny.weights(run))


# -------------------------------------------------------------------------- evaluating, and its end


def test_evaluation_gives_the_references_logits_in_the_datasets_order(name):
    """Eleven rows four at a time: the last batch is shorter, however the device fills it up."""
    data = tiny.rows(11)
    got, want = (
        tiny.trainer(where, per_device_eval_batch_size=4).predict(data)
        for where in (name, REFERENCE)
    )
    assert got.label_ids.tolist() == want.label_ids.tolist() == list(data["labels"])
    close(torch.from_numpy(got.predictions), torch.from_numpy(want.predictions))
    assert got.metrics["test_loss"] == pytest.approx(want.metrics["test_loss"], rel=1e-5)


def test_a_loss_that_is_not_finite_ends_the_run_and_spares_the_weights(name):
    """The rows are named, though it is noticed steps later; the weights are as before that step."""
    bad = 9  # in the third batch of four

    def loss(outputs, batch):
        losses = torch.nn.functional.cross_entropy(
            outputs.logits.float(), batch["labels"], reduction="none"
        )
        spoilt = batch["input_ids"][:, 1] == tiny.NUMBERS + bad
        return (losses * torch.where(spoilt, float("inf"), 1.0)).sum(), len(losses)

    settings = {"train_sampling_strategy": "sequential", "lr_scheduler_type": "constant"}
    run = tiny.trainer(name, max_steps=5, logging_steps=5, loss=loss, **settings)
    with pytest.raises(TrainingError, match=r"(?s)at step 3\b.*training rows \[8, 9, 10, 11\]"):
        run.train()
    before = tiny.trainer(name, max_steps=2, loss=loss, **settings)
    before.train()
    equal(tiny.weights(run), tiny.weights(before))


# ------------------------------------------------------------------------- what only some can count


class Watch:
    """A device's counters at the start of a run and after every step, and the calls of `fetch`."""

    def __init__(self):
        self.fetches, self.seen = 0, []

    @hookimpl
    def minift_on_train_begin(self, run):
        fetch = run.device.fetch

        def counted(scalars):
            self.fetches += 1
            return fetch(scalars)

        run.device.fetch = counted
        self.note(run)

    @hookimpl
    def minift_on_step_end(self, run):
        self.note(run)

    def note(self, run):
        self.seen.append({**run.device.counters(), "fetches": self.fetches})


def watched(name, device, counter, logging_steps):
    """The counters before and along three epochs of twelve steps, with two shapes in turn."""
    if counter not in device.counters():
        pytest.skip(f"{name} does not count {counter}")
    watch, data = Watch(), tiny.rows(48, lengths=(6, 6, 6, 6, 20, 20, 20, 20))
    settings = {"max_steps": 36, "train_sampling_strategy": "sequential"}
    settings["logging_steps"] = logging_steps
    tiny.trainer(name, data=data, callbacks=[watch], **settings).train()
    assert len(watch.seen) == 37
    return watch.seen


def test_nothing_leaves_the_device_but_what_is_fetched(name, device):
    """One hidden transfer a step makes training on accelerators slow, and nothing shows it."""
    seen = watched(name, device, "transfers_to_host", logging_steps=5)
    grown = {key: seen[-1][key] - seen[1][key] for key in ("transfers_to_host", "fetches")}
    assert grown == {"transfers_to_host": 7, "fetches": 7}  # logged at steps 5, 10, ... 35


def test_compilations_end_with_the_first_epoch(name, device):
    """Two shapes explain two graphs, twice: the first steps make the optimizer's moments."""
    counts = [
        one["compilations"] for one in watched(name, device, "compilations", logging_steps=12)
    ]
    message = f"after each step: {counts}"
    assert counts[36] == counts[14], message  # by step 14 both shapes have come after a log record
    assert counts[36] - counts[0] <= 2 * 2 + 4, message  # four for what is not a step, as logging
