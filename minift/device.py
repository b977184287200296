"""The Device contract: everything a training loop asks of the hardware.

The base class *is* plain eager PyTorch in host memory, so a backend overrides only what differs:
the cpu plugin is a few lines. Backends come from plugins through the hook
`minift_register_devices`; nothing in `minift/` names one. Plugins are imported to be listed, so
this module imports torch only inside the methods that compute.

Two rules let training run ahead of asynchronous hardware: only `fetch` waits for the device, at log
points, and nothing branches on a tensor's value. Evaluation copies each batch's logits to the host.

In the order of a run: a device is chosen and built (`choose_device`), `prepare` gets the model,
`setup_precision` the precision; then, for each update, `seed`, some `batches`, each with a forward
pass in `autocast` and a `backward`, then `clip_grad_norm` and `step`.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from minift import distributed
from minift.errors import ArgumentError, ConfigError, DeviceError, TrainingError
from minift.plugins import Manager, registry
from minift.signals import defer_ctrl_c

if TYPE_CHECKING:
    import torch
    from torch import Tensor


SMALLEST_SCALE = 2.0**-14  # of losses in fp16; it begins at 2**16 and halves with each overflow


class Device:
    """A backend: where and how tensors are computed.

    Plugins return subclasses of it (`minift_register_devices`).

    Attributes:
        name: what `--device` calls it.
        priority: "auto" takes the available device with the highest priority.
        initialized: description of the accelerator that this process has used, if any; it cannot
            be used in a process forked from this one.
        spec: what the user typed, for example "name:1" for the second device of that name.
        rank, world_size: the number of this process, and how many train together.
        scaler: scales the losses of fp16; None in other precisions.
    """

    name = "host"
    priority = 0
    initialized: ClassVar[str | None] = None

    def __init__(self, spec: str = "") -> None:
        self.spec = spec or self.name
        self.rank, self.world_size = distributed.rank(), distributed.world_size()
        self.scaler: torch.amp.GradScaler | None = None

    @classmethod
    def unavailable(cls) -> str | None:
        """Return why this device cannot be used on this machine, or None if it can.

        It is called to list all devices, and must not import anything heavy.
        """
        return None

    @property
    def description(self) -> str:
        """The hardware, as it is printed and recorded in run.json."""
        return self.name

    @property
    def torch_device(self) -> "torch.device":
        """The device of the model's parameters and of the batches."""
        import torch

        return torch.device("cpu")

    def precisions(self) -> dict[str, str | None]:
        """Return {precision: None if the hardware computes it natively, else why it is slow}."""
        return {"fp32": None}

    # -- randomness -------------------------------------------------------------------------------

    def seed(self, seed: int) -> None:
        """Seed the generator of dropout masks; called before each update."""
        import torch

        torch.default_generator.manual_seed(seed)

    def rng_state(self) -> "Tensor":
        """Return the state of that generator, a uint8 tensor in host memory, for a checkpoint."""
        import torch

        return torch.default_generator.get_state()

    def set_rng_state(self, state: "Tensor") -> None:
        """Restore a state that `rng_state` returned."""
        import torch

        torch.default_generator.set_state(state)

    # -- before the first step --------------------------------------------------------------------

    def prepare(self, model: "torch.nn.Module") -> "torch.nn.Module":
        """Move the model to the device; called before the optimizer is built on its parameters.

        With several processes, connect them, and copy the parameters of process 0 to all.
        """
        import torch

        parallel = torch.nn.DataParallel | torch.nn.parallel.DistributedDataParallel
        if any(isinstance(module, parallel) for module in model.modules()):
            what, got = "a model must not be wrapped for several devices", type(model).__name__
            raise ArgumentError(what, got=got, do="pass its .module; torchrun starts processes")
        if self.torch_device.type != "cpu":
            Device.initialized = self.description
        model = model.to(self.torch_device)
        if self.world_size > 1:
            distributed.init_process_group()
            distributed.broadcast([tensor.detach() for tensor in model.state_dict().values()])
        return model

    def setup_precision(self, precision: str) -> None:
        """Set up what the precision of the training steps needs; called once, before training.

        The gradients of fp16 would vanish below 6e-8, so its losses are multiplied by a factor
        that adapts (Micikevicius et al. 2018, arXiv 1710.03740). Steps in fp16 wait for the
        device: whether a gradient overflowed decides about the factor and the schedule.
        """
        import torch

        self.scaler = torch.amp.GradScaler(self.torch_device.type) if precision == "fp16" else None

    # -- one step ---------------------------------------------------------------------------------

    def batches(
        self, loader: Iterable[dict[str, Any]], batch_size: int = 0
    ) -> Iterator[dict[str, Any]]:
        """Yield the loader's batches on the device, in the loader's order.

        Args:
            loader: yields collated batches in host memory.
            batch_size: if not 0, the device may extend each batch to this size, with rows at its
                end that do not count. Each batch then has an `example_mask`, fp32 (B,), which is 0
                for them.
        """

        def moved(value: Any) -> Any:
            return value.to(self.torch_device, non_blocking=True) if hasattr(value, "to") else value

        for batch in loader:
            yield {name: moved(value) for name, value in batch.items()}

    def unpadded_size(self, num_tokens: int, precision: str) -> int:
        """Return the number of tokens to extend an unpadded batch to, at least `num_tokens`.

        Override it where matrices of certain sizes are faster than smaller ones.
        """
        return num_tokens

    def autocast(self, precision: str) -> contextlib.AbstractContextManager:
        """Return the context of each forward pass: matrix products are computed in `precision`.

        Parameters and their gradients stay fp32.
        """
        import torch

        if precision == "fp32":
            return contextlib.nullcontext()
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        return torch.autocast(self.torch_device.type, dtype=dtype)

    def backward(self, loss_sum: "Tensor", last: bool = True) -> None:
        """Add the gradient of a *sum* of losses; `last` marks the end of an accumulation group."""
        with defer_ctrl_c():
            (loss_sum if self.scaler is None else self.scaler.scale(loss_sum)).backward()

    def clip_grad_norm(
        self, optimizer: "torch.optim.Optimizer", max_norm: float, num_items: "Tensor | int" = 1
    ) -> "Tensor":
        """Turn summed gradients into mean gradients with a global L2 norm of at most `max_norm`.

        Called once an update. The sums of all ranks are added first, so that all of them get the
        same result.

        Division and clipping are one factor. An optimizer that follows torch's convention for
        scaled gradients (attribute `grad_scale`, as its fused ones do) applies it while it reads
        the gradients; for any other the gradients are divided in place.

        Args:
            optimizer: holds the parameters.
            max_norm: 0 means no clipping.
            num_items: over how many items, of all ranks, the gradients are summed.

        Returns:
            The norm of the mean gradient before clipping, a scalar tensor on the device.
        """
        import torch

        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        grads = [p.grad for p in parameters if p.grad is not None]
        nonzero: Sequence[Tensor] = grads
        if self.world_size > 1:
            nonzero = self.all_reduce_gradients(grads)
        if self.scaler is not None:
            self.scaler.unscale_(optimizer)
            nonzero = grads
        # On a CPU, norms of rows first: torch adds millions of fp32 squares in sequence there.
        rows = [torch.linalg.vector_norm(g, dim=-1) if g.is_cpu else g for g in nonzero]
        norm = torch.nn.utils.get_total_norm(rows)
        divisor = torch.as_tensor(num_items, dtype=torch.float32, device=norm.device)
        divisor = torch.where(divisor > 0, divisor, 1.0)  # without items there is no gradient
        norm = norm / divisor
        if max_norm > 0:
            divisor = divisor * ((norm + 1e-6) / max_norm).clamp(min=1.0)
        if self.scaler is None and getattr(optimizer, "_step_supports_amp_scaling", False):
            optimizer.grad_scale = divisor  # type: ignore[attr-defined]
        else:
            torch._foreach_div_(grads, divisor)
        return norm

    def step(self, optimizer: "torch.optim.Optimizer", skip: "Tensor | None" = None) -> bool:
        """Update the parameters, unless `skip` (a 0/1 scalar on the device) is 1.

        An optimizer that follows torch's convention (attribute `found_inf`) masks the update on
        the device; any other has to wait for the value.

        Returns:
            False if gradients overflowed in fp16, so that the step was skipped: the schedule must
            skip it too.

        Raises:
            TrainingError: gradients overflow in fp16 at the smallest factor.
        """
        if self.scaler is not None:
            scale = self.scaler.get_scale()
            if skip is None or not skip.item():
                self.scaler.step(optimizer)
            self.scaler.update()
            if self.scaler.get_scale() < SMALLEST_SCALE:
                what = "the gradients overflow in fp16, however small the losses are made"
                raise TrainingError(what, do="compute in bf16 or fp32, or lower the learning rate")
            return self.scaler.get_scale() >= scale
        masks = getattr(optimizer, "_step_supports_amp_scaling", False)
        if masks and skip is not None:
            optimizer.found_inf = skip  # type: ignore[attr-defined]
        if masks or skip is None or not skip.item():
            optimizer.step()
        for name in ("grad_scale", "found_inf"):  # torch's own scaler removes them too
            vars(optimizer).pop(name, None)
        return True

    # -- leaving the device -----------------------------------------------------------------------

    def sync(self) -> None:
        """Wait until all queued work is done."""

    def fetch(self, scalars: "dict[str, Tensor]") -> dict[str, float]:
        """Copy scalars to the host: in training the only call that waits, made at log points.

        They are copied as one tensor, because every copy waits for the device.
        """
        import torch

        values = torch.stack([value.float() for value in scalars.values()])
        return dict(zip(scalars, values.tolist(), strict=True))

    def to_host(self, state: "dict[str, Tensor]") -> "dict[str, Tensor]":
        """Copy tensors to host memory, detached and contiguous, as they are saved."""
        return {name: value.detach().cpu().contiguous() for name, value in state.items()}

    # -- several processes: all of them call these, in the same order -----------------------------

    def all_reduce(self, value: "Tensor") -> "Tensor":
        """Sum a tensor, on the device or in host memory, over all ranks."""
        several = self.world_size > 1
        return self.all_reduce_flat([value.flatten()]).view_as(value) if several else value

    def all_reduce_flat(self, tensors: "list[Tensor]") -> "Tensor":
        """Concatenate vectors and sum the result over all ranks; called only if there are several.

        All sums of a run are computed here, gradients among them.
        """
        import torch

        return distributed.all_reduce(torch.cat(tensors))

    def all_reduce_gradients(self, grads: "Sequence[Tensor]") -> "Sequence[Tensor]":
        """Sum each gradient over all ranks, in place; called only if there are several.

        All are sent as one flat tensor: copying them together takes less time than the latencies of
        a hundred collectives. The sum is not copied back: the gradients become views of it.

        Returns:
            the sums; what is certain to be zero may be left out.
        """
        import torch

        flat = self.all_reduce_flat([gradient.flatten() for gradient in grads])
        sums = torch._utils._unflatten_dense_tensors(flat, grads)
        for gradient, total in zip(grads, sums, strict=True):
            gradient.data = total.to(gradient.dtype)
        return sums

    def any_rank(self, flag: object) -> bool:
        """Return True if `flag` is true in any process, for decisions that all must share."""
        import torch

        return bool(self.all_reduce(torch.tensor(float(bool(flag)))).item())

    def gather(self, value: "Tensor") -> "Tensor":
        """Concatenate the rows of all ranks in rank order; their numbers may differ."""
        return distributed.all_gather(value) if self.world_size > 1 else value

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.world_size > 1:
            distributed.barrier()

    # -- statistics -------------------------------------------------------------------------------

    def memory(self) -> dict[str, int]:
        """Return bytes in use and at the peak, under the device's names for them."""
        return {}

    def counters(self) -> dict[str, int]:
        """Return what the device counts: "compilations" of graphs, "transfers_to_host", others."""
        return {}


