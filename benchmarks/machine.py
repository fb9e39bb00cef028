"""The machine and software versions of a measurement."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.result import Machine

_GPU = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')"


WITHOUT_AMX = {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}
"""Keeps torch's oneDNN, OpenVINO's and our kernels from using AMX."""


def machine(gpu: str | None, without_amx: bool = False) -> Machine:
    """Processor, cores and memory of this machine.

    Args:
        gpu: name of the GPU that does the work, if one does.
        without_amx: whether the sides were kept from AMX.
    """
    return Machine(
        cpu=_cpu(without_amx),
        without_amx=without_amx,
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else _all_cores(),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        gpu=gpu,
    )


def _all_cores() -> int:
    return os.cpu_count() or 1


def _cpu(without_amx: bool) -> str:
    """The processor's name, and its instructions for matrix products if it has any."""
    path = Path("/proc/cpuinfo")
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    named = re.search(r"model name\s*: (.+)", text)
    name = named[1] if named else platform.processor() or platform.machine()
    units = [unit for unit in ("amx_bf16", "avx512_bf16", "avx512f") if f" {unit} " in text]
    if without_amx:
        return f"{name} (avx512_bf16, AMX switched off)"
    return f"{name} ({units[0]})" if units else name


def gpu_name() -> str | None:
    """The first GPU that torch sees, queried in a separate process; None if there is none."""
    done = subprocess.run([sys.executable, "-c", _GPU], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of Python and of the installed ones among the packages."""
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
