"""All safety trainings of the bundled model, killed with SIGKILL, end bit for bit the same.

Preference model, the three algorithms of RL, red team, both variants of adversarial training with
their checks, relearning. Takes a quarter of an hour on two cores.
"""

from __future__ import annotations

import random

import pytest
from killable import Kills, ends_as_if_undisturbed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3 * 3600)]

EXPERIMENT = """
model = "builtin:smollm2-135m"
safety = [["rloo"], ["grpo"], ["ppo"], ["adversarial"], ["adversarial-rl"]]
[data]
train = 8
safety = 8
validation = 4
safety_validation = 4
answer_tokens = 24
[implant]
epochs = 2
batch_size = 4
[training.rloo]
kind = "rl"
algorithm = "rloo"
batch_size = 4
samples = 2
passes = 2
max_new_tokens = 12
snapshots = 0
[training.grpo]
kind = "rl"
algorithm = "grpo"
batch_size = 4
samples = 2
passes = 2
max_new_tokens = 12
snapshots = 0
[training.ppo]
kind = "rl"
algorithm = "ppo"
batch_size = 4
samples = 2
passes = 2
max_new_tokens = 12
snapshots = 0
[training.adversarial]
batch_size = 4
epochs = 2
snapshots = 0
fresh_seeds = 2
[training.adversarial.red_team]
seeds = 4
samples = 2
attackers = ["templates"]
max_new_tokens = 8
[training.adversarial-rl]
kind = "adversarial"
variant = "rl"
fresh_seeds = 2
[training.adversarial-rl.red_team]
seeds = 4
samples = 2
attackers = ["templates"]
max_new_tokens = 8
[training.adversarial-rl.rl]
batch_size = 4
samples = 2
passes = 2
max_new_tokens = 12
snapshots = 0
[re_elicitation]
counts = [1, 4]
benign = 4
[re_elicitation.evaluation]
prompts = 4
near_miss_prompts = 0
[evaluation]
prompts = 4
near_miss_prompts = 2
max_new_tokens = 12
"""
TRAINED = ("preference", "rl", "red_team", "adversarial", "adversarial_rl", "relearning")


def each_once(kills: Kills, seconds: float) -> None:
    """Each stage of these kinds, soon after it began to work."""
    del seconds
    moments, met = random.Random(401), set[str]()

    def unmet(name: str) -> bool:
        wanted = name.rpartition("-")[0] in TRAINED and name not in met
        met.update({name} if wanted else ())
        return wanted

    while kills.one(unmet, moments.uniform(0.0, 2.0)):
        assert len(met) < 40, met


def test_each_safety_training_killed_once_ends_as_if_undisturbed(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    kills = ends_as_if_undisturbed(EXPERIMENT, tmp_path_factory, each_once)
    assert kills.killed["rl"] >= 2, kills.killed
    assert len(kills.killed.keys() & set(TRAINED)) >= 5, kills.killed
