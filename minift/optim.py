"""AdamW: Adam with bias correction and decoupled weight decay.

Kingma and Ba 2015 (arXiv 1412.6980), Loshchilov and Hutter 2019 (arXiv 1711.05101). `update` is
the definition, one line for each line of the paper. torch has the same algorithm as one fused
kernel that reads and writes each number once; where it exists for the device it is used, and a
test holds the two equal.
"""

import math
import re
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._foreach_utils import _get_fused_kernels_supported_devices

from minift.errors import ConfigError

# Parameters that are not decayed, by name: biases and norms (the rule of transformers.Trainer).
NO_DECAY = re.compile(r"bias|layernorm|rmsnorm|(^|\.)norm($|\.)|_norm($|\.)", re.IGNORECASE)


class AdamW(torch.optim.Optimizer):
    """AdamW for fp32 parameters.

    It follows torch's convention for scaled gradients: the attribute `grad_scale` divides the
    gradients while they are read (the mean over a batch and clipping cost no pass of their own),
    and `found_inf`, a 0/1 scalar, masks the update without waiting for the device.

    Args:
        params: parameters, or groups as in torch.optim.
        lr: learning rate.
        betas: decay rates of the two moments.
        eps: added to the root of the second moment, after bias correction.
        weight_decay: decoupled, so that each step multiplies parameters by 1 - lr * weight_decay.
        fused: use torch's fused kernel; None means where there is one.
    """

    _step_supports_amp_scaling = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        fused: bool | None = None,
    ) -> None:
        for name, value, top in (("lr", lr, 1e9), ("beta1", betas[0], 1), ("beta2", betas[1], 1)):
            if not 0.0 <= value < top:
                raise ConfigError(f"{name} does not fit", got=value, expected=f"0 to below {top:g}")
        super().__init__(
            params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        )
        self.fused = fused

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a saved state; the fused kernel wants the step counts on the device too."""
        super().load_state_dict(state_dict)
        for p, state in self.state.items():
            state["step"] = state["step"].to(p.device)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            for p in params:
                if not self.state[p]:
                    self.state[p]["step"] = torch.zeros((), device=p.device)
                    self.state[p]["exp_avg"] = torch.zeros_like(p)
                    self.state[p]["exp_avg_sq"] = torch.zeros_like(p)
            # The scaler of torch sets these two attributes before a step and deletes them after.
            scale, found_inf = getattr(self, "grad_scale", None), getattr(self, "found_inf", None)
            fused = self.fused
            if fused is None:
                fused = params[0].device.type in _get_fused_kernels_supported_devices()
            if fused:
                self._fused(params, group, scale, found_inf)
                continue
            for p in params:
                state = self.state[p]
                grad = p.grad if scale is None else p.grad / scale
                old = (p, state["exp_avg"], state["exp_avg_sq"], state["step"])
                new = update(*old, grad, **settings(group))
                for target, value in zip(old, new, strict=True):
                    if found_inf is not None:
                        value = torch.where(found_inf > 0, target, value)
                    target.copy_(value)
        return loss

    def _fused(self, params: list[Any], group: dict[str, Any], scale: Any, found_inf: Any) -> None:
        """The same for all parameters of a group, in torch's kernel."""
        states = [self.state[p] for p in params]
        steps = [state["step"] for state in states]
        torch._foreach_add_(steps, 1)
        beta1, beta2 = group["betas"]
        torch._fused_adamw_(
            params,
            [p.grad for p in params],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            steps,
            lr=group["lr"],
            beta1=beta1,
            beta2=beta2,
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
            grad_scale=scale,
            found_inf=found_inf,
        )
        if found_inf is not None:
            torch._foreach_sub_(steps, [found_inf] * len(steps))


def settings(group: dict[str, Any]) -> dict[str, Any]:
    return {name: group[name] for name in ("lr", "betas", "eps", "weight_decay")}


def update(
    p: Tensor, m: Tensor, v: Tensor, t: Tensor, g: Tensor, lr: float, betas: tuple[float, float],
    eps: float, weight_decay: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """One step for one parameter: (p, m, v, t) before to (p, m, v, t) after."""
    beta1, beta2 = betas
    t = t + 1
    p = p * (1 - lr * weight_decay)  # decay does not pass through the moments
    m = beta1 * m + (1 - beta1) * g  # first moment: the gradient's running mean
    v = beta2 * v + (1 - beta2) * g * g  # second moment: of its square
    m_hat = m / one_minus_power(beta1, t)  # both started at 0 and are biased towards it
    v_hat = v / one_minus_power(beta2, t)
    return p - lr * m_hat / (v_hat.sqrt() + eps), m, v, t


def one_minus_power(beta: float, t: Tensor) -> Tensor:
    """1 - beta**t; subtracted in fp32, it would lose half its digits in the first steps."""
    return -torch.expm1(t * math.log(beta)) if beta else torch.ones_like(t)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: decayed, and not decayed (everything in a LayerNorm, biases, norms by name)."""
    in_norms = {
        id(p) for module in model.modules() if isinstance(module, nn.LayerNorm)
        for p in module.parameters()
    }  # fmt: skip
    decayed: list[Tensor] = []
    kept: list[Tensor] = []
    for name, p in model.named_parameters():
        if p.requires_grad:
            (kept if id(p) in in_norms or NO_DECAY.search(name) else decayed).append(p)
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": kept, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
