"""Sides that measure nothing: fixed speeds, so that ratios can be reckoned by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.limits import Limits, Product
from benchmarks.measured import Measured
from benchmarks.process import SideFailed
from benchmarks.result import Machine
from benchmarks.work import SampleWork, SftWork, Work

LIMITS = Limits(
    products=(
        Product(dtype="bf16", m=8, k=8, n=8, flops_per_second=4e12),
        Product(dtype="bf16", m=9, k=9, n=9, flops_per_second=2e12),
        Product(dtype="fp32", m=8, k=8, n=8, flops_per_second=1e12),
    ),
    bandwidth_bytes=1e10,
    threads=2,
)
MACHINE = Machine(cpu="Fast CPU", cores=2, memory_bytes=24 << 30, gpu=None)
SFT = SftWork(model=Path("m"), turns=Path("t"), method="lora", steps=8, length=80)
SAMPLING = SampleWork(model=Path("m"), turns=Path("t"))


def trained(
    rate: float, *, losses: Sequence[float] = (2.0, 1.0), memory: int = 10**9, warm: float = 0.0
) -> Measured:
    """1,000 tokens of training at a speed."""
    return Measured(
        tokens=1000,
        seconds=1000 / rate,
        warmup_seconds=warm,
        peak_memory_bytes=memory,
        losses=tuple(losses),
        loss_tokens=tuple(100 for _ in losses),
        flops=1e13,
    )


def sampled(rate: float, *, excess: float = 0.0, gap: float | None = None) -> Measured:
    """1,000 tokens of sampling at a speed."""
    return Measured(
        tokens=1000,
        seconds=1000 / rate,
        warmup_seconds=0.0,
        peak_memory_bytes=10**9,
        excess=excess,
        excess_error=0.01,
        logprob_gap=gap,
        flops=1e12,
        bytes=1e9,
    )


def reinforced(reward: float, grad_norm: float) -> Measured:
    """A step of reinforcement learning; the reward's standard error is 0.01."""
    found = {"reward": reward, "reward_error": 0.01, "grad_norm": grad_norm}
    return sampled(100).model_copy(update=found)


@dataclass
class Sides:
    """Hands out measurements prepared for each side, and remembers who was asked for what."""

    ours: list[Measured]
    peer: dict[str, list[Measured]]
    """By the options that tell the peer's settings apart, as `repr` of their values."""
    asked: list[str] = field(default_factory=list[str])

    def __call__(self, side: str, work: Work) -> Measured:
        if side.endswith("ours"):
            self.asked.append("ours")
            return self.ours.pop(0)
        setting = str(work.options.get("setting"))
        self.asked.append(setting)
        if not self.peer[setting]:
            raise SideFailed(f"{setting} is broken")
        return self.peer[setting].pop(0)
