"""Mark the times when TRL's training begins and when its steps end."""

# pyright: basic
from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from benchmarks.measured import Clock


class Marks(TrainerCallback):
    """Marks the time when training begins and when each step ends."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Mark the time before the first step."""
        self.clock.mark()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Mark the end of a step."""
        self.clock.mark()
