"""Measure the machine's limits: matrix products at the model's shapes, and memory traffic."""

# pyright: basic
from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import torch

from benchmarks.flops import Shape
from benchmarks.limits import Limits, Product
from benchmarks.measured import Clock
from benchmarks.work import LimitsWork as Work

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def measure(work: Work) -> Limits:
    """Time the fastest of several repetitions of each product, and of reading and copying."""
    shape = Shape.of(config_in(work.model))
    products = [
        _product(work, name, *sizes) for name in DTYPES for sizes in product_sizes(shape, work.rows)
    ]
    return Limits(
        products=tuple(products),
        bandwidth_bytes=max(_read(work), _copy(work)),
        threads=torch.get_num_threads(),
    )


def config_in(folder: Path) -> SimpleNamespace:
    """A model's config.json."""
    text = (folder / "config.json").read_text(encoding="utf-8")
    return SimpleNamespace(**json.loads(text))


def product_sizes(shape: Shape, rows: int) -> list[tuple[int, int, int]]:
    """(m, k, n) of the products of the MLP and the head, and of a square one."""
    wide = 2 * shape.intermediate
    return [
        (rows, shape.hidden, wide),
        (rows, shape.intermediate, shape.hidden),
        (rows, shape.hidden, shape.vocabulary),
        (rows, rows, rows),
    ]


def _product(work: Work, dtype: str, m: int, k: int, n: int) -> Product:
    """Operations per second of (m, k) by (k, n), with the weight laid out as in a layer."""
    x = torch.ones(m, k, dtype=DTYPES[dtype], device=work.device)
    w = torch.ones(n, k, dtype=DTYPES[dtype], device=work.device)
    out = torch.empty(m, n, dtype=DTYPES[dtype], device=work.device)
    best = _fastest(work, lambda: torch.mm(x, w.T, out=out))
    return Product(dtype=dtype, m=m, k=k, n=n, flops_per_second=2.0 * m * k * n / best)


def _read(work: Work) -> float:
    """Bytes per second of reading: a sum that does nothing else."""
    x = torch.ones(work.traffic_bytes // 4, device=work.device)
    return work.traffic_bytes / _fastest(work, lambda: x.sum())


def _copy(work: Work) -> float:
    """Bytes per second of copying, read and written."""
    x = torch.ones(work.traffic_bytes // 8, device=work.device)
    y = torch.empty_like(x)
    return 2 * 4 * len(x) / _fastest(work, lambda: y.copy_(x))


def _fastest(work: Work, once: Callable[[], object]) -> float:
    """Seconds of the fastest of at least three repetitions, after one that does not count."""
    clock = Clock(work.device)
    once()
    begun = clock.mark()
    while len(clock.marks) < 4 or time.perf_counter() - begun < work.seconds:
        once()
        clock.mark()
    return min(b - a for a, b in zip(clock.marks, clock.marks[1:], strict=False))
