"""Counts of operations and bytes, against counts by hand and torch's own counter."""

from __future__ import annotations

import decoders
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import flops
from benchmarks.flops import Shape

SHAPE = Shape(hidden=4, layers=2, heads=2, kv_heads=1, head=2, intermediate=8, vocabulary=10)


def test_weights_are_those_of_the_linear_layers() -> None:
    # q 4x4, k and v 4x2 each, o 4x4; gate, up and down 4x8 each.
    assert SHAPE.block_weights == 2 * (16 + 8 + 8 + 16 + 3 * 32)
    assert SHAPE.head_weights == 40


def test_a_forward_pass_is_what_torch_counts() -> None:
    model = decoders.build("llama-tied")
    shape, length = Shape.of(model.config), 12
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, length, dtype=torch.long), use_cache=False)
    linear = 2.0 * length * (shape.block_weights + shape.head_weights)
    counts = counter.get_flop_counts()["Global"]
    products = sum(n for op, n in counts.items() if "mm" in str(op) and "bmm" not in str(op))
    assert products == linear


def test_training_needs_logits_for_answers_alone() -> None:
    full = flops.training(SHAPE, [(6, 2)], "full")
    lora = flops.training(SHAPE, [(6, 2)], "lora")
    linear = 2.0 * (SHAPE.block_weights * 6 + SHAPE.head_weights * 2)
    attention = 4.0 * 2 * 2 * 2 * (1 + 2 + 3 + 4 + 5 + 6)
    assert full == pytest.approx(3 * (linear + attention))
    assert full - lora == pytest.approx(linear)


def test_sampling_reads_a_prompt_once_for_all_its_answers() -> None:
    one = flops.sampling(SHAPE, [5], 1, 3)
    four = flops.sampling(SHAPE, [5], 4, 3)
    prompt = 2.0 * SHAPE.block_weights * 5 + 4.0 * 2 * 2 * 2 * 15
    assert four - prompt == pytest.approx(4 * (one - prompt))


def test_bytes_are_the_weights_a_step_and_the_cache_a_row() -> None:
    weights = 2.0 * (SHAPE.block_weights + SHAPE.head_weights)
    cache = 2.0 * 2 * 2 * 1 * 2  # two bytes, keys and values, layers, heads, size
    found = flops.sampling_bytes(SHAPE, [5], 1, 3)
    assert found == pytest.approx(3 * weights + cache * (6 + 7 + 8))


def test_a_grpo_step_draws_looks_and_learns() -> None:
    """Two answers of 3 and 1 tokens to a prompt of 5, which every pass reads once."""
    found = flops.reinforcing(SHAPE, [5], [3, 1], 2)
    blocks, head = SHAPE.block_weights, SHAPE.head_weights
    reading, drawing = 2.0 * blocks * 5, 2.0 * 4 * (blocks + head)
    look = 2.0 * (blocks * 9 + head * 4)
    linear = reading + drawing + look + 2 * look  # the loss: forward, and gradients of inputs
    reads, draws, passes = 32 * 15, 32 * 4 * 7.5, 32 * 45  # 32 operations for a token's look at one
    assert found == pytest.approx(linear + reads + draws + 4.5 * passes)
