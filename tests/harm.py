"""Ways in which files are damaged, each of which must be found."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

Harm = Callable[[Path], None]


def flip(path: Path) -> None:
    """Change one bit and put the time of change back."""
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=times)


def swap(path: Path) -> None:
    """Put another file of the same size and time in its place."""
    other = path.with_name(f"{path.name}.other")
    other.write_bytes(bytes(byte ^ 1 for byte in path.read_bytes()))
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.replace(path)


def cut(path: Path) -> None:
    """Cut off the last byte."""
    os.truncate(path, path.stat().st_size - 1)


def empty(path: Path) -> None:
    """Leave nothing of it, as after a power cut."""
    os.truncate(path, 0)


def append(path: Path) -> None:
    """Add a byte."""
    with path.open("ab") as file:
        file.write(b"x")


def delete(path: Path) -> None:
    """Delete it."""
    path.unlink()


def link(path: Path) -> None:
    """Move it away and link to it."""
    away = path.parent.parent / f"{path.name}.away"
    path.rename(away)
    path.symlink_to(away)


def folder(path: Path) -> None:
    """Put a folder in its place."""
    path.unlink()
    path.mkdir()


HARMS: tuple[Harm, ...] = (flip, swap, cut, empty, append, delete, link, folder)
