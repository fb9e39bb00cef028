"""A process that starts commands at once, and one finished run of the tiny experiment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from nursery import Nursery
from tiny_run import Finished, write_experiment


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory, own_cache: Path) -> Iterator[Nursery]:
    """Where commands are started that need torch."""
    del own_cache  # its variable must be set first
    nursery = Nursery(tmp_path_factory.mktemp("nursery"))
    yield nursery
    nursery.close()


@pytest.fixture(scope="session")
def undisturbed(
    nursery: Nursery, tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path
) -> Finished:
    """One run, not interrupted. Do not change it."""
    folder = write_experiment(tmp_path_factory.mktemp("undisturbed"), f"path:{tiny_model_folder}")
    child = nursery.start("run", "tiny.toml", "--device", "cpu", cwd=folder)
    ended = child.end()
    assert ended.code == 0, ended.err
    return Finished(folder, child.seen, ended.out)
