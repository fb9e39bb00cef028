"""Whether two sides computed the same: else their speeds do not compare."""

from __future__ import annotations

from benchmarks.measured import Measured

MEAN_LOSS = 0.01
"""Largest relative difference of the mean loss over all answer tokens."""
STEP_LOSS = 0.03
"""The same for each step, where both sides took the examples in the same order."""
EXCESS = 0.05
"""Largest distance of the excess from zero in nats, beside four standard errors."""
GAP = 0.1
"""Largest mean error of log-probabilities in nats; bf16 alone gives 0.02."""


def fault(ours: Measured, peer: Measured) -> str | None:
    """What the peer computed otherwise than asked, or otherwise than ours; None where all is well.

    A fault of ours is the peer's too, for the two cannot be compared then.
    """
    if ours.losses:
        return _loss_fault(ours, peer)
    return _sampling_fault("ours", ours) or _sampling_fault("the peer", peer)


def describe(ours: Measured, peer: Measured) -> str:
    """How well the two agree, in a sentence for the page."""
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
    return f"{text}; mean error of log-probabilities: {', '.join(gaps)}" if gaps else text


def mean_loss(one: Measured) -> float:
    """Mean loss over all answer tokens that a side saw."""
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


def _excess(one: Measured) -> str:
    return "unknown" if one.excess is None else f"{one.excess:+.3f} ± {one.excess_error:.3f}"
