"""Devices that are each broken in one way, for tests/test_conformance.py; `Sound` is not.

{how it is broken: the test of the kit that must notice} is `CAUGHT`.
"""

import copy

from minift import Device, hookimpl

CAUGHT = {}


def caught_by(test):
    """Say which test of the kit notices a device."""

    def note(kind):
        CAUGHT[kind.__name__.lower()] = test
        return kind

    return note


class Sound(Device):
    def __init__(self, spec=""):
        super().__init__(spec)
        self.counts = {"transfers_to_host": 0, "compilations": 0}

    def precisions(self):
        slow = "emulated"
        return {"fp32": None, "bf16": slow, "fp16": slow}

    def fetch(self, scalars):
        self.counts["transfers_to_host"] += 1
        return super().fetch(scalars)

    def batches(self, loader, batch_size=0):
        shapes = set()
        for batch in super().batches(loader, batch_size):
            shapes.add(batch["input_ids"].shape)
            self.counts["compilations"] = max(self.counts["compilations"], len(shapes))
            yield self.changed(batch, batch_size)

    def changed(self, batch, batch_size):
        """Return a batch as it is; spoilt devices change it here."""
        return batch

    def counters(self):
        return dict(self.counts)


ORDER = "test_rows_come_in_the_order_that_they_have_everywhere"
CONTENT = "test_batches_keep_their_order_and_content"
GENERATOR = "test_the_generator_is_seeded_saved_and_restored"
UPDATE = "test_gradient_and_update_are_the_references"
PRECISION = "test_a_precision_that_is_offered_is_computed_in"
ALONE = "test_alone_it_reduces_and_gathers_nothing"
HOST = "test_fetch_gives_floats_and_to_host_plain_tensors"
SELF = "test_what_it_says_of_itself"
HELD = "test_an_optimizer_made_before_the_model_moved_holds_its_parameters"
COUNTED = "test_what_is_counted_counts"


# ------------------------------------------------------------------------------------------ batches


@caught_by(ORDER)
class Reversed(Sound):
    def batches(self, loader, batch_size=0):
        return reversed(list(super().batches(loader, batch_size)))


@caught_by(CONTENT)
class Halved(Sound):
    def changed(self, batch, batch_size):
        return {n: v.half() if hasattr(v, "half") else v for n, v in batch.items()}


@caught_by(CONTENT)
class Weightless(Sound):
    def changed(self, batch, batch_size):
        zeros = batch["labels"].float() * 0
        return {**batch, "example_mask": zeros} if batch_size else batch


@caught_by(CONTENT)
class WholeWeights(Sound):
    """The weights of rows are integers."""

    def changed(self, batch, batch_size):
        ones = batch["labels"] * 0 + 1
        return {**batch, "example_mask": ones} if batch_size else batch


@caught_by(CONTENT)
class Typeless(Sound):
    """Second sentences look like first ones."""

    def changed(self, batch, batch_size):
        types = batch.get("token_type_ids")
        return batch if types is None else {**batch, "token_type_ids": types * 0}


@caught_by(CONTENT)
class Maskless(Sound):
    def changed(self, batch, batch_size):
        mask = batch["attention_mask"]
        return {**batch, "attention_mask": mask.new_ones(mask.shape)}


@caught_by(CONTENT)
class Cutting(Sound):
    def changed(self, batch, batch_size):
        return {n: v[:, :5] if getattr(v, "ndim", 0) == 2 else v for n, v in batch.items()}


@caught_by(CONTENT)
class Unlabelled(Sound):
    def changed(self, batch, batch_size):
        return {**batch, "labels": batch["labels"] * 0}


@caught_by(CONTENT)
class Dropping(Sound):
    """The last batch, which may be shorter, is left out."""

    def batches(self, loader, batch_size=0):
        before = None
        for batch in super().batches(loader, batch_size):
            if before is not None:
                yield before
            before = batch


@caught_by("test_batches_are_read_when_they_are_needed")
class Hasty(Sound):
    """The whole loader is read before the first batch."""

    def batches(self, loader, batch_size=0):
        yield from super().batches(iter(list(loader)), batch_size)


# --------------------------------------------------------------------------------------- randomness


@caught_by(GENERATOR)
class Seedless(Sound):
    def seed(self, seed):
        pass


@caught_by(GENERATOR)
class Forgetful(Sound):
    def set_rng_state(self, state):
        pass


@caught_by(GENERATOR)
class Stateless(Sound):
    def rng_state(self):
        return super().rng_state() * 0


@caught_by(GENERATOR)
class Undropping(Sound):
    """Dropout does nothing: the model is put into evaluation."""

    def prepare(self, model):
        model = super().prepare(model).eval()
        model.train = lambda mode=True: model
        return model


@caught_by(HELD)
class Drawing(Sound):
    """Preparing a model draws from the generator of whoever prepares it."""

    def prepare(self, model):
        import torch

        torch.rand(1)
        return super().prepare(model)