def choose_device(name: str, manager: Manager) -> Device:
    """Build the device called `name`, or for "auto" the available one of highest priority.

    Raises:
        DeviceError: the device is unknown or unavailable; the message lists all, with the reasons.
    """
    devices = {k: one.value for k, one in registry(manager, "minift_register_devices").items()}
    reasons = {key: reason_unavailable(device) for key, device in devices.items()}
    available = [key for key, reason in reasons.items() if reason is None]
    key = name.partition(":")[0]
    if name == "auto" and (unasked := [k for k in available if devices[k].priority >= 0]):
        return devices[max(unasked, key=lambda key: devices[key].priority)]()
    if key in available:
        return devices[key](name)
    why, everything = reasons.get(key, f"no plugin provides {key!r}"), reasons | manager.load_errors
    listed = [f"{key} ({'available' if why is None else why})" for key, why in everything.items()]
    expected = "; ".join(listed) or "a plugin that provides devices, and none does"
    do = "pass device='auto', or install the plugin that provides it (`pip install minift`)"
    raise DeviceError(f"the device {name!r} cannot be used here", got=why, expected=expected, do=do)


def reason_unavailable(device: type[Device]) -> str | None:
    """Ask a device; what it raises is a reason too, for a broken one must end no other's run."""
    try:
        return device.unavailable()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def choose_precision(precision: str, device: Device) -> tuple[str, str]:
    """Resolve "auto" to a precision, and check any other.

    Args:
        precision: "auto", "fp32", "bf16", "fp16", or another key of `device.precisions()`.

    Returns:
        The precision and the reason, which is printed and recorded.
    """
    offered = device.precisions()
    if precision not in ("auto", *offered):
        what = f"{device.description} does not compute in {precision}"
        raise ConfigError(what, expected=", ".join(offered))
    if precision != "auto":
        return precision, "asked for"
    slow = offered.get("bf16", f"{device.description} does not offer bf16")
    if slow is None:
        return "bf16", f"auto: {device.description} computes bf16 natively"
    return "fp32", f"auto: {slow}"
