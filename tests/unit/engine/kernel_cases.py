"""Arguments for every kernel."""

from __future__ import annotations

from typing import Any

import torch

EPS = torch.tensor(1e-5)


def numbers(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def cases(
    dtype: torch.dtype, rows: int, groups: int, shared: int, width: int, size: int
) -> dict[str, tuple[Any, ...]]:
    """Arguments by kernel: rows of `size` numbers; grids of 2 x `width` cells; heads of `size`."""
    x, other = numbers(rows, 2 * size, dtype=dtype), numbers(rows, 2 * size, seed=1, dtype=dtype)
    weight, inverse = numbers(2 * size, seed=2), numbers(rows, 1, seed=3).abs()
    # As attention has them: a part of the joint output of query, key and value.
    joint = numbers(rows, (shared + 2) * groups * size, dtype=dtype)
    heads = joint[:, : groups * shared * size].unflatten(1, (groups, shared, size))
    grid = numbers(2, groups, width, shared, size, dtype=dtype)
    angles = numbers(rows, size, seed=4)
    cos, sin = angles.cos(), angles.sin()
    generator = torch.Generator().manual_seed(5)
    index = torch.randint(rows, (2, width), generator=generator)
    real = torch.rand(2, width, generator=generator) < 0.7
    flat = (
        torch.randint(2, (rows,), generator=generator),
        torch.randint(width, (rows,), generator=generator),
    )
    hidden = torch.ones(rows, width, dtype=torch.bool).triu(1)
    bias = torch.zeros(rows, width).masked_fill(hidden, -torch.inf)
    scores, scale = numbers(2, rows, width, dtype=dtype), torch.tensor(0.5)
    p, weights = scores.float().softmax(-1).to(dtype), numbers(rows, 1, seed=6)
    return {
        "rms_norm": (x, weight, EPS),
        "add_rms_norm": (x, other, weight, EPS),
        "rms_norm_backward": (other, x, weight, inverse, x),
        "rms_norm_weight_grad": (other, x, inverse),
        "silu_mul": (x,),
        "silu_mul_backward": (x, other[:, :size].contiguous()),
        "rotate_heads": (heads[:, 0], heads[:, 0], heads[:, 0], cos, sin),
        "to_grid": (heads, index, real),
        "to_grid_rotated": (heads, index, cos, sin),
        "from_grid": (grid, *flat),
        "from_grid_turned_back": (grid, *flat, cos, sin),
        "masked_softmax": (scores, bias, scale, x),
        "softmax_backward": (p, scores, numbers(2, rows, 1, seed=5), scale),
        "row_products": (x, other),
        "weighted_softmax": (x, weights),
        "softmax_entropy": (x,),
        "softmax_times": (x, x.float().logsumexp(1, keepdim=True), weights),
        "row_maxima": (x,),
        "chunk_masses": (x.unflatten(1, (2, -1)), x.float().amax(1, keepdim=True), scale),
    }
