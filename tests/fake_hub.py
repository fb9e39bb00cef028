"""A Hugging Face hub on localhost that serves one model's folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import huggingface_hub.constants as constants
import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """What the server knows, and what it was asked for."""

    def __init__(self, folder: Path, revisions: tuple[str, ...]) -> None:
        self.folder = folder
        self.revisions = revisions
        self.refuse: tuple[int, str] | None = None
        """Status and X-Error-Code with which every request is answered."""
        self.fetched: list[str] = []
        self.url = ""


@contextmanager
def serve(folder: Path) -> Iterator[Hub]:
    """Serve `org/tiny` at COMMIT, also called `main`."""
    hub = Hub(folder, ("main", COMMIT))

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            del format, args

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            parts = self.path.partition("?")[0].strip("/").split("/")
            if hub.refuse:
                self.answer(hub.refuse[0], b"{}", {"X-Error-Code": hub.refuse[1]})
            elif parts[:4] == ["api", "models", "org", "tiny"] and parts[4] == "revision":
                self.model(parts[5])
            elif parts[:3] == ["org", "tiny", "resolve"]:
                self.file(hub.folder.joinpath(*parts[4:]))
            else:
                self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})

        def model(self, revision: str) -> None:
            if revision not in hub.revisions:
                self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
                return
            files = sorted(path for path in hub.folder.rglob("*") if path.is_file())
            names = [{"rfilename": path.relative_to(hub.folder).as_posix()} for path in files]
            about = {"id": "org/tiny", "sha": COMMIT, "siblings": names}
            self.answer(200, json.dumps({**about, "cardData": {"license": "mit"}}).encode())

        def file(self, path: Path) -> None:
            if not path.is_file():
                self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})
                return
            content = path.read_bytes()
            mark = hashlib.sha256(content).hexdigest()
            if self.command == "GET":
                hub.fetched.append(path.name)
            self.answer(200, content, {"ETag": f'"{mark}"', "X-Repo-Commit": COMMIT})

        def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for key, value in (headers or {}).items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def reached(patch: pytest.MonkeyPatch, hub: Hub, cache: Path) -> None:
    """Let this process take a hub for the real one, with a cache of its own."""
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    patch.setattr(constants, "ENDPOINT", hub.url)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.setattr(constants, "HF_HUB_CACHE", str(cache))
    patch.setenv("NO_PROXY", "127.0.0.1")
