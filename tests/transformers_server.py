"""`transformers serve`, a server of other people, on a free port of this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager

import pytest


@contextmanager
def transformers_server(*arguments: str) -> Generator[str]:
    """Its URL, once it answers.

    Args:
        arguments: of the command: a model that it is to serve alone, or nothing.
    """
    for name in ("fastapi", "uvicorn", "openai"):
        pytest.importorskip(name)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *(sys.executable, "-m", "transformers.cli.transformers", "serve", *arguments),
        *("--port", str(port), "--device", "cpu", "--dtype", "float32"),
    ]
    process = subprocess.Popen(command, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
                break
            except (urllib.error.URLError, OSError):
                assert process.poll() is None, "the server did not start"
                time.sleep(1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)
