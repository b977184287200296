"""AdamW: Adam with bias correction and decoupled weight decay.

Kingma and Ba 2015 (arXiv 1412.6980), Loshchilov and Hutter 2019 (arXiv 1711.05101). `update` is
the definition, one line for each line of the paper. torch has the same algorithm as a fused kernel,
which reads and writes each number once. Where the device has that kernel, it is used instead, and
tests check that both give the same result.
"""

import math
import re
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw as torch_adamw

# Private, but torch has no public name for this list. Without it, the backends that have the kernel
# would have to be named here.
from torch.utils._foreach_utils import _get_fused_kernels_supported_devices

from minift.errors import ConfigError

# Names of parameters without weight decay: biases and norms (the rule of transformers.Trainer).
NO_DECAY = re.compile(r"bias|layernorm|rmsnorm|(^|\.)norm($|\.)|_norm($|\.)", re.IGNORECASE)


class AdamW(torch.optim.Optimizer):
    """AdamW for fp32 parameters.

    It follows torch's convention for scaled gradients. If the attribute `grad_scale` is set, the
    gradients are divided by it while they are read, so that averaging over a batch and clipping
    need no pass of their own. If `found_inf`, a 0/1 scalar tensor, is 1, the step changes nothing,
    and the host does not have to wait for the device to know.

    Args:
        params: parameters, or groups as in torch.optim.
        lr: learning rate.
        betas: decay rates of the two moments.
        eps: added to the root of the second moment, after bias correction.
        weight_decay: decoupled: each step multiplies parameters by 1 - lr * weight_decay.
        fused: use torch's fused kernel; by default where the device has it.
    """

    _step_supports_amp_scaling = True  # tells torch's GradScaler to set the two attributes

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 1e-2, fused: bool | None = None,
    ) -> None:  # fmt: skip
        for name, value, top in (("lr", lr, 1e9), ("beta1", betas[0], 1), ("beta2", betas[1], 1)):
            if not 0.0 <= value < top:
                raise ConfigError(f"{name} does not fit", got=value, expected=f"0 to below {top:g}")
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)
        self.fused = fused

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a saved state, with step counts on the device, where the fused kernel reads them."""
        super().load_state_dict(state_dict)
        for p, state in self.state.items():
            state["step"] = state["step"].to(p.device)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient."""
        with torch.enable_grad():
            loss = None if closure is None else closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._step_group(params, group)
        return loss

    def _step_group(self, params: list[Any], group: dict[str, Any]) -> None:
        for p in params:
            if not self.state[p]:
                self.state[p]["step"] = torch.zeros((), device=p.device)
                self.state[p]["exp_avg"] = torch.zeros_like(p)
                self.state[p]["exp_avg_sq"] = torch.zeros_like(p)
        grads = [p.grad for p in params]
        states = [self.state[p] for p in params]
        m, v, t = ([state[key] for state in states] for key in ("exp_avg", "exp_avg_sq", "step"))
        scale, found_inf = getattr(self, "grad_scale", None), getattr(self, "found_inf", None)
        settings: Any = {name: group[name] for name in ("lr", "weight_decay", "eps")}
        settings["beta1"], settings["beta2"] = group["betas"]
        fused = self.fused
        if fused is None:
            fused = params[0].device.type in _get_fused_kernels_supported_devices()
        if fused:
            torch_adamw(
                params, grads, m, v, [], t, fused=True, grad_scale=scale, found_inf=found_inf,
                amsgrad=False, maximize=False, **settings,
            )  # fmt: skip
            return
        for i, g in enumerate(grads):
            old = (params[i], m[i], v[i], t[i])
            new = update(*old, g if scale is None else g / scale, **settings)
            for target, value in zip(old, new, strict=True):
                if found_inf is not None:
                    value = torch.where(found_inf > 0, target, value)
                target.copy_(value)


def update(
    p: Tensor, m: Tensor, v: Tensor, t: Tensor, g: Tensor, lr: float, beta1: float, beta2: float,
    eps: float, weight_decay: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Return (p, m, v, t) of one parameter after a step: itself, its two moments, its step count.

    Args:
        p, m, v, t: before the step.
        g: the gradient, of the shape of p, m and v.
    """
    t = t + 1
    p = p * (1 - lr * weight_decay)  # decay does not pass through the moments
    m = beta1 * m + (1 - beta1) * g  # first moment: running mean of the gradient
    v = beta2 * v + (1 - beta2) * g * g  # second moment: running mean of its square
    m_hat = m / one_minus_power(beta1, t)  # both started at 0 and are biased towards it
    v_hat = v / one_minus_power(beta2, t)
    return p - lr * m_hat / (v_hat.sqrt() + eps), m, v, t


def one_minus_power(beta: float, t: Tensor) -> Tensor:
    """Return 1 - beta**t. Subtracting in fp32 would lose half the digits in the first steps."""
    return -torch.expm1(t * math.log(beta)) if beta else torch.ones_like(t)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return the groups with and without weight decay; biases and norms have none."""
    norms = [module for module in model.modules() if isinstance(module, nn.LayerNorm)]
    in_norms = {id(p) for module in norms for p in module.parameters()}
    decay: dict[str, Any] = {"params": [], "weight_decay": weight_decay}
    no_decay: dict[str, Any] = {"params": [], "weight_decay": 0.0}
    for name, p in model.named_parameters():
        if p.requires_grad:
            group = no_decay if id(p) in in_norms or NO_DECAY.search(name) else decay
            group["params"].append(p)
    return [group for group in (decay, no_decay) if group["params"]]