# ---------------------------------------------------------------------------------------- computing


@caught_by(HELD)
class Copying(Sound):
    def prepare(self, model):
        return super().prepare(copy.deepcopy(model))


@caught_by("test_parameters_stay_fp32")
class Converting(Sound):
    """The weights of the model have another type."""

    def prepare(self, model):
        return super().prepare(model).double()


@caught_by(UPDATE)
class Uncounted(Sound):
    def clip_grad_norm(self, optimizer, max_norm, num_items=1):
        return super().clip_grad_norm(optimizer, max_norm)


@caught_by(UPDATE)
class Unclipped(Sound):
    def clip_grad_norm(self, optimizer, max_norm, num_items=1):
        return super().clip_grad_norm(optimizer, 0.0, num_items)


@caught_by(UPDATE)
class Clipped(Sound):
    """The norm is that of after clipping."""

    def clip_grad_norm(self, optimizer, max_norm, num_items=1):
        norm = super().clip_grad_norm(optimizer, max_norm, num_items)
        return norm.clamp(max=max_norm) if max_norm else norm


@caught_by(UPDATE)
class Halving(Sound):
    def backward(self, loss_sum, last=True):
        super().backward(loss_sum / 2, last)


@caught_by(UPDATE)
class Frozen(Sound):
    def step(self, optimizer, skip=None):
        return True


@caught_by(UPDATE)
class Twice(Sound):
    def step(self, optimizer, skip=None):
        divisor = getattr(optimizer, "grad_scale", None)
        super().step(optimizer, skip)
        if divisor is not None:
            optimizer.grad_scale = divisor
        return super().step(optimizer, skip)


@caught_by("test_a_loss_that_is_not_finite_ends_the_run_and_spares_the_weights")
class Unstoppable(Sound):
    def step(self, optimizer, skip=None):
        return super().step(optimizer)


# --------------------------------------------------------------------------------------- precisions


@caught_by("test_logits_and_losses_are_the_references")
class Coarse(Sound):
    def autocast(self, precision):
        return super().autocast("bf16")


@caught_by(PRECISION)
class Boasting(Sound):
    """bf16 and fp16 are offered, and everything is computed in fp32."""

    def autocast(self, precision):
        return super().autocast("fp32")


@caught_by(PRECISION)
class Mistaken(Sound):
    """fp16 is computed in bf16."""

    def autocast(self, precision):
        return super().autocast("bf16" if precision == "fp16" else precision)


@caught_by("test_losses_in_fp16_are_scaled")
class Unscaled(Sound):
    """`setup_precision` does not call the base class's."""

    def setup_precision(self, precision):
        pass


# ------------------------------------------------------------------------------- leaving the device


@caught_by("test_a_resumed_run_is_equal_to_the_bit")
class Rounding(Sound):
    def to_host(self, state):
        return {name: value.bfloat16().float() for name, value in super().to_host(state).items()}


@caught_by(HOST)
class Attached(Sound):
    def to_host(self, state):
        return dict(state)


@caught_by(HOST)
class Tensorial(Sound):
    """What is fetched are tensors, which wait for the device wherever they are read."""

    def fetch(self, scalars):
        super().fetch(scalars)
        return dict(scalars)


@caught_by(ALONE)
class Doubling(Sound):
    def all_reduce(self, value):
        return value * 2


@caught_by(ALONE)
class Gathering(Sound):
    def gather(self, value):
        return value[:1]


# -------------------------------------------------------------------------- what it says and counts


@caught_by("test_asking_for_it_imports_nothing_heavy")
class Heavy(Sound):
    @classmethod
    def unavailable(cls):
        import torch

        return None if torch.ones(1) else "never"


@caught_by(SELF)
class Shrinking(Sound):
    def unpadded_size(self, num_tokens, precision):
        return num_tokens // 64 * 64


@caught_by(SELF)
class Wordless(Sound):
    @property
    def description(self):
        return ""


@caught_by("test_nothing_leaves_the_device_but_what_is_fetched")
class Leaking(Sound):
    def clip_grad_norm(self, optimizer, max_norm, num_items=1):
        norm = super().clip_grad_norm(optimizer, max_norm, num_items)
        self.counts["transfers_to_host"] += norm.item() > 0
        return norm


@caught_by("test_compilations_end_with_the_first_epoch")
class Recompiling(Sound):
    def step(self, optimizer, skip=None):
        self.counts["compilations"] += 1
        return super().step(optimizer, skip)


@caught_by(COUNTED)
class Uncounting(Sound):
    """The counters never count."""

    def counters(self):
        return dict.fromkeys(self.counts, 0)


@hookimpl
def minift_register_devices():
    return {kind.__name__.lower(): kind for kind in (Sound, *Sound.__subclasses__())}
