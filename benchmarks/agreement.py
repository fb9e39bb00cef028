"""Check that two sides computed the same, since otherwise their speeds cannot be compared."""

from __future__ import annotations

import math

from benchmarks.measured import Measured

MEAN_LOSS = 0.01
"""Largest relative difference of the mean loss over all answer tokens."""
STEP_LOSS = 0.03
"""The same for each step, if both sides took the examples in the same order."""
EXCESS = 0.05
"""Largest distance of the excess from zero in nats, in addition to four standard errors."""
GAP = 0.1
"""Largest mean error of log-probabilities in nats; bf16 alone gives 0.02."""
NORM = 1.5
"""Largest ratio of gradient norms. Each side samples its own answers, so the norms of the same loss
differ by chance; a different loss, or another scale of the advantages, differs more."""


def fault(ours: Measured, peer: Measured) -> str | None:
    """How the peer's computation differs from the task or from ours; None if it does not.

    A fault of ours counts as the peer's too, since the two cannot be compared then.
    """
    if ours.losses:
        return _loss_fault(ours, peer)
    drawn = _sampling_fault("ours", ours) or _sampling_fault("the peer", peer)
    return drawn or _policy_fault(ours, peer)


def describe(ours: Measured, peer: Measured) -> str:
    """The agreement of the two sides, in a sentence for the page."""
    if ours.losses:
        a, b = mean_loss(ours), mean_loss(peer)
        same = f"mean loss over the same examples: ours {a:.4f}, peer {b:.4f}"
        if ours.loss_tokens != peer.loss_tokens:
            return same
        worst = max(_step_differences(ours, peer))
        return f"{same}; step by step at most {100 * worst:.1f} % apart"
    sides = (("ours", ours), ("peer", peer))
    text = "; ".join(f"{who} {_excess(one)}" for who, one in sides)
    gaps = [f"{who} {one.logprob_gap:.3f}" for who, one in sides if one.logprob_gap is not None]
    text = f"mean of log p + entropy, 0 for exact samples: {text}"
    text = f"{text}; mean error of log-probabilities: {', '.join(gaps)}" if gaps else text
    return text + "".join(f"; {who} {_policy(one)}" for who, one in sides if one.reward is not None)


def mean_loss(one: Measured) -> float:
    """Mean loss over all answer tokens that a side learnt."""
    pairs = zip(one.losses, one.loss_tokens, strict=True)
    return sum(loss * count for loss, count in pairs) / sum(one.loss_tokens)


def _loss_fault(ours: Measured, peer: Measured) -> str | None:
    if sum(ours.loss_tokens) != sum(peer.loss_tokens):
        return f"it learnt {sum(peer.loss_tokens)} answer tokens, not {sum(ours.loss_tokens)}"
    a, b = mean_loss(ours), mean_loss(peer)
    if not abs(b - a) <= MEAN_LOSS * a:  # NaN is a fault too
        return f"its mean loss is {b:.4f}, ours {a:.4f}"
    if ours.loss_tokens == peer.loss_tokens:
        worst = max(_step_differences(ours, peer))
        if not worst <= STEP_LOSS:
            return f"the loss of a step differs from ours by {100 * worst:.1f} %"
    return None


def _step_differences(ours: Measured, peer: Measured) -> list[float]:
    return [abs(b - a) / a for a, b in zip(ours.losses, peer.losses, strict=True)]


def _sampling_fault(who: str, one: Measured) -> str | None:
    if one.excess is not None and not abs(one.excess) <= EXCESS + 4 * one.excess_error:
        return f"{who} did not sample from the softmax: log p + entropy is {_excess(one)} nats"
    if one.logprob_gap is not None and not one.logprob_gap <= GAP:
        return f"{who} gave log-probabilities that are {one.logprob_gap:.3f} nats off"
    return None


def _policy_fault(ours: Measured, peer: Measured) -> str | None:
    """How rewards or gradients of a reinforcement learning step differ; None if they do not.

    tests/oracles/test_trl_policy.py shows that the losses are equal on the same answers.
    """
    if ours.reward is None or peer.reward is None:
        return None
    error = math.hypot(ours.reward_error, peer.reward_error)
    if not abs(ours.reward - peer.reward) <= 4 * error + 1e-6:
        return f"its mean reward is {peer.reward:.4f}, ours {ours.reward:.4f} ± {error:.4f}"
    a, b = ours.grad_norm or 0.0, peer.grad_norm or 0.0
    if not (a > 0 and 1 / NORM <= b / a <= NORM):  # NaN is a fault too
        return f"the norm of its gradient is {peer.grad_norm}, ours {ours.grad_norm}"
    return None


def _policy(one: Measured) -> str:
    return f"reward {one.reward:.4f} ± {one.reward_error:.4f}, gradient {one.grad_norm:.4f}"


def _excess(one: Measured) -> str:
    return "unknown" if one.excess is None else f"{one.excess:+.3f} ± {one.excess_error:.3f}"
