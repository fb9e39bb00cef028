"""What all samplers' sides share: marks in time and drawn tokens into figures."""

# pyright: basic
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks import flops
from benchmarks.measured import Measured, peak_memory
from benchmarks.work import SampleWork

WARM_TOKENS = 4
"""New tokens an answer of the first call, which is there to warm up."""


def report(
    work: SampleWork,
    shape: flops.Shape,
    prompts: Sequence[Sequence[int]],
    marks: Sequence[float],
    answers: Sequence[Sequence[int]],
    logprobs: Sequence[Sequence[float]],
) -> Measured:
    """Marks in time to figures.

    Args:
        work: what was asked for.
        shape: the model's.
        prompts: token ids of each prompt.
        marks: start of the warm-up call, its end, and the end of the timed call.
        answers: the drawn tokens, prompt by prompt.
        logprobs: of each of them, in nats.

    Raises:
        ValueError: where there are fewer tokens than were asked for.
    """
    lengths = {len(answer) for answer in answers}
    if len(answers) != work.prompts * work.n or lengths != {work.tokens}:
        raise ValueError(f"{len(answers)} answers of {sorted(lengths)} tokens came, not {work}")
    means = np.array([np.mean(one) for one in logprobs])
    seconds = marks[2] - marks[1]
    need = flops.sampling(shape, [len(prompt) for prompt in prompts], work.n, work.tokens)
    return Measured(
        tokens=len(answers) * work.tokens,
        seconds=seconds,
        warmup_seconds=max(0.0, marks[1] - marks[0] - seconds * WARM_TOKENS / work.tokens),
        peak_memory_bytes=peak_memory(work.device),
        logprob=float(means.mean()),
        logprob_error=float(means.std(ddof=1) / len(means) ** 0.5),
        flops=need,
    )


def score(
    model: Any, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], n: int
) -> list[list[float]]:
    """log p of each answer's tokens by a forward pass: does a side draw from the right model?

    Args:
        model: a transformers model.
        prompts: token ids of each prompt.
        answers: token ids of n answers to each.
        n: answers to a prompt.
    """
    import torch

    found: list[list[float]] = []
    with torch.inference_mode():
        for index, answer in enumerate(answers):
            ids = torch.tensor([[*prompts[index // n], *answer]], device=model.device)
            logits = model(ids, use_cache=False, logits_to_keep=len(answer) + 1).logits[0, :-1]
            logp = logits.float().log_softmax(-1)
            chosen = torch.tensor(list(answer), device=model.device)
            found.append(logp.gather(1, chosen[:, None])[:, 0].tolist())
    return found
