"""The list of mutants: each still applies to the code, names tests that exist, and was run."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from types import CodeType

import pytest

from tools.mutants import ENOUGH, PACKAGE, ROOT, Mutant, kept_results, mutated, read_table, score

TABLE = read_table()
KINDS = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@cache
def source_of(file: str) -> str:
    return (PACKAGE / file).read_text(encoding="utf-8")


@cache
def compiled(source: str) -> CodeType:
    return compile(source, "a module", "exec")


@cache
def names_in(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, KINDS)}


def test_there_are_enough_of_them_each_with_a_name_of_its_own() -> None:
    assert len(TABLE) >= 100
    assert len({one.name for one in TABLE}) == len(TABLE)


def test_every_mutant_applies_compiles_and_changes_the_code() -> None:
    for one in TABLE:
        source = source_of(one.file)
        assert compiled(mutated(one, source)) != compiled(source), one.name


def test_every_mutant_names_tests_that_exist() -> None:
    for one in TABLE:
        assert one.tests, one.name
        for test in one.tests:
            file, *names = test.split("::")
            assert (ROOT / file).is_file(), f"{one.name}: {file}"
            assert {*names} <= names_in(file), f"{one.name}: {test}"


def test_the_kept_score_is_of_these_mutants_and_every_survivor_is_explained() -> None:
    results = kept_results()
    assert {one.name for one in TABLE} - {*results} == set(), "run `make mutants`"
    found = score(TABLE, results)
    assert found["killed"] >= ENOUGH * found["mutants"]
    explained = {one.name for one in TABLE if one.survives}
    assert {*found["survivors"]} <= explained


SOURCE = "class A:\n    def f(self):\n        return 1 < 2\n\n\ndef f():\n    return 1 < 2\n"


def fault(**changes: str) -> Mutant:
    return Mutant(**{"name": "m", "file": "a.py", "old": "<", "new": ">", "tests": (), **changes})  # type: ignore[arg-type]


def test_a_fault_is_put_where_it_is_meant() -> None:
    inner = mutated(fault(within="A.f"), SOURCE)
    assert inner == SOURCE.replace("<", ">", 1)
    assert mutated(fault(old="def f():", new="def g():"), SOURCE).count("def g():") == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "stands 2 times in a.py"),
        ({"within": "A", "old": "3"}, "stands 0 times in A"),
        ({"within": "B.f"}, "there is no B.f"),
    ],
)
def test_a_fault_without_its_place_is_an_error(changes: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        mutated(fault(**changes), SOURCE)


def test_no_kept_results_are_none(tmp_path: Path) -> None:
    assert kept_results(tmp_path / "nothing.json") == {}
