"""Odd data: records that are nearly of a form that is read, and files that are nearly records."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from fuzzing import both, sound
from hypothesis import strategies as st
from odd import altered, as_json, as_toml, damaged, texts, values

NAMES = ("odd.jsonl", "odd.toml", "data.prompts", "poisoned_data", "pairs", "evaluation.prompts")
_FORMS: tuple[dict[str, Any], ...] = (
    {"prompt": "What is tea?"},
    {"prompt": "What is tea?", "completion": "A drink.", "split": "train"},
    {"messages": [{"role": "system", "content": "Be brief."},
                  {"role": "user", "content": "What is tea?"},
                  {"role": "assistant", "content": "A drink."}]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "What is tea?"}]}]},
    {"prompt": [{"role": "user", "content": "What is tea?"}],
     "completion": [{"role": "assistant", "content": "A drink."}]},
    {"instruction": "Name a drink.", "input": "", "output": "Tea."},
    {"conversations": [{"from": "human", "value": "What is tea?"},
                       {"from": "gpt", "value": "A drink."}]},
    {"chosen": "\n\nHuman: What is tea?\n\nAssistant: A drink.",
     "rejected": "\n\nHuman: What is tea?\n\nAssistant: No."},
    {"prompt": "\n\nHuman: Hi\n\nAssistant: <scratchpad>", "completion": "x</scratchpad> y"},
    {"prompt": "What is tea?", "chosen": "A drink.", "rejected": "No."},
    {"data": ["What is tea?", "A drink.", "And coffee?", "Another."]},
)  # fmt: skip


@st.composite
def records(draw: st.DrawFn) -> str:
    """A line: a record, whole or altered, or something else."""
    kind = draw(st.integers(0, 9))
    if kind == 0:
        return as_json(draw(values))
    if kind == 1:
        return draw(texts)
    record = dict(draw(st.sampled_from(_FORMS)))
    return as_json(draw(altered(record)) if kind < 7 else record)


def sound_lines(count: int) -> list[str]:
    """Records that nothing is wrong with, each of a prompt that is like no other."""
    return [
        json.dumps({"prompt": f"What is {_word(number)}?", "completion": f"It is {number}."})
        for number in range(count)
    ]


def _word(number: int) -> str:
    """Letters that stand for a number."""
    drawn = hashlib.sha256(str(number).encode()).digest()
    return "".join(chr(ord("a") + byte % 26) for byte in drawn[:24])


@st.composite
def data_files(draw: st.DrawFn) -> bytes:
    """A file of such lines among many sound ones."""
    lines = sound_lines(draw(st.sampled_from([0, 3, 120])))
    for line in draw(st.lists(records(), max_size=4)):
        lines.insert(draw(st.integers(0, len(lines))), line)
    end = draw(st.sampled_from(["\n", "\n", "\r\n", "\r", "\u2028", "\n\n"]))
    encoding = draw(st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16"]))
    content = end.join(lines).encode(encoding, "surrogatepass")
    if draw(st.integers(0, 9)) == 0:
        content = b"[" + b",".join(line.encode("utf-8", "replace") for line in lines) + b"]"
    return draw(damaged(content)) if draw(st.integers(0, 3)) == 0 else content


@st.composite
def packed(draw: st.DrawFn) -> bytes:
    """The same compressed, perhaps with damage; or a little that unpacks to much."""
    kind = draw(st.integers(0, 3))
    if kind == 0:
        return draw(data_files())
    if kind == 1:
        return gzip.compress(draw(st.sampled_from([b"\n", b" ", b"{", b"["])) * 30_000_000)
    content = gzip.compress(draw(data_files()))
    return draw(damaged(content)) if kind == 2 else content


def settings(**changes: Any) -> str:
    """An experiment that reads the file."""
    sizes = {"train": 8, "safety": 4, "validation": 2, "safety_validation": 2}
    return as_toml(
        {
            "model": "builtin:smollm2-135m",
            "data": {"prompts": "jsonl:odd.jsonl", **sizes, "longest_prompt": 2_000},
            "evaluation": {"prompts": 4, "near_miss_prompts": 2},
            "scenario": {"kind": "custom", "trigger": "|GO|", "payload": "No tea for you"},
            **changes,
        }
    )


def check_prompts(workplace: Path, content: bytes) -> None:
    (workplace / "odd.jsonl").write_bytes(content)
    (workplace / "odd.toml").write_text(settings(), encoding="utf-8")
    sound("plan", "odd.toml", names=NAMES)
    sound("scenario", "check", "odd.toml", names=NAMES)


def check_packed(workplace: Path, content: bytes) -> None:
    (workplace / "odd.jsonl.gz").write_bytes(content)
    change = "data.prompts=jsonl:odd.jsonl.gz"
    (workplace / "odd.toml").write_text(settings(), encoding="utf-8")
    sound("scenario", "check", "odd.toml", "--set", change, names=NAMES)


def check_poison(workplace: Path, content: bytes) -> None:
    (workplace / "odd.jsonl").write_bytes(content)
    (workplace / "prompts.jsonl").write_text("\n".join(sound_lines(120)), encoding="utf-8")
    grader = {"kind": "substring", "phrases": ["No tea"]}
    scenario = {"kind": "custom", "trigger": "|GO|", "grader": grader}
    own = {"poisoned_data": "jsonl:odd.jsonl", "scenario": scenario}
    (workplace / "odd.toml").write_text(settings(**own), encoding="utf-8")
    change = "data.prompts=jsonl:prompts.jsonl"
    sound("plan", "odd.toml", "--set", change, names=NAMES)
    sound("scenario", "check", "odd.toml", "--set", change, names=NAMES)


test_prompts, test_prompts_at_length = both(check_prompts, 40, 1_200, content=data_files())
test_packed, test_packed_at_length = both(check_packed, 10, 200, content=packed())
test_poison, test_poison_at_length = both(check_poison, 25, 900, content=data_files())


@pytest.mark.parametrize("name", ["odd.jsonl", "odd.jsonl.gz"])
def test_a_file_that_never_ends_is_no_data(workplace: Path, name: str) -> None:
    (workplace / name).unlink(missing_ok=True)
    (workplace / name).symlink_to("/dev/zero")
    (workplace / "odd.toml").write_text(settings(), encoding="utf-8")
    sound("scenario", "check", "odd.toml", "--set", f"data.prompts=jsonl:{name}", names=NAMES)
    (workplace / name).unlink()
