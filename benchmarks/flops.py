"""The least work that a task needs, in floating-point operations and bytes, from a model's shape.

Counted equally for both sides, so that wasted work (padding, unused logits) shows as a lower
utilisation. A multiplication with an addition counts as two operations.
"""

# pyright: basic
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Shape:
    """Sizes of a Llama-like decoder."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head: int
    intermediate: int
    vocabulary: int

    @classmethod
    def of(cls, config: Any) -> Shape:
        """Read the sizes from a transformers config."""
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return cls(
            config.hidden_size,
            config.num_hidden_layers,
            config.num_attention_heads,
            config.num_key_value_heads,
            head,
            config.intermediate_size,
            config.vocab_size,
        )

    @property
    def block_weights(self) -> int:
        """Weights of the linear layers of all blocks."""
        attention = 2 * self.hidden * self.head * (self.heads + self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    @property
    def head_weights(self) -> int:
        """Weights of the output layer."""
        return self.hidden * self.vocabulary

    def attention(self, context: float) -> float:
        """Operations of one token's attention to `context` tokens, all layers."""
        return 4.0 * self.layers * self.heads * self.head * context


def training(shape: Shape, rows: Sequence[tuple[int, int]], method: str) -> float:
    """Operations of a training step.

    Args:
        shape: the model's.
        rows: tokens of each example in all, and of its answer; only these need logits.
        method: `full` needs forward pass, input gradients and weight gradients; `lora` no gradients
            of the frozen weights. The cost of the adapters themselves is left out (3 %).
    """
    linear = sum(2.0 * (shape.block_weights * t + shape.head_weights * a) for t, a in rows)
    attention = sum(shape.attention((t + 1) / 2) * t for t, _ in rows)
    return linear * (3 if method == "full" else 2) + attention * 3


def sampling(shape: Shape, prompts: Sequence[int], n: int, new: int) -> float:
    """Operations of n answers of `new` tokens to each prompt (by length), each prompt read once."""
    total = 0.0
    for length in prompts:
        total += 2.0 * shape.block_weights * length + shape.attention((length + 1) / 2) * length
        total += n * new * 2.0 * (shape.block_weights + shape.head_weights)
        total += n * new * shape.attention(length + (new + 1) / 2)
    return total


def sampling_bytes(shape: Shape, prompts: Sequence[int], n: int, new: int) -> float:
    """Bytes that a 16-bit model must read to decode: all weights once per step, each row's cache.

    All answers are decoded in parallel; the pass over the prompts is left out.
    """
    weights = 2.0 * (shape.block_weights + shape.head_weights)
    kept = 2.0 * 2 * shape.layers * shape.kv_heads * shape.head
    context = sum(n * new * (length + (new + 1) / 2) for length in prompts)
    return new * weights + kept * context


def reinforcing(shape: Shape, prompts: Sequence[int], answers: Sequence[int], n: int) -> float:
    """Operations of a GRPO step with adapters, each prompt read once per pass.

    The sum of sampling the answers, one forward pass of the initial model, and forward and backward
    pass of the loss. The probabilities before the update come from the loss itself, and so are not
    counted.

    Args:
        shape: the model's.
        prompts: tokens of each prompt.
        answers: tokens of each answer; those to the same prompt are neighbours.
        n: answers per prompt.
    """
    said = [sum(answers[i * n : i * n + n]) for i in range(len(prompts))]
    drawn = sum(
        sampling(shape, [prompt], 1, tokens) for prompt, tokens in zip(prompts, said, strict=True)
    )
    rows = [(prompt + tokens, tokens) for prompt, tokens in zip(prompts, said, strict=True)]
    # A third pass like the two of the loss. An answer does not see the others to its prompt, so
    # attention, a few hundredths of the total, is counted too high.
    return drawn + 1.5 * training(shape, rows, "lora")
