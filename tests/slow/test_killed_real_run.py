"""The bundled model's run, killed with SIGKILL at ten random moments, ends bit for bit the same."""

from __future__ import annotations

import random

import pytest
from killable import Kills, ends_as_if_undisturbed
from outcomes import TRAININGS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

EXPERIMENT = """
model = "builtin:smollm2-135m"
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
[training.sft]
epochs = 2
batch_size = 4
snapshots = 1
[evaluation]
prompts = 8
near_miss_prompts = 2
max_new_tokens = 12
[numerics]
compute = "fp32"
"""


def ten_times(kills: Kills, seconds: float) -> None:
    """Anywhere, every second time in a training."""
    moments = random.Random(135)
    for number in range(10):
        wanted = TRAININGS if number % 2 else ("",)
        kills.one(lambda name, of=wanted: name.startswith(of), moments.uniform(0, seconds / 30))


def test_killed_ten_times_it_ends_as_if_undisturbed(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    kills = ends_as_if_undisturbed(EXPERIMENT, tmp_path_factory, ten_times)
    assert kills.killed.total() == 10 and len(kills.killed) >= 3, kills.killed
