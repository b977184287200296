"""The Device contract: everything a training loop asks of the hardware.

The base class *is* plain eager PyTorch in host memory, so a backend overrides only what differs:
the cpu plugin is a few lines. Backends come from plugins through the hook
`minift_register_devices`; nothing in `minift/` names one. Plugins are imported to be listed, so
this module imports torch only inside the methods that compute.

Rules that make a loop work on hardware that runs asynchronously: only `fetch` may wait for the
device in training, it is called at log points alone, and nothing there branches on a tensor's
value. Evaluation takes each batch's logits to the host.
"""

import contextlib
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar

from minift import distributed
from minift.errors import ConfigError, DeviceError, TrainingError
from minift.plugins import Manager, registry
from minift.signals import defer_ctrl_c

if TYPE_CHECKING:
    import torch
    from torch import Tensor


SMALLEST_SCALE = 2.0**-14  # of fp16's losses: it begins at 2**16 and halves with each overflow


class Device:
    """Where and how tensors are computed; plugins return subclasses (`minift_register_devices`)."""

    name = "host"
    priority = 0  # "auto" takes the highest that is available
    initialized: ClassVar[str | None] = None  # the kind of accelerator that this process has used

    def __init__(self, spec: str = "") -> None:
        """`spec` is what the user typed, for example "name:1" for the second device."""
        self.spec = spec or self.name
        self.rank, self.world_size = distributed.rank(), distributed.world_size()
        self.scaler: torch.amp.GradScaler | None = None  # of fp16's losses

    @classmethod
    def unavailable(cls) -> str | None:
        """Why this device cannot be used here, or None. Must not import anything heavy."""
        return None

    @property
    def description(self) -> str:
        """What computes, as recorded in run.json."""
        return self.name

    @property
    def torch_device(self) -> "torch.device":
        import torch

        return torch.device("cpu")

    def precisions(self) -> dict[str, str | None]:
        """{precision: None if the hardware computes it natively, else why it would be slow}."""
        return {"fp32": None}

    # -- randomness -------------------------------------------------------------------------------

    def seed(self, seed: int) -> None:
        """Seed the generator that dropout draws from."""
        import torch

        torch.default_generator.manual_seed(seed)

    def rng_state(self) -> "Tensor":
        """The state of that generator, a uint8 tensor in host memory."""
        import torch

        return torch.default_generator.get_state()

    def set_rng_state(self, state: "Tensor") -> None:
        import torch

        torch.default_generator.set_state(state)

    # -- one step ---------------------------------------------------------------------------------

    def prepare(self, model: "torch.nn.Module") -> "torch.nn.Module":
        """Move the model, before the optimizer is built on its parameters.

        In several processes this is where they meet; all take over what process 0 has.
        """
        if self.torch_device.type != "cpu":
            Device.initialized = self.description
        model = model.to(self.torch_device)
        if self.world_size > 1:
            distributed.join()
            distributed.share([tensor.detach() for tensor in model.state_dict().values()])
        return model

    def batches(self, loader: Iterable[dict[str, Any]], rows: int = 0) -> Iterator[dict[str, Any]]:
        """The loader's batches on the device, in the loader's order.

        Args:
            loader: gives collated batches in host memory.
            rows: if not 0, the device may fill each batch up to so many rows with some that do
                not count. They come last and are marked by a 0 in `example_mask`, fp32 (B,), which
                is then in every batch.
        """
        for batch in loader:
            yield {
                name: value.to(self.torch_device, non_blocking=True)
                if hasattr(value, "to")
                else value
                for name, value in batch.items()
            }

    def autocast(self, precision: str) -> AbstractContextManager:
        """Run matrix products in `precision`; parameters and their gradients stay fp32."""
        import torch

        if precision == "fp32":
            return contextlib.nullcontext()
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        return torch.autocast(self.torch_device.type, dtype=dtype)

    def setup_precision(self, precision: str) -> None:
        """Called once, before training: what the steps will be computed in.

        The gradients of fp16 would vanish below 6e-8, so its losses are multiplied by a factor
        that adapts (Micikevicius et al. 2018, arXiv 1710.03740). Steps in fp16 wait for the
        device: whether a gradient overflowed decides about the factor and the schedule.
        """
        import torch

        self.scaler = torch.amp.GradScaler(self.torch_device.type) if precision == "fp16" else None

    def backward(self, loss_sum: "Tensor", last: bool = True) -> None:
        """Add the gradient of a *sum* of losses; `last` marks the end of an accumulation group."""
        with defer_ctrl_c():
            (loss_sum if self.scaler is None else self.scaler.scale(loss_sum)).backward()

    def clip_grad_norm(
        self, optimizer: "torch.optim.Optimizer", max_norm: float, count: "Tensor | int" = 1
    ) -> "Tensor":
        """Turn summed gradients into mean gradients with a global L2 norm of at most `max_norm`.

        The sums of all ranks are added first, so the result is the same on each of them.

        Division and clipping are one factor. An optimizer that follows torch's convention for
        scaled gradients (attribute `grad_scale`, as its fused ones do) applies it while it reads
        the gradients anyway; for any other the gradients are divided in place.

        Args:
            optimizer: holds the parameters.
            max_norm: 0 means no clipping.
            count: how many items, over all ranks, the gradients are the sum over.

        Returns:
            The norm of the mean gradient before clipping, a scalar tensor on the device.
        """
        import torch

        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        grads = [p.grad for p in parameters if p.grad is not None]
        summed = distributed.add_up(grads, self.all_reduce_flat) if self.world_size > 1 else grads
        if self.scaler is not None:
            self.scaler.unscale_(optimizer)
            summed = grads
        # In host memory row by row: torch sums millions of fp32 squares one after another there.
        rows = [torch.linalg.vector_norm(g, dim=-1) if g.is_cpu else g for g in summed]
        norm = torch.nn.utils.get_total_norm(rows)
        divisor = torch.as_tensor(count, dtype=torch.float32, device=norm.device)
        divisor = torch.where(divisor > 0, divisor, 1.0)  # no items, no gradient: nothing to divide
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
            False if fp16's gradients overflowed, so that the step was left out: the schedule must
            leave it out too.

        Raises:
            TrainingError: fp16's gradients overflow whatever the losses are multiplied by.
        """
        masks = getattr(optimizer, "_step_supports_amp_scaling", False)
        if self.scaler is not None:
            before = self.scaler.get_scale()
            if skip is None or not skip.item():
                self.scaler.step(optimizer)
            self.scaler.update()
            after = self.scaler.get_scale()
            if after < SMALLEST_SCALE:
                raise TrainingError(
                    "the gradients overflow in fp16, however small the losses are made",
                    got=f"{after:g} times the loss",
                    do="compute in bf16 or fp32, or lower the learning rate",
                )
            return after >= before
        if masks and skip is not None:
            optimizer.found_inf = skip  # type: ignore[attr-defined]
        if masks or skip is None or not skip.item():
            optimizer.step()
        for name in ("grad_scale", "found_inf"):  # torch's own scaler removes them too
            vars(optimizer).pop(name, None)
        return True

    # -- leaving the device -----------------------------------------------------------------------

    def sync(self) -> None:
        """Wait until everything that was queued has been computed."""

    def fetch(self, scalars: "dict[str, Tensor]") -> dict[str, float]:
        """Scalars on the host: in training the only call that waits, made at log points.

        They travel as one tensor: each transfer has its own wait.
        """
        import torch

        values = torch.stack([value.float() for value in scalars.values()])
        return dict(zip(scalars, values.tolist(), strict=True))

    def to_host(self, state: "dict[str, Tensor]") -> "dict[str, Tensor]":
        """Tensors as they are saved: in host memory, detached, contiguous."""
        return {name: value.detach().cpu().contiguous() for name, value in state.items()}

    # -- several processes ------------------------------------------------------------------------

    def all_reduce(self, value: "Tensor") -> "Tensor":
        """The sum over all ranks; of a tensor in host memory, without waiting for the device."""
        return (
            self.all_reduce_flat([value.flatten()]).view_as(value) if self.world_size > 1 else value
        )

    def all_reduce_flat(self, parts: "list[Tensor]") -> "Tensor":
        """Vectors, one behind the other, summed over the ranks, of which there are several."""
        import torch

        return distributed.all_reduce(torch.cat(parts))

    def any_rank(self, flag: object) -> bool:
        """Return whether the flag is true in any rank; all ranks have to ask."""
        import torch

        return bool(self.all_reduce(torch.tensor(float(bool(flag)))).item())

    def gather(self, value: "Tensor") -> "Tensor":
        """The rows of all ranks, in rank order; the ranks may have different numbers of them."""
        return distributed.gather(value) if self.world_size > 1 else value

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.world_size > 1:
            distributed.barrier()

    # -- what it did ------------------------------------------------------------------------------

    def memory(self) -> dict[str, int]:
        """Bytes in use and at the peak, by whatever names the device has for them."""
        return {}

    def counters(self) -> dict[str, int]:
        """What the device counts: "compilations" of graphs, "transfers_to_host", and others."""
        return {}


def choose_device(name: str, manager: Manager) -> Device:
    """The device called `name`, or for "auto" the available one of highest priority.

    Raises:
        DeviceError: it is unknown or cannot be used here; the message lists all with the reason.
    """
    devices = {
        key: found.value for key, found in registry(manager, "minift_register_devices").items()
    }
    if not devices:
        broken = [f"{key} ({error})" for key, error in manager.failures.items()]
        raise DeviceError(
            "no installed plugin provides a device, so nothing can be computed",
            got="plugins: " + (", ".join(p for p, _ in manager.list_name_plugin()) or "none"),
            expected="at least minift_cpu, which is part of the minift distribution",
            do="reinstall with `pip install minift` (or `pip install -e .` in a checkout)"
            + (f"; these failed to load: {', '.join(broken)}" if broken else ""),
        )
    reasons = {key: device.unavailable() for key, device in devices.items()}
    ready = sorted(
        (key for key, reason in reasons.items() if reason is None),
        key=lambda key: -devices[key].priority,
    )
    wanted = name.partition(":")[0]
    if name == "auto" and ready:
        return devices[ready[0]]()
    if wanted in ready:
        return devices[wanted](name)
    known = [f"{key} ({'available' if why is None else why})" for key, why in reasons.items()]
    raise DeviceError(
        f"the device {name!r} cannot be used here",
        got=reasons.get(wanted, f"no plugin provides {wanted!r}"),
        expected="; ".join(known),
        do="pass device='auto', or install the plugin that provides it",
    )


def choose_precision(wanted: str, device: Device) -> tuple[str, str]:
    """What to compute in, and why.

    Args:
        wanted: "auto", "fp32", "bf16" or "fp16".

    Returns:
        The precision and the reason, which is printed and recorded.
    """
    known = device.precisions()
    if wanted != "auto":
        if wanted not in known:
            raise ConfigError(
                f"{device.description} does not compute in {wanted}", expected=", ".join(known)
            )
        return wanted, "asked for"
    slow = known.get("bf16", f"{device.description} does not offer bf16")
    if slow is None:
        return "bf16", f"auto: {device.description} computes bf16 natively"
    return "fp32", f"auto: {slow}"
